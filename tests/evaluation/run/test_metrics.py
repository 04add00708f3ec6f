import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s.evaluation.run.metrics import (
    MODELS,
    calibration_error,
    difficulty_bins,
    judge,
    judge_outcomes,
    measure,
    measure_samples,
    write_metrics,
)
from w2s.evaluation.run.verdict import find, remarks
from w2s.grading.answers import NO_ANSWER
from w2s.store.records import Outcome, Predictions, softmax


def opinion(rng, ids, gold_N, *, skill, k=4, by="model"):
    """An opinion that leans to the right candidate: the higher the skill, the more."""
    mask_NK = np.ones((len(ids), k), bool)
    scores_NK = rng.normal(size=(len(ids), k)) + skill * (np.arange(k) == gold_N[:, None])
    return Predictions(np.asarray(ids), softmax(scores_NK, mask_NK), mask_NK, np.zeros(len(ids), bool), by)


def a_run(seeds=(0, 1, 2), n=120, **skills):
    skills = skills or {"floor": 0.5, "committee": 1.0, "student": 1.4, "ceiling": 2.0, "bagged": 0.9, "easy_gold": 1.9}
    run = {}
    for seed in seeds:
        rng = np.random.default_rng(seed)
        ids = np.array([f"{seed}-{i}" for i in range(n)])
        gold_N = rng.integers(4, size=n)
        gold = dict(zip(ids.tolist(), gold_N.tolist(), strict=True))
        run[seed] = {m: judge(opinion(rng, ids, gold_N, skill=s, by=m), gold) for m, s in skills.items()}
    return run


def test_metrics_are_the_plain_means():
    run = a_run()
    found = measure("hard", run)
    by_hand = {m: np.mean([run[s][m].correct_N.mean() for s in run]) for m in run[0]}
    for model, value in by_hand.items():
        assert find(found, "hard", model, "accuracy").value == pytest.approx(value)
    gap = find(found, "hard", "student", "accuracy_minus_committee")
    assert gap.value == pytest.approx(by_hand["student"] - by_hand["committee"])
    assert (gap.n, gap.seeds) == (360, (0, 1, 2))
    pgr = find(found, "hard", "student", "pgr")
    assert pgr.value == pytest.approx((by_hand["student"] - by_hand["floor"]) / (by_hand["ceiling"] - by_hand["floor"]))
    assert pgr.low < pgr.value < pgr.high
    assert {m.model for m in found} <= set(MODELS)


@given(st.integers(0, 2**16))
@settings(max_examples=15, deadline=None)
def test_a_permutation_of_candidates_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    gold_N = rng.integers(4, size=30)
    ids = np.array([f"q{i}" for i in range(30)])
    first = opinion(rng, ids, gold_N, skill=1.0)
    tied_NK = np.round(first.probs_NK, 1) + 0.1  # many ties for the most probable candidate
    first = Predictions(ids, tied_NK / tied_NK.sum(1, keepdims=True), first.mask_NK, first.abstained_N, "tied")
    order = rng.permutation(4)
    second = Predictions(ids, first.probs_NK[:, order], first.mask_NK, first.abstained_N, "tied")
    place = np.argsort(order)
    left = judge(first, dict(zip(ids.tolist(), gold_N.tolist(), strict=True)))
    right = judge(second, dict(zip(ids.tolist(), place[gold_N].tolist(), strict=True)))
    assert left.correct_N == pytest.approx(right.correct_N)
    for name in ("accuracy", "brier"):
        values = [find(measure("s", {0: {"student": one}}), "s", "student", name).value for one in (left, right)]
        assert values[0] == pytest.approx(values[1])


def test_the_order_of_rows_changes_nothing():
    run = a_run(seeds=(0,))
    order = np.random.default_rng(0).permutation(120)
    one = run[0]["student"]
    shuffled = Predictions(
        *(getattr(one.opinion, f)[order] for f in ("ids", "probs_NK", "mask_NK", "abstained_N")), by="x"
    )
    gold = dict(zip(one.ids.tolist(), one.gold_N.tolist(), strict=True))
    assert measure("s", {0: {**run[0], "student": judge(shuffled, gold)}}) == measure("s", run)


def test_models_judged_on_other_questions_are_refused():
    run = a_run(seeds=(0, 1))
    with pytest.raises(ValueError, match="not judged on the same questions"):
        measure("s", {0: {"floor": run[0]["floor"], "student": run[1]["student"]}})


def test_an_empty_suite_raises():
    with pytest.raises(ValueError, match="empty set"):
        measure("s", {})


def test_a_question_without_gold_is_refused_and_a_right_answer_that_is_no_candidate_is_wrong():
    rng = np.random.default_rng(0)
    ids = np.array(["a", "b"])
    one = opinion(rng, ids, np.array([0, 1]), skill=9)
    assert judge(one, {"a": 0, "b": -1}).correct_N.tolist() == [1, 0]
    with pytest.raises(ValueError, match="1 questions have no gold answer"):
        judge(one, {"a": 0})


def test_pgr_is_undefined_without_a_ceiling_and_says_why():
    found = measure("s", a_run(floor=0.5, committee=1.0, student=1.5))
    assert find(found, "s", "student", "pgr").value is None
    assert find(found, "s", "student", "pgr").reason == "no ceiling in this run"


