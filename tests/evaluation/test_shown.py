"""What a report shows beside its numbers."""

from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.written_runs import RIGHT
from w2s.evaluation.run.collect import finish
from w2s.evaluation.run.metrics import judge
from w2s.evaluation.run.runs import SUITE, answers_to, open_run
from w2s.evaluation.shown import POINTS, below_chance, hard_answers, thinned, training
from w2s.store.files import write_json
from w2s.store.records import Predictions


@pytest.fixture
def run(in_tiny_run):
    return open_run(Path("runs/tiny"))


def test_the_students_training_and_every_rounds_are_read_with_losses_and_agreements(run):
    told = {one.who: one for one in training(run)}
    assert set(told) == {"student", "round 1", "round 2"}
    student = told["student"]
    assert [step for step, _ in student.loss] == list(range(1, 9))
    assert [step for step, _ in student.held_loss] == [step for step, _ in student.agreement] == [4, 8]
    assert all(0 <= share <= 1 for _, share in student.agreement)
    assert told["round 1"].held_loss == ()
    assert told["round 1"].loss[0][1] > 0


def test_a_run_without_records_of_its_training_has_no_curves(written):
    assert training(open_run(written.folder)) == ()


@pytest.mark.parametrize("gain", ["reward", "margin"])
def test_a_student_that_goes_on_by_an_objective_has_its_panels_after_that_of_its_labels(written, gain):
    looks = {"losses": [2.0, 1.0], "looks": [[1, 1.5], [2, 1.4]], "agreements": [None, None]}
    steps = {"loss": [0.1, 0.2, 0.1], gain: [0.0, 0.5, 0.7], "kl": [None] * 3}
    for model, told in (("sft_student", looks), ("student", steps)):
        path = written.add("fit", kind="model", model=model, seed=0) / "fit-0"
        path.mkdir()
        write_json(path / "train.json", told)
    written.seal()
    first, then = training(open_run(written.folder))
    assert (first.who, first.held_loss, first.agreement) == ("sft_student", ((1, 1.5), (2, 1.4)), ())
    assert (then.loss, getattr(then, gain), then.kl) == (
        ((1, 0.1), (2, 0.2), (3, 0.1)),
        ((1, 0.0), (2, 0.5), (3, 0.7)),
        (),
    )
    finish(written.folder)
    html, markdown = ((written.folder / f"report.{kind}").read_text() for kind in ("html", "md"))
    assert "Student before RL or DPO: the training loss, and in colour" in html
    assert "| student before RL or DPO | 0 | 2 | 1 | 1.4 |  |" in markdown
    assert "| student | 0 | 3 | 0.1 |  |  |" in markdown
    assert f">{gain}</text>" in html


@pytest.mark.parametrize("steps", [0, 1, 7, POINTS, POINTS + 1, 1000])
def test_a_thinned_curve_keeps_its_mean_and_its_end(steps):
    values = np.random.default_rng(0).random(steps).tolist()
    told = thinned(values)
    assert len(told) == min(steps, POINTS)
    if steps:
        widths = np.diff([0, *(step for step, _ in told)])
        assert told[-1][0] == steps
        assert np.average([value for _, value in told], weights=widths) == pytest.approx(np.mean(values))


def test_a_divergence_that_is_not_known_has_no_curve():
    assert thinned([None, None]) == ()


def test_answers_to_the_hard_test_are_those_that_were_judged(run):
    answers = answers_to(run, SUITE)
    rows, gold = run.questions(SUITE, 0), run.gold(SUITE, 0)
    shown = hard_answers(run, answers, 0)
    assert len(shown) == run.config["evaluation"]["samples"]
    for one in shown:
        assert {vote.learner for vote in one.votes} >= {"floor", "committee", "student", "ceiling"}
        assert one.gold == rows[one.id].choices[gold[one.id]]
        for vote in one.votes:
            judged = answers[0][vote.learner]
            at = judged.ids.tolist().index(one.id)
            assert vote.answer == one.choices[judged.opinion.probs_NK[at].argmax()]
            assert vote.right == (judged.correct_N[at] == 1)
            assert not vote.right or vote.answer == one.gold


def test_written_answers_are_shown_with_their_verdicts_some_of_each_kind(written):
    run = open_run(written.folder)
    shown = hard_answers(run, answers_to(run, SUITE), 0)
    assert len(shown) == 4
    for one in shown:
        n = int(one.id.rsplit("-", 1)[1])
        for vote in one.votes:
            right = n < RIGHT[vote.learner]
            assert vote.right == right
            assert vote.answer == written.text(n, right).strip("\n").rstrip()
    kinds = [tuple(vote.right for vote in one.votes if vote.learner in ("committee", "student")) for one in shown]
    assert len(set(kinds)) == 3  # only the student, neither, both; the committee alone never is


def guessing(ids, gold_N, share, seed):
    """An opinion that is right on that share of questions with four choices, judged."""
    rng = np.random.default_rng(seed)
    answer_N = np.where(rng.random(len(ids)) < share, gold_N, (gold_N + rng.integers(1, 4, len(ids))) % 4)
    probs_NK = 0.24 + 0.04 * (np.arange(4) == answer_N[:, None])
    opinion = Predictions(ids, probs_NK, np.ones((len(ids), 4), bool), np.zeros(len(ids), bool), "model")
    return judge(opinion, dict(zip(ids.tolist(), gold_N.tolist(), strict=True)))


def test_a_model_below_chance_is_named_and_shuffled_labels_are_explained():
    ids = np.array([f"q{at}" for at in range(2000)])
    gold_N = np.random.default_rng(0).integers(4, size=2000)
    answers = {0: {name: guessing(ids, gold_N, share, at) for at, (name, share) in enumerate(
        {"student": 0.6, "shuffled": 0.2, "floor": 0.15, "uniform": 0.25, "zero_shot": 0.4}.items()
    )}}  # fmt: skip
    said = below_chance(answers, 0)
    assert len(said) == 2
    assert said[0].startswith("seed 0: a student of shuffled labels is right on ")
    assert "below chance (25.0%): labels dealt to other questions teach that no choice is better" in said[0]
    assert "of its favourite 28% on average" in said[0]
    assert "the same answer on " in said[0]
    assert said[1].startswith("seed 0: the floor is right on ")
    assert said[1].endswith("below chance (25.0%)")
