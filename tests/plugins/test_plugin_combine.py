"""`w2s combine` with plug-ins: one of one's own, and RL-Focal, which ships."""

import json
from pathlib import Path

import pytest

from tests.evaluation.pools.test_combine import write
from tests.pools.made import made_up
from w2s.cli import main
from w2s.config import plugins
from w2s.config.tables import load_table
from w2s.pools import methods

pytestmark = pytest.mark.usefixtures("own_tables")

PLUGIN = '''
import numpy as np
from w2s.pools.records import Decision, Fitted

def last(opinions, truth, *, offset: int = 1):
    """The member whose name comes last."""
    return Fitted("last", np.sort(opinions.members)[-offset:][:1], {})

def apply_last(fitted, opinions, point):
    return Decision(opinions.answer_MN[0] < 0, member_N=np.zeros(len(opinions.ids), dtype=int))

METHODS = {"combine": {"last": last}, "combine_apply": {"last": apply_last}}
'''


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "pool", *made_up(questions=60))
    (tmp_path / "mine.py").write_text(PLUGIN)
    return tmp_path


def forget() -> None:
    """Unload what the test has loaded, as a new process would begin."""
    for path in [path for path in plugins._loaded if path.name == "mine.py"]:
        for table, name in plugins._loaded.pop(path).added:
            load_table(table).pop(name)


def refused(capsys, *words: str) -> list[str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    assert caught.value.code == 2
    return capsys.readouterr().err.splitlines()


def test_a_method_of_a_plug_in_is_judged_fitted_and_applied(folder, capsys):
    Path("pool.yaml").write_text("outputs: pool\nplugins: [mine.py]\nmethods: [last]\nrepeats: 1\nout: out\n")
    main(["combine", "--config", "pool.yaml"])
    report = json.loads(Path("out/combine.json").read_text())
    row = next(row for row in report["methods"] if row["name"] == "last")
    assert (row["family"], row["summary"]) == ("plug-ins", "The member whose name comes last.")
    forget()
    main(["combine", "apply", "out", "pool", "--method", "last", "--plugins", "mine.py"])
    forget()
    words = f"w2s: method: 'last' needs a plug-in that is not loaded: {folder / 'mine.py'} (--plugins FILE)"
    for command in ("apply", "labels"):
        assert refused(capsys, "combine", command, "out", "pool", "--method", "last") == [words]


def test_a_changed_plug_in_does_not_write_over_the_results_of_another(folder, capsys):
    words = ["combine", "pool", "--methods", "last", "--repeats", "1", "--out", "out"]
    main([*words, "--plugins", "mine.py"])
    forget()
    Path("mine.py").write_text(PLUGIN + "\n")
    (line,) = [line for line in refused(capsys, *words, "--plugins", "mine.py") if line.startswith("w2s: ")]
    assert "in use" in line
    forget()
    assert "'last' is not known" in refused(capsys, *words)[0]


def test_all_leaves_plug_ins_out(folder):
    plugins.load_plugins(["mine.py"], shipped=True)
    assert {"last", "rl_focal"} <= set(methods.METHODS)
    assert not {"last", "rl_focal"} & set(methods.ALL)


def test_the_plug_in_that_ships_is_found_in_silence_without_its_entry_point(folder, capsys, monkeypatch):
    monkeypatch.setattr(plugins.importlib.metadata, "entry_points", lambda group: ())
    main(["methods", "combine"])
    output = capsys.readouterr()
    assert "\n  rl_focal " in output.out
    assert output.err == ""
    assert plugins.list_loaded() == {}


def test_the_plug_in_that_ships_is_named_and_applied(folder, capsys):
    words = ["combine", "pool", "--methods", "rl_focal", "--repeats", "1", "--out", "out"]
    main([*words, "rl_focal.warm_steps=2", "rl_focal.updates=0", "rl_focal.window=10"])
    report = json.loads(Path("out/combine.json").read_text())
    assert "rl_focal" in [row["name"] for row in report["methods"]]
    assert "plugins" not in report["asked"]
    main(["combine", "apply", "out", "pool", "--method", "rl_focal"])
    assert "rl_focal: 60 questions" in capsys.readouterr().out
