"""What the report says of each student's labels and of its training."""

import json
import shutil

import numpy as np
import pytest

from tests.conftest import shorten
from w2s.cli import main
from w2s.evaluation.run import taught
from w2s.evaluation.run.runs import open_run
from w2s.store.records import PseudoLabels, read_arrays


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    """The tiny run with a fitted temperature, stopping rules that bite, and all students."""
    folder = tmp_path_factory.mktemp("taught") / "copy"
    shutil.copytree(tiny_run, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shorten(patch)
        changes = ["name=taught", "label.temperature=null", "controls.naive_student=true", "controls.long_learner=true"]
        changes += ["student.train.steps=60", "student.train.patience=2", "student.train.eval_every=2"]
        main(["run", "tiny.yaml", *changes])
        yield open_run(folder / "runs" / "taught")


def numbers(run) -> dict:
    found = json.loads((run.folder / "metrics.json").read_text())["metrics"]
    return {(m["suite"], m["model"], m["name"]): m["value"] for m in found}


@pytest.mark.parametrize(("student", "teacher"), [("student", "committee"), ("naive_student", "floor")])
def test_labels_are_measured_by_the_gold_of_the_transfer_pool(run, student, teacher):
    (made,) = run.find("labels", model=teacher)
    labels, gold = read_arrays(made.path / "labels.npz", PseudoLabels), run.gold("transfer", 0)
    p_N = labels.target_NK[np.arange(100), [gold[key] for key in labels.ids.tolist()]]
    best_N, found = labels.target_NK.max(1), numbers(run)
    assert found["transfer", student, "labels_right"] == pytest.approx((p_N == best_N).mean(), abs=1e-6)
    assert found["transfer", student, "labels_confidence"] == pytest.approx(best_N.mean(), abs=1e-6)
    assert found["transfer", student, "labels_log_loss"] == pytest.approx(-np.log(p_N).mean(), abs=1e-6)
    order, size = np.argsort(best_N, kind="stable"), 100
    gaps = [abs((best_N - (p_N == best_N))[part].sum()) for part in np.array_split(order, 15)]
    assert found["transfer", student, "labels_ece"] == pytest.approx(sum(gaps) / size, abs=1e-6)
    assert made.manifest["facts"]["fitted_temperature"]["rows"] == 60


def test_shuffled_labels_have_their_teachers_temperature_and_gold_ones_no_numbers(run):
    lessons = taught.read_lessons(run)
    assert list(lessons) == ["student", "ceiling", "naive_student", "easy_gold", "shuffled"]
    assert (
        lessons["shuffled"][0].temperature
        == lessons["student"][0].temperature
        != lessons["naive_student"][0].temperature
    )
    assert {name for _, model, name in numbers(run) if model == "ceiling"} & {"labels_right", "labels_ece"} == set()
    assert "labels_right" not in {name for _, model, name in numbers(run) if model == "easy_gold"}


def test_every_student_stops_by_the_same_rule_and_the_report_says_where(run):
    found, page = numbers(run), (run.folder / "report.md").read_text()
    lessons = taught.read_lessons(run)
    stopped = {model: one[0].fit for model, one in lessons.items()}
    for model, fit in stopped.items():
        suite = "easy_fit" if model == "easy_gold" else "transfer"
        assert fit["most_steps"] == 60
        assert found[suite, model, "steps"] == fit["step"] == len(fit["losses"])
        best = min(fit["looks"], key=lambda look: look[1])[0]
        assert found[suite, model, "best_step"] == best
        assert fit["step"] == 60 or fit["step"] - best == 4  # patience 2, a look every 2 steps
        assert found[suite, model, "unconverged"] == (best == 60)
        words = page.split("What each student was taught")[1]
        assert f"| {fit['step']} ({best}, 60) | {taught.explain_stop(fit)} |" in words
    assert any(fit["step"] < 60 for fit in stopped.values())
    assert "What each student was taught" in (run.folder / "report.html").read_text()


def test_controls_at_equal_cost_read_as_many_tokens_as_the_committee(run):
    spent = {
        name: sum(one.manifest["facts"]["tokens"] for one in run.find("round", model=name))
        for name in ("committee", "bagged")
    }
    (long,) = run.find("model", model="long_learner")
    assert spent["committee"] == spent["bagged"] == long.manifest["facts"]["tokens"]
    assert all(one.manifest["facts"]["refit"] for one in run.find("round"))  # 160 rows are few


@pytest.mark.parametrize(
    ("fit", "words"),
    [
        ({}, "solved at once"),
        ({"step": 8, "most_steps": 8, "looks": []}, "took all its steps: no labels were held out"),
        (
            {"step": 8, "most_steps": 8, "looks": [[4, 2.0], [8, 1.0]]},
            "not converged: best on held-out labels at its last step",
        ),
        (
            {"step": 8, "most_steps": 8, "looks": [[4, 1.0], [8, 1.0]]},
            "took all its steps; the best checkpoint was kept",
        ),
        ({"step": 8, "most_steps": 20, "looks": [[4, 1.0], [8, 2.0]]}, "stopped: no better on held-out labels"),
    ],
)
def test_why_a_fit_ended(fit, words):
    assert taught.explain_stop(fit) == words
