"""Every worker's job is written to job.json and read back as it was; what does not fit is one line."""

import dataclasses
import importlib.util
import json
import types
import typing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s.config.fields import Learner
from w2s.models.train import World
from w2s.store import hidden
from w2s.store.records import BadInput
from w2s.workers.job import WORKERS, Base, Finetune, Predict
from w2s.workers.job_files import find_worker, read_job, write_job
from w2s.workers.serve import run_job

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)


def values(annotation) -> st.SearchStrategy:
    """Any value of a field's type."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if dataclasses.is_dataclass(annotation):
        return records(annotation)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*map(values, inner))
    if origin is typing.Literal:
        return st.sampled_from(inner)
    if origin is list:
        return st.lists(values(inner[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(values(inner[0]), values(inner[1]), max_size=3)
    simple = {str: TEXT, int: st.integers(), float: NUMBER, bool: st.booleans(), type(None): st.none()}
    return {**simple, dict: st.dictionaries(TEXT, TEXT | NUMBER, max_size=2)}[annotation]


def records(kind: type) -> st.SearchStrategy:
    return st.builds(kind, **{name: values(hint) for name, hint in typing.get_type_hints(kind).items()})


@pytest.mark.parametrize("name", WORKERS)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_job_comes_back_from_its_file_as_it_was(name, data, tmp_path_factory):
    folder, job = tmp_path_factory.mktemp("job"), data.draw(records(WORKERS[name].job))
    write_job(folder, job)
    assert read_job(folder) == job
    assert json.loads((folder / "job.json").read_text())["worker"] == find_worker(job) == name


@pytest.mark.parametrize("name", WORKERS)
def test_every_job_has_a_frozen_type_and_a_module_of_its_own(name):
    kind, module = WORKERS[name]
    assert kind.__dataclass_params__.frozen
    assert importlib.util.find_spec(module)
    assert [kind, module] not in [list(worker) for other, worker in WORKERS.items() if other != name]


def written(folder, name: str, **changes):
    """A job.json of the fields that its type needs, and of these changes (None: the key is left out)."""
    kind = WORKERS[name].job
    kind_types = typing.get_type_hints(kind)
    value = {str: "x", int: 1, float: 1.0, dict: {}, dict[str, str]: {}, Learner: {}, Base: {"learner": {}}}
    needed = {
        field.name: value.get(kind_types[field.name], [])
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    job = {key: value for key, value in {"worker": name, **needed, **changes}.items() if value is not None}
    (folder / "job.json").write_text(json.dumps(job))
    return folder, list(needed)


def refused(folder) -> str:
    with pytest.raises(BadInput) as error:
        read_job(folder)
    assert str(error.value).startswith(f"{folder / 'job.json'}: ")
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", WORKERS)
def test_a_key_that_is_missing_or_unknown_is_one_line(name, tmp_path):
    for key in written(tmp_path, name)[1]:
        assert f"json: {key}: missing; allowed: " in refused(written(tmp_path, name, **{key: None})[0])
    assert "json: other: there is no such key" in refused(written(tmp_path, name, other=1)[0])
    read_job(written(tmp_path, name)[0])


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("finetune", {"seed": "one"}, "seed: 'one' given; allowed: a whole number"),
        ("finetune", {"weighting": "both"}, "weighting: 'both' given; allowed: one of: resample, loss"),
        ("finetune", {"learner": {"train": {"lr": "x"}}}, "learner.train.lr: 'x' given; allowed: a number"),
        (
            "finetune",
            {"learner": {"train": {"lrr": 1}}},
            "learner.train.lrr: there is no such key (did you mean 'lr'?)",
        ),
        ("finetune", {"learner": [1]}, "learner: [1] given; allowed: a mapping"),
        ("finetune", {"runtime": {"slots": "two"}}, "runtime.slots: 'two' given; allowed: a whole number or null"),
        ("objective", {"pairs": {"examples": "x"}}, "pairs.labels: missing; allowed: a text"),
        ("finetuned", {}, "worker: 'finetuned' given; allowed: pretrain, dequantise, finetune"),
    ],
)
def test_what_does_not_fit_is_named_with_its_key(name, changes, words, tmp_path):
    known = name if name in WORKERS else "finetune"
    written(tmp_path, known, **{"worker": name, **changes})
    assert words in refused(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "\0", "3"])
def test_a_damaged_job_is_one_line(text, tmp_path):
    (tmp_path / "job.json").write_text(text)
    assert "not readable" in refused(tmp_path)


def test_a_worker_tells_what_does_not_fit_in_one_line(tmp_path):
    answer = run_job(written(tmp_path, "predict", by=None)[0], World())
    assert answer["kind"] == "BadInput"
    assert answer["message"] == f"{tmp_path / 'job.json'}: by: missing; allowed: a text"


def test_what_a_job_leaves_out_has_its_default(tmp_path):
    write_job(tmp_path, Predict({"a": "a.jsonl"}, by="me"))
    short = {"worker": "predict", "examples": {"a": "a.jsonl"}, "by": "me"}
    (tmp_path / "short").mkdir()
    (tmp_path / "short" / "job.json").write_text(json.dumps(short))
    assert read_job(tmp_path) == read_job(tmp_path / "short")
    finetune = Finetune(Learner(), 0, "e", "l")
    write_job(tmp_path, finetune)
    assert read_job(tmp_path) == finetune


def test_a_value_of_the_environment_is_not_written_and_comes_back(tmp_path, monkeypatch):
    monkeypatch.setattr(hidden, "_known", {})
    monkeypatch.setenv("W2S_TEST_MODEL", "a-secret-place")
    job = Predict({"a": "a.jsonl"}, by="me", model=hidden.read_variable("W2S_TEST_MODEL"))
    write_job(tmp_path, job)
    assert "a-secret-place" not in (tmp_path / "job.json").read_text()
    assert read_job(tmp_path) == job
