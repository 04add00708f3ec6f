"""A finished run, opened, and its numbers."""

import json
from pathlib import Path

import numpy as np
import pytest

from evaluation.runs import answers_to, code_metrics, gold_of, measure_run, open_run
from w2s.records import Outcome, write_rows


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
        gold = gold_of(run, suite, 0)
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
    written = json.loads((folder / "metrics.json").read_text())["metrics"]
    assert len(written) == len(measure_run(run)[1])


def test_pass_at_k_counts_programs_by_task(tmp_path):
    class Artifact:
        path, tags = tmp_path, {"model": "student", "seed": 0}

    right = {"a": (True,) * 10, "b": (True,) * 5 + (False,) * 5, "c": (False,) * 9 + (None,)}
    write_rows(
        tmp_path / "outcomes.jsonl",
        [Outcome(key, "humaneval", "student", "def", ok) for key, both in right.items() for ok in both],
    )
    found = {one.name: one for one in code_metrics("humaneval", [Artifact])}
    assert found["pass@1"].value == pytest.approx((1 + 0.5 + 0) / 3)
    assert found["pass@10"].value == pytest.approx((1 + 1 + 0) / 3)
    assert found["pass@1"].n == 3
