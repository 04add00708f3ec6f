"""A name in use is not written over in silence, and what comes from the environment is shown nowhere."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests import conftest
from tests.store.test_damage import refused
from w2s.cli import main
from w2s.config.load import load, shown
from w2s.models import builtin
from w2s.store import hidden, log
from w2s.store.artifacts import read_listing, write_listing

SECRET = "s3cr3t-Wärt"


@pytest.fixture
def copy(in_tiny_run, tmp_path, monkeypatch) -> Path:
    """A copy of the finished run that may be written over."""
    for name in ("tiny.yaml", "data"):
        (tmp_path / name).symlink_to(in_tiny_run / name)
    shutil.copytree(in_tiny_run / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    log.to_file(None)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("student.train.steps=9", "student.train.steps is 8 there, 9 here"),
        ("seeds=[0,1]", "seeds is [0] there, [0, 1] here"),
        ("evaluation.bins=7", "evaluation.bins is 5 there, 7 here"),
        ("controls.ceiling=false", "controls.ceiling is True there, False here"),
        ("boosting.booster={name: samme, shrinkage: 0.5}", "boosting.booster.clip is [0.05, 3.0] there, not set here"),
        ("label.select={name: confidence, keep_share: 0.5}", "label.select.name is everything there, confidence here"),
    ],
)
def test_another_config_does_not_write_over_a_run(copy, capsys, override, words):
    before = files(copy / "runs")
    line = refused(["run", "tiny.yaml", override], capsys)
    assert line.startswith(f"w2s: name: runs/tiny is in use: {words}")
    assert "name=... for a new run, --replace" in line
    assert files(copy / "runs") == before  # no line in the log either


def test_what_changes_no_result_is_no_other_run(copy):
    main(["run", "tiny.yaml", "runtime.threads=2", "runtime.micro_batch=16"])


def test_other_stages_under_the_same_config_are_another_run_and_replace_lets_it_go(copy, capsys):
    """Data, code or the environment may change while the config stays."""
    folder = Path("runs/tiny")
    numbers, listed = (folder / "metrics.json").read_bytes(), read_listing(folder)
    listed["stages"][0]["folder"] = "questions-0123456789abcdef"
    write_listing(folder, (folder / "config.yaml").read_text(), listed)
    (folder / "curve.html").write_text("of a study under this name")
    line = refused(["run", "tiny.yaml"], capsys)
    assert "data, code, environment or command differ (1 of its 66 stages are different); name=... for a new" in line
    main(["run", "tiny.yaml", "--replace"])
    assert (folder / "metrics.json").read_bytes() == numbers
    assert not (folder / "curve.html").exists()


@pytest.mark.parametrize("name", ["notes.txt", "report.html", "model.safetensors"])
def test_a_folder_that_holds_something_else_is_no_run_s(copy, capsys, name):
    Path("runs/other").mkdir()
    Path("runs/other", name).write_text("mine")
    assert f"runs/other is in use: it holds {name}" in refused(["run", "tiny.yaml", "name=other"], capsys)
    assert Path("runs/other", name).read_text() == "mine"


@pytest.mark.parametrize(
    "name",
    ["-x", ".hidden", "..", ".", "a/b", "a\\b", "store", "Store", "store.lock", "x.partial", "x.new", "combine",
     "compare", "judge", "evaluate", "", " ", "a b", "a\nb", "a\0b", "\ud800", "x" * 81, "$(id)", "a;b", "*"],
)  # fmt: skip
def test_names_that_would_harm_are_refused(copy, capsys, name):
    config = Path("tiny.yaml").read_text().replace("name: tiny", "")
    Path("named.yaml").write_text(config + "name: " + json.dumps(name) + "\n")
    for command in ("run", "plan"):
        line = refused([command, "named.yaml"], capsys)
        assert "named.yaml: name: " in line or re.search(r"named\.yaml:\d+: not readable", line)


@pytest.mark.parametrize("name", ["tiny", "a.b-c_d", "2026-11-26", "_x", "größe", "x" * 80])
def test_names_that_people_use_are_taken(tiny_config, name):
    assert load(str(tiny_config), [f"name={json.dumps(name)}"]).name == name


@pytest.fixture
def secret(monkeypatch) -> str:
    monkeypatch.setenv("W2S_SECRET", SECRET)
    monkeypatch.setattr(hidden, "_known", {})
    return SECRET


def test_a_value_of_the_environment_is_used_and_not_shown(tiny_config, secret):
    config = load(
        str(tiny_config), ["student.model.revision=${oc.env:W2S_SECRET}", "label.recorded=/x/${oc.env:W2S_SECRET}/y"]
    )
    assert config.student.model.revision == secret
    assert config.label.recorded == f"/x/{secret}/y"
    told = shown(config)
    assert told["student"]["model"]["revision"] == "${oc.env:W2S_SECRET}"
    assert told["label"]["recorded"] == "/x/${oc.env:W2S_SECRET}/y"
    assert secret not in json.dumps(told, ensure_ascii=False)
    assert hidden.reveal_values(told)["label"]["recorded"] == f"/x/{secret}/y"


@pytest.mark.parametrize(
    "override",
    [
        "student.model.path=./${oc.env:W2S_SECRET}",
        "student.model.kind=${oc.env:W2S_SECRET}",
        "name=a/${oc.env:W2S_SECRET}",
        "boosting.booster.name=${oc.env:W2S_SECRET}",
        "data.sources=[{name: '${oc.env:W2S_SECRET}'}]",
        "data.sources=[{name: file, path: '${oc.env:W2S_SECRET}.jsonl'}]",
        "seeds=${oc.env:W2S_SECRET}",
        "runtime.slots=${oc.decode:${oc.env:W2S_SECRET}}",
    ],
)
def test_no_message_shows_a_value_of_the_environment(tiny_config, secret, capsys, override):
    for command in ("run", "plan"):
        try:
            with pytest.raises(SystemExit):
                main([command, str(tiny_config), override])
        finally:
            log.to_file(None)
        said = capsys.readouterr()
        for form in (secret, repr(secret)[1:-1], ascii(secret)[1:-1]):
            assert form not in said.err + said.out
        assert "Traceback" not in said.err
    assert not list(Path("runs").rglob("*.json"))


def test_a_variable_that_is_not_set_is_told_and_a_default_is_taken(tiny_config, monkeypatch, capsys):
    monkeypatch.delenv("W2S_SECRET", raising=False)
    assert "W2S_SECRET" in refused(["plan", str(tiny_config), "label.recorded=${oc.env:W2S_SECRET}"], capsys)
    config = load(str(tiny_config), ["label.recorded=${oc.env:W2S_SECRET,labels}"])
    assert config.label.recorded == "labels"


def test_a_short_value_is_hidden_where_it_stands_alone(monkeypatch):
    monkeypatch.setattr(hidden, "_known", {})
    monkeypatch.setenv("W2S_KIND", "lm")
    assert hidden.read_variable("W2S_KIND") == "lm"
    assert hidden.hide_values({"kind": "lm", "text": "film"}) == {"kind": "${oc.env:W2S_KIND}", "text": "film"}


def test_no_file_of_a_run_holds_a_value_of_the_environment(tiny_config, secret, monkeypatch):
    """A whole run of one learner whose data, model and questions lie under a secret path."""
    shutil.move("data", secret)
    builtin.make("strong", ["weight ? a1 b1 c1 ="], Path(secret, "model"), seed=0)
    conftest.shorten(monkeypatch)
    words = ["data.root=${oc.env:W2S_SECRET}", "boosting.rounds=1", "controls.ceiling=false", "controls.shuffled=false",
             "controls.easy_gold=false", "controls.zero_shot=false", "controls.bagged=false", "controls.uniform=false",
             "evaluation.suites=[{name: file, path: own.jsonl}]",
             "student.model.path=./${oc.env:W2S_SECRET}/model"]  # fmt: skip
    main(["run", str(tiny_config), *words])
    log.to_file(None)
    holding = [str(path) for path in Path("runs").rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert not holding
    assert "${oc.env:W2S_SECRET}" in Path("runs/tiny/config.yaml").read_text()
    assert "${oc.env:W2S_SECRET}" in Path("runs/tiny/report.html").read_text()
