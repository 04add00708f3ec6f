"""The story as a graph: who descends from whom, what a change re-runs, and the order in which stages are made."""

import dataclasses
import json
import re
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from w2s.config.experts import Experts
from w2s.config.fields import (
    Boosting,
    Config,
    Controls,
    Data,
    Evaluation,
    LabelReward,
    Labels,
    Learner,
    Model,
    Models,
    RewardModels,
    Runtime,
    Sizes,
    Student,
    Tokens,
    Train,
    Writing,
)
from w2s.config.load import load
from w2s.config.merging import Merging
from w2s.config.studies import Curve, RewardPool, RewardStudy
from w2s.data.rows import hash_folder, hash_rows
from w2s.models import backends
from w2s.store.artifacts import Stage, Store
from w2s.store.records import BadInput, Example, Gold
from w2s.story.execution import execute, write_run
from w2s.story.main import build

LEARNER_FITS = [r"(committee|bagged) · round \d", "floor", "long_learner"]
STUDENTS = ["student", "naive_student", "shuffled", "easy_gold", "ceiling"]
ZERO_SHOT = ["zero_shot answers.*", "zero_shot writes .*"]
ROUNDS = [r"(committee|bagged) · round \d"]
VOTES = [r"(committee|uniform|bagged) · who votes"]
COMBINED = [r"(committee|uniform|bagged|best_learner) answers.*"]