def test_a_student_that_copies_its_committee_imitates_it_fully():
    run = a_run(seeds=(0, 1))
    for models in run.values():
        models["student"] = models["committee"]
    found = measure("s", run)
    assert find(found, "s", "student", "disagreement").value == 0
    assert find(found, "s", "student", "imitation").value == 1
    assert find(found, "s", "student", "accuracy_minus_committee").value == 0
    assert find(found, "s", "student", "smallest_difference_committee").reason == "the two never differ"


def test_independent_errors_imitate_as_often_as_expected():
    run = a_run(seeds=range(6), n=400, committee=0.8, student=0.8)
    found = measure("s", run)
    expected = find(found, "s", "student", "imitation_if_independent").value
    assert find(found, "s", "student", "imitation").value == pytest.approx(expected, abs=0.04)


def test_a_calibrated_model_has_a_small_calibration_error_and_a_boastful_one_a_large():
    rng = np.random.default_rng(1)
    n, ids = 6000, np.arange(6000).astype(str)
    probs_NK = softmax(rng.normal(size=(n, 4)), np.ones((n, 4), bool))
    gold_N = (rng.random((n, 1)) > probs_NK.cumsum(1)).sum(1).clip(max=3)
    gold = dict(zip(ids.tolist(), gold_N.tolist(), strict=True))
    sharp_NK = softmax(np.log(probs_NK) * 5, np.ones((n, 4), bool))
    calm, loud = (
        judge(Predictions(ids, p, np.ones((n, 4), bool), np.zeros(n, bool), "m"), gold) for p in (probs_NK, sharp_NK)
    )
    assert calibration_error(calm) < 0.03
    assert calibration_error(loud) > 0.2


def test_the_curve_by_difficulty_adds_up_to_the_accuracy():
    run = a_run(seeds=(0,), n=100)
    ids = run[0]["student"].ids.tolist()
    labels, bins = difficulty_bins({i: float(at) for at, i in enumerate(ids)})
    assert len(labels) == 5
    found = measure("s", run, bins=bins)
    parts = [find(found, "s", "student", f"accuracy@{label}") for label in labels]
    assert [part.n for part in parts] == [20] * 5
    total = sum(part.value * part.n for part in parts) / 100
    assert total == pytest.approx(find(found, "s", "student", "accuracy").value)


def test_few_levels_are_bins_of_their_own_in_their_order():
    assert difficulty_bins({"a": 10, "b": 2, "c": 2})[0] == ("2", "10")


def test_an_outcome_that_could_not_be_judged_counts_as_wrong_and_is_reported():
    outcomes = [Outcome(f"t{i}", "code", "student", "", verdict) for i, verdict in enumerate([True, False, None, True])]
    found = measure("code", {0: {"student": judge_outcomes(outcomes)}})
    assert find(found, "code", "student", "accuracy").value == 0.5
    assert find(found, "code", "student", "unjudged").value == 0.25
    assert find(found, "code", "student", "brier") is None
    assert find(found, "code", "student", "abstained") is None


def test_texts_in_which_no_answer_was_found_are_counted_and_told_and_are_wrong():
    statuses = ["judged", NO_ANSWER, "judged", NO_ANSWER, "judged"]
    outcomes = [Outcome(f"q{i}", "gsm8k", "student", "", i == 0, status) for i, status in enumerate(statuses)]
    found = measure("gsm8k", {0: {"student": judge_outcomes(outcomes)}})
    assert find(found, "gsm8k", "student", "abstained").value == 0.4
    assert find(found, "gsm8k", "student", "accuracy").value == 0.2
    assert find(found, "gsm8k", "student", "unjudged") is None
    assert "No answer was given by the student in 40.0% of the questions." in remarks(found, "gsm8k")


def test_the_first_of_several_outcomes_is_the_answer():
    outcomes = [Outcome(key, "s", "m", "", ok) for key, ok in (("a", False), ("b", True), ("a", True), ("b", False))]
    judged = judge_outcomes(outcomes)
    assert judged.ids.tolist() == ["a", "b"]
    assert judged.correct_N.tolist() == [0, 1]


def test_pass_at_k_over_tasks_has_an_interval_and_a_reason_where_samples_are_too_few():
    rows = [(f"t{i}", 4, i % 5) for i in range(40)]
    one, ten = measure_samples("code", "student", {0: rows}, ks=(1, 10))
    assert one.value == pytest.approx(np.mean([(i % 5) / 4 for i in range(40)]))
    assert one.low < one.value < one.high
    assert ten.value is None
    assert "at least 10 samples" in ten.reason


def test_metrics_json_is_the_same_bytes_whatever_the_order(tmp_path):
    found = measure("hard", a_run())
    write_metrics(tmp_path / "a.json", "run", "verdict", found)
    write_metrics(tmp_path / "b.json", "run", "verdict", measure("hard", a_run())[::-1])
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    read = json.loads((tmp_path / "a.json").read_text())
    assert list(read) == ["run", "verdict", "metrics"]
    assert set(read["metrics"][0]) == {"suite", "model", "name", "value", "low", "high", "n", "seeds", "reason"}
    assert read["metrics"][0]["model"] == "floor"
