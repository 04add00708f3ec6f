"""A finished run, opened, and its numbers."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.written_runs import RIGHT
from w2s.evaluation.run.runs import answers_to, measure_run, open_run, outcomes_of, pass_metrics
from w2s.evaluation.run.taught import measure_labels
from w2s.evaluation.run.verdict import find
from w2s.stages.rounds import row_weights
from w2s.store.records import Outcome, write_rows


@pytest.fixture
def folder(in_tiny_run) -> Path:
    return Path("runs/tiny")


def test_a_run_is_opened_from_its_list_of_stages(folder):
    run = open_run(folder)
    assert run.seeds == [0]
    assert all(artifact.manifest["key"] in artifact.path.name for artifact in run.artifacts)
    assert {a.tags["model"] for a in run.find("round")} == {"committee", "bagged"}
    assert len(run.find("round", model="committee", seed=0)) == 2
    assert run.find("round", seed=1) == []


def test_everybody_answers_the_same_questions_and_is_judged_by_their_gold(folder):
    run = open_run(folder)
    for suite, count in (("hard_test", 80), ("file", 12)):
        (answers,) = answers_to(run, suite).values()
        gold = run.gold(suite, 0)
        assert len(gold) == count
        for model, judged in answers.items():
            assert sorted(judged.ids.tolist()) == sorted(gold), model
            best = judged.opinion.probs_NK.argmax(1)
            right = [best[at] == gold[key] for at, key in enumerate(judged.ids.tolist())]
            ties = judged.correct_N % 1 != 0
            assert np.array_equal(judged.correct_N[~ties], np.array(right, float)[~ties]), model


def test_metrics_are_the_same_however_often_they_are_measured(folder):
    run = open_run(folder)
    assert measure_run(run)[1] == measure_run(run)[1]
    assert measure_labels(run) == measure_labels(run)
    written = json.loads((folder / "metrics.json").read_text())["metrics"]
    assert len(written) == len(measure_run(run)[1]) + len(measure_labels(run))


def test_pass_at_k_counts_texts_by_task_and_leaves_out_what_was_trained_on(written):
    run = open_run(written.folder)
    assert run.leaked == {("own", 0): {"suite-leak"}}
    found = {(one.model, one.name): one for one in pass_metrics("own", run.outcomes("own"), run.leaked)}
    assert found["committee", "pass@1"].value == pytest.approx(1 / 3)
    assert found["student", "pass@1"].value == pytest.approx(2 / 3)
    assert found["student", "pass@1"].n == 4
    assert found["student", "pass@10"].value is None
    everything = {("own", 0): {f"suite-{n}" for n in (0, 1, 2, 3, "leak")}}
    assert pass_metrics("own", run.outcomes("own"), everything) == []


def test_everybody_writes_answers_to_the_same_questions_and_the_first_counts(written):
    run = open_run(written.folder)
    assert run.written
    (answers,) = answers_to(run, "hard_test").values()
    assert {model: judged.correct_N.sum() for model, judged in answers.items()} == RIGHT
    assert all(judged.opinion is None for judged in answers.values())
    (of_student,) = run.outcomes("hard_test", model="student")
    again = [Outcome("hard_test-0-0", "hard_test", "student", "x", False)]
    write_rows(of_student.path / "outcomes.jsonl", [*outcomes_of(of_student), *again])
    written.seal()
    assert answers_to(run, "hard_test")[0]["student"].correct_N.sum() == RIGHT["student"]


def test_written_runs_have_every_metric_that_needs_no_probabilities(written):
    metrics = measure_run(open_run(written.folder))[1]
    assert find(metrics, "hard_test", "student", "accuracy").value == 6 / 8
    assert find(metrics, "hard_test", "floor", "unjudged").value == 1 / 8
    assert find(metrics, "hard_test", "committee", "accuracy_minus_answer_level").value == 1 / 8
    assert find(metrics, "hard_test", "student", "pgr").value == pytest.approx((6 - 2) / (8 - 2))
    assert [find(metrics, "hard_test", "committee", f"accuracy@{level}").value for level in (0, 1)] == [1.0, 0.25]
    assert {one.name for one in metrics}.isdisjoint({"brier", "ece", "abstained", "imitation"})


def test_votes_over_candidates_are_no_answers(voted):
    run = open_run(voted.folder)
    assert run.find("opinion", model="committee")
    assert answers_to(run, "hard_test")[0]["committee"].correct_N.sum() == RIGHT["committee"]


def test_a_row_weighs_what_its_tokens_weigh_whatever_the_tokenizer(written):
    run = open_run(written.folder)
    for index, heavy in ((0, 4), (1, 5)):
        (artifact,) = run.find("round", index=index)
        weights = row_weights(artifact.path)
        assert weights.weight_N.tolist() == pytest.approx(
            [heavy / (heavy + 5) if at == 1 else 1 / (heavy + 5) for at in range(6)]
        )


def test_rounds_of_choices_weigh_rows(folder):
    run = open_run(folder)
    (artifact,) = run.find("round", model="committee", index=0)
    assert row_weights(artifact.path).weight_N.sum() == pytest.approx(1)
    assert not run.written