MODEL_CHANGES = {
    "path": "builtin:{other}",
    "revision": "v2",
    "kind": "pair",
    "pipeline": {"name": "words"},
    "layers": 1,
    "pooling": "mean",
    "l2": 0.5,
    "prompt": {"name": "qa"},
    "shots": [{"prompt": "1 + 1", "answer": "2"}],  # drawn ones are also set apart: see test_shots
    "normalise": "per_token",
    "trainable": "head",
    "top": 1,
    "lora_rank": 4,
    "lora_targets": ["c_attn"],
    "attn": "eager",
    "quantise": "4bit",
}
ADAPTING = {"trainable", "top", "lora_rank", "lora_targets", "l2"}
TRAIN_CHANGES = {
    "epochs": 2.0,
    "steps": 77,
    "batch": 8,
    "lr": 0.5,
    "weight_decay": 0.5,
    "beta2": 0.5,
    "clip": 0.5,
    "warmup_share": 0.5,
    "schedule": "cosine",
    "loss": {"name": "kl"},
    "holdout_share": 0.5,
    "eval_every": 7,
    "patience": 3,
    "max_tokens": 99,
    "precision": "bfloat16",  # auto is float32 for a builtin model
}
ONLY_TRAINING = set(TRAIN_CHANGES) - {"max_tokens", "precision"}
REWARD_CHANGES = {
    "kind": "heads",
    "members": 3,
    "models": [Learner(Model(path="builtin:weak", kind="pair"))],
    "head_steps": 7,
    "layers": 1,
    "rank": 3,
    "diversity": 0.1,
    "bootstrap": True,
    "pairs": {"name": "committee"},
    "aggregate": {"name": "median"},
    "standardise": "set",
    **{f"curve.{field.name}": 7 for field in dataclasses.fields(Curve) if field.name != "policy"},
    "curve.policy": "student",
    "study.suites": [{"name": "autoj"}],
    "study.compare": ["warm"],
    "study.shared_start": True,
    "study.held_out": 0.5,
    **{"study.pool.outputs": "answers", "study.pool.instructions": 7, "study.pool.probes": ["null"]},
}
MERGING_CHANGES = {"method": {"name": "ties"}, "weights": "uniform", "evaluations": 30, "scale": 0.5}
EXPERTS_CHANGES = {"count": 3, "active": 1, "balance": 0.5, "router": "zero", "rest": "base"}
# key -> (another value, the stages whose own options it is, as patterns of their titles)
CHANGES = {
    "name": ("other", []),
    "seeds": ([0, 1], []),
    "plugins": (["mine.py"], []),
    "limit": (30, ["questions", "(world 0 · )?base model strong"]),
    "data.root": ("elsewhere", []),  # the same rows in another folder
    "models.root": ("elsewhere", []),  # the same models in another folder
    "data.sources": ([{"name": "world", "easy": 401, "hard": 500}], ["questions"]),
    "data.difficulty": ({"name": "length"}, ["questions"]),
    "data.easy_max": (-1.0, ["questions"]),
    "data.hard_min": (2.0, ["questions"]),
    "data.easy_share": (0.5, ["questions"]),
    "data.test_splits": (["test"], ["questions"]),
    **{f"data.sizes.{field.name}": (33, ["questions"]) for field in dataclasses.fields(Sizes)},
    "data.allow_fewer": (True, ["questions"]),
    "data.near": (0.5, ["questions"]),
    **{f"learners.0.model.{name}": (value, LEARNER_FITS) for name, value in MODEL_CHANGES.items()},
    **{f"learners.0.train.{name}": (value, LEARNER_FITS) for name, value in TRAIN_CHANGES.items()},
    "boosting.rounds": (3, [*VOTES, "long_learner"]),  # the rounds that are there stay
    "boosting.booster": ({"name": "samme", "shrinkage": 0.4}, [r"committee · round \d"]),
    "boosting.weighting": ("loss", ROUNDS),
    "boosting.errors": ("rotate", [*ROUNDS, "long_learner"]),  # which takes as many steps as the rounds
    "boosting.folds": (3, [*ROUNDS, "long_learner"]),
    "boosting.refit": (False, [*ROUNDS, "long_learner"]),
    "boosting.min_effective_share": (0.5, ROUNDS),
    "boosting.least_effective_share": (0.5, ROUNDS),
    "boosting.patience": (2, [r"committee · round \d"]),
    **{
        f"boosting.tokens.{name}": (value, [])
        for name, value in (("by", "answer"), ("window", 1), ("cap", 9.0), ("count", "final"))
    },
    "writing.max_new_tokens": (9, []),
    "writing.stop": (["!"], [".* writes humaneval"]),
    "writing.mixture": ("log_linear", [".* writes humaneval"]),
    "writing.mix": ("disagree", [".* writes humaneval"]),
    "writing.samples": (9, []),
    "writing.temperature": (0.9, []),
    "label.made": ("winner", []),
    "label.fusion": ("mince", []),
    "label.top": (9, []),
    "label.check_examples": (True, []),
    "label.combiner": ({"name": "log_odds"}, [*VOTES, *COMBINED]),
    "label.alphas": ({"name": "decorrelated"}, ["committee · who votes"]),
    "label.select": ({"name": "agreement"}, ["labels by .*"]),
    "label.soft": (False, ["labels by .*"]),
    "label.temperature": (0.5, ["labels by .*"]),
    "label.recorded": ("recorded", []),  # one more student
    # Nobody's own in a run without rewards; tests/test_rewarded.py has one with them.
    **{f"rewards.{name}": (value, []) for name, value in REWARD_CHANGES.items()},
    **{f"label.reward.{name}": (value, []) for name, value in (("strength", 2.0), ("accept", {"quantile": 0.1}))},
    "label.reward.use": ("none", []),
    **{
        f"student.model.{name}": (value, STUDENTS + (ZERO_SHOT if name not in ADAPTING else []))
        for name, value in MODEL_CHANGES.items()
    },
    **{
        f"student.train.{name}": (value, STUDENTS + (ZERO_SHOT if name in ("max_tokens", "precision") else []))
        for name, value in TRAIN_CHANGES.items()
    },
    "student.objective": ({"name": "dpo"}, ["student answers.*", "student writes .*"]),  # of another student
    # Nobody's own in a run without merged learners and experts: see test_merging.py and test_experts.py.
    **{f"merging.{name}": (value, []) for name, value in MERGING_CHANGES.items()},
    **{f"experts.{name}": (value, []) for name, value in EXPERTS_CHANGES.items()},
    "label.teacher": ("committee", []),
    "student.start": ("base", []),
    **{f"controls.{field.name}": (False, []) for field in dataclasses.fields(Controls)},
    "evaluation.suites": (
        [{"name": "humaneval", "limit": 3}, {"name": "file", "path": "own.jsonl"}, {"name": "world"}],
        [],
    ),
    "evaluation.bins": (7, []),
    "evaluation.samples": (3, []),
    "evaluation.programs": (5, [".* writes humaneval"]),
    "evaluation.temperature": (0.9, [".* writes humaneval"]),
    "evaluation.max_new_tokens": (7, [".* writes humaneval"]),
    "runtime.runs_dir": ("elsewhere", []),
    "runtime.slots": (3, []),
    "runtime.processes": (2, []),
    "runtime.threads": (2, []),
    "runtime.micro_batch": (2, []),
    "runtime.deepspeed": ("launch/zero2.json", []),
    "runtime.hostfile": ("hosts", []),
    "runtime.gradient_checkpointing": (True, []),
    "runtime.checkpoint_every": (7, []),
    "runtime.trust_remote_code": (True, []),
    "runtime.allow_unsandboxed": (True, []),
}


