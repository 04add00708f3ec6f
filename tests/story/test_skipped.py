"""A labeller that keeps no label: its student is skipped, and everything else stands."""

import json

import pytest

import w2s
from tests.plugins.test_plugin_run import CONFIG, PLUGIN
from w2s.cli import main

pytestmark = pytest.mark.usefixtures("own_tables")

METHODS = '''
def surest(ids, probs_NK, mask_NK, votes_RNK, sources_N, *, least: float):
    """Labels at least so sure."""
    keep_N = probs_NK.max(1) >= least
    return keep_N, np.where(keep_N, "kept", "not sure")

def sure(probs_RNK, mask_NK, alpha_R, abstained_RN=None):
    """All on the favourite; the floor alone is never so sure."""
    return np.eye(mask_NK.shape[1])[probs_RNK.mean(0).argmax(1)]

def unsure(probs_RNK, mask_NK, alpha_R, abstained_RN=None):
    """The same for all; the floor alone is surer."""
    return mask_NK / mask_NK.sum(1, keepdims=True)

METHODS |= {"combiners": {"sure": sure, "unsure": unsure}, "selectors": {"surest": surest}}
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Both runs share a store here."""
    folder = tmp_path_factory.mktemp("skipped")
    (folder / "mine.py").write_text(PLUGIN + METHODS)
    return folder


def run(combiner: str, least: float, capsys) -> tuple[str, str]:
    """The run on the command line, twice; returns the verdict and the log of the first time."""
    config = CONFIG.replace("name: plugged", f"name: {combiner}").replace("naive_student: false, ", "")
    labels = f"label: {{select: {{name: surest, least: {least}}}, combiner: {{name: {combiner}}}}}"
    config = config.replace("label: {combiner: {name: middle}}", labels)
    config = config.replace('path: "builtin:strong", trainable: attention', "kind: counted")
    with open(f"{combiner}.yaml", "w") as file:
        file.write(config)
    main(["run", f"{combiner}.yaml"])
    first = capsys.readouterr()
    main(["run", f"{combiner}.yaml"])
    assert " 0 to run" in capsys.readouterr().err
    return first.out.splitlines()[0], first.err


def read_accuracies(name: str) -> dict[str, dict]:
    with open(f"runs/{name}/metrics.json") as file:
        rows = json.load(file)["metrics"]
    return {row["model"]: row for row in rows if (row["suite"], row["name"]) == ("hard_test", "accuracy")}


def test_a_control_without_labels_is_skipped_and_the_run_goes_on(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    verdict, said = run("sure", 0.95, capsys)
    found = read_accuracies("sure")
    reason = found["naive_student"]["reason"]
    assert verdict.startswith("the student ")
    assert reason == "not trained: every label was dropped (60 of 60: not sure)"
    assert f"naive_student: skipped {reason.removeprefix('not trained: ')}" in said
    assert (found["naive_student"]["value"], found["naive_student"]["seeds"]) == (None, [0])
    assert all(row["value"] is not None for model, row in found.items() if model != "naive_student")
    page = (folder / "runs/sure/report.md").read_text()
    assert f"Seed 0: student of the floor: {reason}" in page
    assert page.count(reason) == 2
    compared = w2s.compare([folder / "runs/sure"] * 2, folder / "compared")
    assert "student of the floor" not in compared.read_text()


def test_a_run_whose_student_has_no_labels_reports_what_stands(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    verdict, _ = run("unsure", 0.7, capsys)
    found = read_accuracies("unsure")
    reason = found["student"]["reason"]
    assert verdict == f"no verdict: the student was {reason}"
    assert {model for model, row in found.items() if row["value"] is None} == {"student"}
    assert {"floor", "committee", "naive_student", "ceiling"} <= found.keys()
    assert not (folder / "runs/unsure/student").exists()
    main(["report", "unsure", "--results", "results"])
    assert f"| student | – ({reason}) | 0 | 0 |" in (folder / "results/unsure.md").read_text()
