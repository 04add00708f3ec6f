"""A run's answers in others' files: `w2s combine` and `w2s judge` read them back and agree."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.written_runs import RIGHT, write_run
from w2s.evaluation import judging
from w2s.evaluation.run.exports import choice_sample, write_exports, write_lm_eval
from w2s.evaluation.run.runs import answers_to, measure_run, open_run
from w2s.evaluation.run.verdict import find
from w2s.grading.judge import grade
from w2s.pools.outputs import read_pool
from w2s.sandbox.tiers import Unsafe, tier
from w2s.store.records import Example, read_rows


def files(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def sandbox():
    try:
        tier()
    except Unsafe as error:
        pytest.skip(str(error))


def test_the_same_run_gives_the_same_bytes_and_what_is_old_goes(written):
    run, out = open_run(written.folder), written.folder / "exports"
    write_exports(run)
    first = files(out)
    (out / "old.jsonl").write_text("old")
    write_exports(run)
    assert files(out) == first
    assert str(written.folder).encode() not in b"".join(first.values())


def test_combine_reads_the_short_answers_back_and_agrees(tmp_path):
    run = open_run(write_run(tmp_path, "answer", seeds=(0, 1)).folder)
    write_exports(run)
    for seed in run.seeds:
        opinions, truth = read_pool(run.folder / "exports" / "lm-eval" / f"seed-{seed}")
        assert set(opinions.members) == set(RIGHT)
        hard_N = opinions.group_N == "hard_test"
        found = dict(zip(opinions.members.tolist(), truth.right_MN[:, hard_N], strict=True))
        for model, judged in answers_to(run, "hard_test")[seed].items():
            assert found[model].tolist() == judged.correct_N.tolist(), model
        for (text, *_), gold in zip(opinions.texts_N[hard_N], range(8), strict=True):
            assert text in (str(2 * gold), str(2 * gold + 1)) or "script" in text


def test_results_are_the_accuracies_of_metrics_json(tmp_path):
    run = open_run(write_run(tmp_path, "answer").folder)
    write_exports(run)
    metrics = measure_run(run)[1]
    for model in RIGHT:
        path = run.folder / "exports" / "lm-eval" / "seed-0" / model / "results_seed-0.json"
        found = json.loads(path.read_text())["results"]["hard_test"]
        assert found["exact_match,none"] == pytest.approx(find(metrics, "hard_test", model, "accuracy").value)
        right = RIGHT[model] / 8
        assert found["exact_match_stderr,none"] == pytest.approx((right * (1 - right) / 7) ** 0.5)
    own = read_rows_of(run.folder / "exports/lm-eval/seed-0/student/samples_own_seed-0.jsonl")
    assert [row["doc_id"] for row in own] == [0, 1, 2, 3]  # the leaked question is no row
    assert [len(row["resps"][0]) for row in own] == [3] * 4


def read_rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_programs_are_whole_and_are_judged_again_alike(tmp_path, sandbox, monkeypatch):
    written = write_run(tmp_path, "code")
    run = open_run(written.folder)
    write_exports(run)
    hard = read_rows(run.find("questions")[0].path / "hard_test.jsonl", Example)
    by_task = {row.meta["task_id"]: row for row in hard}
    monkeypatch.setattr(judging, "SUITES", ("own",))
    monkeypatch.setitem(judging.SOURCES, "own", lambda root: (hard, [written.gold[row.id] for row in hard]))
    monkeypatch.chdir(tmp_path)
    folder = run.folder / "exports" / "evalplus" / "seed-0" / "hard_test_own"
    said = judging.judge_file(folder, "own", out=Path("verdicts.jsonl"), ks=[1])
    verdicts = read_rows_of(Path("verdicts.jsonl"))
    assert {row["model"] for row in verdicts} == set(RIGHT)
    for model, judged in answers_to(run, "hard_test")[0].items():
        again = {by_task[row["task_id"]].id: row["correct"] for row in verdicts if row["model"] == model}
        assert [again[key] for key in judged.ids.tolist()] == judged.correct_N.astype(bool).tolist(), model
    assert "pass@1" in said
    one = read_rows_of(folder / "student.jsonl")[0]
    assert list(one) == ["task_id", "solution"]
    row = by_task[one["task_id"]]
    assert one["solution"].startswith("def add0(x):")
    assert grade(row, written.gold[row.id], one["solution"]) == (True, "judged")


def test_every_sample_of_a_code_suite_is_a_line(tmp_path):
    run = open_run(write_run(tmp_path, "code").folder)
    write_exports(run)
    rows = read_rows_of(run.folder / "exports" / "evalplus" / "seed-0" / "own" / "student.jsonl")
    assert [row["task_id"] for row in rows] == [f"Own/suite-{n}" for n in range(4) for _ in range(3)]


def test_choices_come_back_with_their_probabilities(tmp_path):
    rng, rows, probs = np.random.default_rng(0), [], []
    for at in range(20):
        probs.append(rng.dirichlet(np.ones(3)))
        row = Example(f"q{at}", "own", "choice", f"Which is {at}?", (f"a{at}", f"b {at}", "c"))
        rows.append(choice_sample(at, row, at % 3, probs[-1]))
    write_lm_eval(tmp_path / "student", "student", "seed-0", {"hard_test": rows})
    opinions, truth = read_pool(tmp_path)
    assert opinions.texts_N[4] == ("a4", "b 4", "c")
    np.testing.assert_allclose(opinions.probs_MNK[0], probs, rtol=1e-6)
    assert truth.gold_N.tolist() == [at % 3 for at in range(20)]
    assert truth.right_MN[0].tolist() == [float(np.argmax(one) == at % 3) for at, one in enumerate(probs)]


def test_a_choice_run_is_exported_as_it_was_judged(in_tiny_run):
    run = open_run(Path("runs/tiny"))
    opinions, truth = read_pool(run.folder / "exports" / "lm-eval" / "seed-0")
    answers = answers_to(run, "hard_test")[0]
    assert set(opinions.members) == set(answers)
    for member, right_N in zip(opinions.members.tolist(), truth.right_MN, strict=True):
        untied = answers[member].correct_N % 1 == 0
        mine = right_N[opinions.group_N == "hard_test"]
        assert mine[untied].tolist() == answers[member].correct_N[untied].tolist()
    programs = run.folder / "exports" / "evalplus" / "seed-0" / "humaneval" / "student.jsonl"
    assert len(read_rows_of(programs)) == 3 * 2