def leaves(kind: type, prefix: str = "") -> list[str]:
    """Every key of a config, learners as their first."""
    inner = {"data": Data, "sizes": Sizes, "boosting": Boosting, "label": Labels, "student": Student, "model": Model}
    inner |= {"rewards": RewardModels, "reward": LabelReward, "curve": Curve, "study": RewardStudy, "pool": RewardPool}
    inner |= {
        "tokens": Tokens,
        "writing": Writing,
        "train": Train,
        "controls": Controls,
        "evaluation": Evaluation,
        "runtime": Runtime,
        "models": Models,
        "merging": Merging,
        "experts": Experts,
    }
    found = []
    for field in dataclasses.fields(kind):
        if field.name == "learners":
            found += leaves(Learner, "learners.0.")
        elif field.name in inner and prefix + field.name not in ("rewards.models", "controls.experts"):
            found += leaves(inner[field.name], f"{prefix}{field.name}.")
        else:
            found.append(prefix + field.name)
    return found


def changed(value, key: str, new):
    """The config with one key set, unchecked."""
    first, _, rest = key.partition(".")
    if isinstance(value, list):
        return [changed(value[0], rest, new), *value[1:]]
    inner = changed(getattr(value, first), rest, new) if rest else new
    return dataclasses.replace(value, **{first: inner})


def told(config: Config) -> dict[str, Stage]:
    found = build(config, run_job=None)
    titles = [stage.title.removeprefix("seed 0 · ") for stage in found]
    assert len(set(titles)) == len(titles), "two stages with one title"
    return dict(zip(titles, found, strict=True))


def ancestors(stage: Stage) -> dict[str, Stage]:
    found = {stage.key: stage}
    for parent in stage.parents.values():
        found |= ancestors(parent)
    return found


@pytest.fixture
def config(tiny_config) -> Config:
    controls = ["controls.long_learner=true", "controls.naive_student=true"]
    return load(tiny_config, [*controls, "student.train.patience=9"])


def test_the_table_of_changes_names_every_key_of_the_config():
    assert sorted(CHANGES) == sorted(leaves(Config))


@pytest.mark.parametrize("key", CHANGES)
def test_a_changed_field_gives_new_keys_to_exactly_the_stages_downstream(config, key, tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "lacking", lambda *_: [])  # also where bitsandbytes is not installed
    value, own = CHANGES[key]
    if key.endswith("model.path"):
        value = value.format(other="strong" if key.startswith("learners") else "weak")
    if key == "data.root":
        shutil.copytree(tmp_path / "data", tmp_path / "elsewhere")
    if key == "label.recorded":
        (tmp_path / "recorded").mkdir()
        (tmp_path / "recorded" / "labels.npz").write_bytes(b"")
    before, after = told(config), told(changed(config, key, value))
    common = set(before) & set(after)
    roots = {after[title].key for title in common if any(re.fullmatch(pattern, title) for pattern in own)}
    assert bool(roots) is bool(own)
    expected = {title for title in common if roots & set(ancestors(after[title]))}
    assert {title for title in common if before[title].key != after[title].key} == expected
    if key.startswith("controls."):
        # The naive student still needs its floor, and questions with choices are boosted by whole answers anyway.
        same = ("controls.floor", "controls.answer_level", "controls.unrewarded")
        off = not getattr(Controls, key.removeprefix("controls."))  # it is off anyway
        assert set(after) < set(before) or key in same or off
    if key in ("evaluation.suites", "boosting.rounds", "label.recorded"):
        assert set(before) < set(after)


def test_the_student_never_descends_from_the_gold_of_the_transfer_pool(config):
    stages = told(config)
    locked = {stages[f"gold of {split}"].key for split in ("transfer", "hard_test")}
    for who in (
        "student",
        "naive_student",
        "shuffled",
        "easy_gold",
        "committee answers",
        "labels by committee",
        "floor",
    ):
        assert not locked & set(ancestors(stages[who])), who
    assert locked & set(ancestors(stages["ceiling"])) == {stages["gold of transfer"].key}
    assert stages["gold of easy"].key in ancestors(stages["student"])


def test_a_fitted_temperature_needs_each_teachers_opinion_of_easy_questions_and_no_other_gold(config):
    config = changed(config, "label.temperature", None)
    stages, plain = told(config), told(changed(config, "label.temperature", 1.0))
    for who in ("committee", "floor"):
        labels = stages[f"labels by {who}"]
        assert labels.parents["gold"] is stages["gold of easy"]
        assert "easy_holdout" in labels.parents["holdout"].section["sets"]
        assert labels.parents["holdout"].section["by"] == who
    assert stages["labels by committee"].parents == stages["labels by committee, shuffled"].parents
    locked = {stages[f"gold of {split}"].key for split in ("transfer", "hard_test")}
    assert not locked & {key for who in ("student", "naive_student", "shuffled") for key in ancestors(stages[who])}
    # Hard labels have no temperature, and no other stage changes.
    assert set(told(changed(config, "label.soft", False))) == set(plain)
    assert stages["long_learner answers"].key == plain["long_learner answers"].key


def test_the_ceiling_differs_from_the_student_by_one_parent(config):
    student, ceiling = (told(config)[who] for who in ("student", "ceiling"))
    assert student.section == ceiling.section
    assert student.name == ceiling.name
    assert set(student.parents) == set(ceiling.parents)
    other = [role for role in student.parents if student.parents[role].key != ceiling.parents[role].key]
    assert other == ["labels"]


def test_only_stages_that_judge_or_make_targets_hold_gold(config):
    """Whoever has a gold folder as a direct parent must be one of the few that may see answers."""
    may = {"gold_targets", "committee", "judged", "reward_pairs", "tilted", "pseudo_labels"}
    for stage in told(changed(config, "label.temperature", None)).values():
        if any(parent.name in ("gold", "suite_gold") for parent in stage.parents.values()):
            assert stage.name in may, stage.title


def test_with_patience_the_rounds_see_the_gold_of_easy_questions_alone(config):
    stages = told(changed(config, "boosting.patience", 2))
    golds = {s.tags["split"] for s in ancestors(stages["committee · round 2"]).values() if s.name == "gold"}
    assert golds == {"easy"}


def test_rounds_measured_against_the_untrained_base_have_its_opinion_as_a_parent(config):
    ensemw2s = {"name": "ensemw2s"}
    stages = told(changed(config, "boosting.booster", ensemw2s))
    assert stages["committee · round 1"].parents["untrained"] is stages["the untrained base answers"]
    assert "untrained" not in stages["bagged · round 1"].parents
    fixed = told(changed(config, "boosting.booster", ensemw2s | {"reference": "chance"}))
    assert "the untrained base answers" not in fixed


def test_learners_take_turns(config):
    config = dataclasses.replace(config, learners=[config.learners[0], Learner(model=Model(path="builtin:strong"))])
    config = changed(config, "boosting.rounds", 3)
    paths = [told(config)[f"committee · round {n}"].section["learner"]["model"]["path"] for n in (1, 2, 3)]
    assert paths == ["builtin:weak", "builtin:strong", "builtin:weak"]


def test_seeds_share_what_no_seed_decides(config):
    found = build(changed(config, "seeds", [0, 2]), run_job=None)  # seeds 0 and 2 live in world 0
    assert [s.title for s in found if s.name == "pretrain"] == [
        "world 0 · base model weak",
        "world 0 · base model strong",
    ]
    assert len([s for s in found if s.name == "suite"]) == 2


def test_the_rows_are_the_identity_of_a_data_set_wherever_they_lie(config, tmp_path):
    rows = [Example("1", "s", "choice", "p", ("a", "b"))], [Gold("1", 0)]
    assert hash_rows(rows) == hash_rows(rows)
    assert hash_rows(rows) != hash_rows((rows[0], [Gold("1", 1)]))
    own = tmp_path / "data" / "own.jsonl"
    before = told(config)
    own.write_text(own.read_text().replace("a11", "x11"))
    after = told(config)
    other = {title for title in before if before[title].key != after[title].key}
    assert {"file", "gold of file", "student answers file"} <= other
    assert all(title.endswith("file") for title in other)


def test_a_changed_local_model_is_another_base(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_bytes(b"a" * 10)
    before = hash_folder(folder)
    (folder / "weights").write_bytes(b"b" * 10)
    assert hash_folder(folder) != before
    assert hash_folder(tmp_path / "nothing") is None


# Making stages


def stage(name: str, parents: list[Stage], work) -> Stage:
    return Stage(name, name, {}, {p.name: p for p in parents}, lambda here, inputs: work(name))


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_stages_are_made_after_their_parents_and_at_most_so_many_at_a_time(tmp_path, slots):
    order, running, most, lock = [], 0, 0, threading.Lock()

    def work(name):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1
            order.append(name)

    a, b = stage("a", [], work), stage("b", [], work)
    c, d = stage("c", [a, b], work), stage("d", [a], work)
    e = stage("e", [c, d], work)
    with ThreadPoolExecutor() as pool:
        execute([a, b, c, d, e], Store(tmp_path), pool, slots)
    assert sorted(order) == list("abcde")
    assert all(order.index(p.name) < order.index(s.name) for s in (c, d, e) for p in s.parents.values())
    assert most <= slots


def test_after_a_failure_nothing_new_starts_and_what_ran_is_kept(tmp_path):
    made = []

    def work(name):
        if name == "bad":
            raise BadInput("bad: it is bad")
        time.sleep(0.1)
        made.append(name)

    good, bad = stage("good", [], work), stage("bad", [], work)
    later = stage("later", [good], work)
    with ThreadPoolExecutor() as pool, pytest.raises(BadInput, match="it is bad"):
        execute([good, bad, later], Store(tmp_path), pool, 2)
    assert made == ["good"]
    assert Store(tmp_path).done(good)


def test_what_a_run_consists_of_is_written_down(config, tmp_path):
    stages = build(config, run_job=None)
    folder = write_run(config, stages, "chain", ["w2s", "run", "x"])
    listed = json.loads((folder / "stages.json").read_text())
    assert (listed["study"], listed["command"]) == ("chain", "w2s run x")
    assert [one["folder"] for one in listed["stages"]] == [s.folder_name for s in stages]
    by_folder = {one["folder"] for one in listed["stages"]}
    assert all(set(one["parents"].values()) <= by_folder for one in listed["stages"])
    assert load(folder / "config.yaml") == config
