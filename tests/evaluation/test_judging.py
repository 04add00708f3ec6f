"""`w2s judge`: samples written elsewhere -> a verdict for each, and pass@k."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests import spine
from w2s.cli import main
from w2s.evaluation import judging
from w2s.grading import judge as grading
from w2s.sandbox.tiers import Unsafe, tier

RIGHT = ["    return a + b\n", "    return items[-1]\n", "    return n % 2 == 0\n"]
HEADS = ["def add(a, b):\n", "def last(items):\n", "def even(n):\n"]
GSM = [("How many?", "2 + 3 = <<2+3=5>>5\n#### 5"), ("How much?", "#### 1,200"), ("How far?", "#### 7")]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    try:
        tier()
    except Unsafe as error:
        pytest.skip(str(error))
    root = spine.write_data(tmp_path / "data")
    (root / "gsm8k").mkdir()
    (root / "gsm8k" / "test.jsonl").write_text(lines([{"question": q, "answer": a} for q, a in GSM]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def read(path) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def judge(samples, *words, suite="humaneval"):
    main(["judge", str(samples), "--suite", suite, "--data-root", "data", *words])


def write(name: str, rows) -> Path:
    Path(name).write_text(lines(rows))
    return Path(name)


def three_of_each() -> list[dict]:
    """Three samples of each of our tasks: 3, 2 and 1 right."""
    rows = []
    for at, (head, body) in enumerate(zip(HEADS, RIGHT, strict=True)):
        for sample in range(3):
            wrong = sample < at
            rows.append({"task_id": f"Own/{at}", "solution": head + ("    return 1 / 0\n" if wrong else body)})
    return rows


def test_evalplus_samples_get_a_verdict_each_and_unbiased_pass_at_k(capsys):
    write("model.jsonl", three_of_each())
    judge("model.jsonl", "--k", "1,2,3,4", "--out", "found/verdicts.jsonl")
    rows = read("found/verdicts.jsonl")
    assert [row["task_id"] for row in rows] == [f"Own/{at}" for at in (0, 0, 0, 1, 1, 1, 2, 2, 2)]
    assert [row["sample"] for row in rows] == [0, 1, 2] * 3
    assert [row["correct"] for row in rows] == [True, True, True, False, True, True, False, False, True]
    assert rows[3]["status"].startswith("exception: ZeroDivisionError")
    assert {row["model"] for row in rows} == {"model"}
    assert all(row["seconds"] >= 0 for row in rows)
    said = capsys.readouterr().out
    for k, value in ((1, (3 + 2 + 1) / 9), (2, (1 + 1 + 2 / 3) / 3), (3, 1.0)):
        assert f"pass@{k}    {value:6.3f}" in said
    assert "pass@4         -   pass@4 needs at least 4 samples of each task; the least is 3" in said
    assert "statuses: 6 right, 3 exception" in said
    assert not list(Path("found").glob("*.partial"))


def test_completions_and_fenced_programs_are_judged_and_time_runs_out(capsys):
    rows = [{"task_id": "Own/0", "completion": RIGHT[0]}, {"task_id": "Own/1", "completion": "    while True: pass\n"}]
    write("c.jsonl", [*rows, {"task_id": "Own/1", "solution": f"```python\n{HEADS[1]}{RIGHT[1]}```"}])
    judge("c.jsonl", "--timeout", "0.5")
    said = capsys.readouterr().out
    assert "statuses: 2 right, 1 timeout" in said
    assert "\n1 of the 3 tasks have no sample and count nowhere" in said
    assert [row["correct"] for row in read("runs/judge/c-humaneval.jsonl")] == [True, False, True]


def recorded_rows() -> list[dict]:
    rows = [{"id": "Own/0", "model": "a", "sample": 0, "text": HEADS[0] + RIGHT[0], "correct": True}]
    rows += [
        {"id": "Own/0", "model": "b", "sample": 0, "text": HEADS[0] + RIGHT[0] + "\nThat is it!", "correct": False}
    ]
    return [*rows, {"id": "Own/1", "model": "b", "sample": 4, "text": "    return 0", "correct": False}]


@pytest.mark.parametrize("form", ["jsonl", "parquet", "folder"])
def test_recorded_outputs_are_judged_and_their_flags_compared(form, capsys):
    Path("set").mkdir()
    if form == "jsonl":
        place = write("set.jsonl", recorded_rows())
    else:
        place = Path("set" if form == "folder" else "set/outputs.parquet")
        pd.DataFrame(recorded_rows()).assign(answer=None, score=np.nan).to_parquet("set/outputs.parquet")
    judge(place, "--out", "out.jsonl")
    rows = read("out.jsonl")
    assert [(row["model"], row["sample"], row["correct"]) for row in rows] == [
        *(("a", 0, True), ("b", 0, True), ("b", 4, False))
    ]
    assert [row["recorded"] for row in rows] == [True, False, False]
    said = capsys.readouterr().out
    assert "recorded flags: 2 of 3 agree (66.67%)" in said
    assert "Own/0 b sample 0: recorded wrong, here right (as a whole it is no Python" in said


def test_of_one_models_files_one_is_judged_and_a_judges_results_are_no_samples(capsys):
    Path("folder").mkdir()
    rows = [{"task_id": "Own/0", "solution": f"```\n{HEADS[0]}{RIGHT[0]}```"}]
    write("folder/m.jsonl", rows)
    write("folder/m-sanitized.jsonl", [{"task_id": "Own/0", "solution": HEADS[0] + RIGHT[0]}])
    write("folder/m.jsonl_results.jsonl", [{**rows[0], "passed": False}])
    judge("folder", "--out", "f.out")
    assert [(row["model"], row["correct"]) for row in read("f.out")] == [("m", True)]
    told = capsys.readouterr().err
    assert "left out: m.jsonl, m.jsonl_results.jsonl (" in told


def test_programs_that_need_what_is_not_there_are_counted_on_their_own(monkeypatch, capsys):
    monkeypatch.setattr(grading, "LIBRARIES", ("thislibrary",))
    rows = [
        {"task_id": "Own/0", "solution": f"import {name}\n{HEADS[0]}{RIGHT[0]}"} for name in ("numpy", "thislibrary")
    ]
    judge(write("n.jsonl", rows), "--timeout", "20", "--out", "n.out")
    assert [row["correct"] for row in read("n.out")] == [True, None]
    said = capsys.readouterr().out
    assert "statuses: 1 right, 1 could not be judged (needs thislibrary, which is not in the sandbox)" in said


def test_short_answers_are_graded_by_what_they_say(capsys):
    rows = [{"task_id": "gsm8k/0", "text": "2 + 3 is 5. The answer is 5."}, {"id": "gsm8k-test/1", "answer": 1200}]
    rows += [{"id": "gsm8k/1", "answer": "$1,200.00"}, {"id": "gsm8k/1", "answer": None, "text": "#### 12"}]
    judge(write("answers.jsonl", [*rows, {"id": "gsm8k/2", "answer": " "}]), suite="gsm8k")
    found = read("runs/judge/answers-gsm8k.jsonl")
    assert [row["correct"] for row in found] == [True, True, True, False, False]
    assert [row["sample"] for row in found] == [0, 0, 1, 2, 0]
    assert "statuses: 3 right, 1 wrong, 1 no answer found" in capsys.readouterr().out


def test_a_text_without_an_answer_has_a_status_of_its_own_and_a_long_number_is_a_text(capsys):
    texts = [
        "The answer is **5**.",
        "### Answer\n\n5",
        "#### 5<|eot_id|>",
        "#### 6",
        "We compute.",
        "7" * 5000,
        "1e999°",
    ]
    judge(write("t.jsonl", [{"id": "gsm8k/0", "text": text} for text in texts]), suite="gsm8k")
    assert "statuses: 3 right, 3 wrong, 1 no answer found" in capsys.readouterr().out


def counted(monkeypatch) -> list[str]:
    """The texts that are judged from now on."""
    seen, plain = [], judging.judge

    def judged(rows, **named):
        seen.extend(text for _, _, text in rows)
        return plain(rows, **named)

    monkeypatch.setattr(judging, "judge", judged)
    return seen


def test_what_has_a_verdict_is_not_run_again_and_other_texts_limits_and_tests_are(monkeypatch):
    seen, rows = counted(monkeypatch), three_of_each()
    judge(write("m.jsonl", rows))
    assert len(seen) == len({row["solution"] for row in rows})  # a text is judged once, however often it comes
    once, out = len(seen), Path("runs/judge/m-humaneval.jsonl")
    before = out.read_text()
    judge("m.jsonl")
    assert len(seen) == once
    assert out.read_text() == before
    changed = [*rows[:-1], {**rows[-1], "solution": HEADS[2] + "    return not n % 2\n"}]
    judge(write("m.jsonl", changed))
    assert seen[once:] == [changed[-1]["solution"]]
    judge("m.jsonl", "--timeout", "7")
    assert len(seen) == once + 1 + once
    suite = Path("data/humaneval/HumanEval.jsonl")
    suite.write_text(suite.read_text().replace("(2) == True", "(4) == True"))
    judge("m.jsonl", "--timeout", "7")
    assert len(seen) == 2 * once + 1 + len({row["solution"] for row in changed[6:]})


def test_a_killed_run_goes_on_where_it_stopped(monkeypatch, capsys):
    rows = [{"task_id": "Own/0", "solution": f"{HEADS[0]}    return a + b + {n} - {n}\n"} for n in range(6)]
    rows += [{"task_id": "Own/0", "solution": f"{HEADS[0]}    while True: {n}\n"} for n in range(8)]
    words = ["judge", "k.jsonl", "--suite", "humaneval", "--data-root", "data", "--out", "k.out", "--timeout", "1.5"]
    write("k.jsonl", rows)
    program = f"import sys; sys.path[:0] = {sys.path!r}; from w2s.cli import main; main({words!r})"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    partial = Path("k.out.partial")
    while process.poll() is None and not (partial.exists() and partial.read_bytes().count(b"\n") >= 6):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not Path("k.out").exists()
    known = partial.read_bytes().count(b"\n")
    with open(partial, "a") as file:
        file.write('{"program": "cut off in the mid')
    seen = counted(monkeypatch)
    main(words)
    assert len(seen) == len(rows) - known
    assert [row["correct"] for row in read("k.out")] == [True] * 6 + [False] * 8
    assert not partial.exists()
    assert "statuses: 8 timeout, 6 right" in capsys.readouterr().out


def test_what_could_not_be_judged_is_counted_told_and_tried_again(monkeypatch, capsys):
    write("u.jsonl", three_of_each()[:3])
    with monkeypatch.context() as patch:

        def fails(rows, *, keep, **named):
            for at in range(len(rows)):
                keep(at, (None, "the sandbox failed: no memory", 0.0))

        patch.setattr(judging, "judge", fails)
        judge("u.jsonl", "--out", "u.out")
    assert "statuses: 3 could not be judged (the sandbox failed)" in capsys.readouterr().out
    assert [(row["correct"], row["status"]) for row in read("u.out")] == [(None, "the sandbox failed: no memory")] * 3
    judge("u.jsonl", "--out", "u.out")
    assert [row["correct"] for row in read("u.out")] == [True] * 3


GOOD = {"task_id": "Own/0", "solution": "x"}


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        (lines([GOOD, {"task_id": "Own/0"}]), [], r"m.jsonl:2: solution: None given; allowed: a text (solution or"),
        (lines([{**GOOD, "solution": ["x"]}]), [], "m.jsonl:1: solution: ['x'] given; allowed: a text"),
        (lines([{"solution": "x"}]), [], "m.jsonl:1: task_id: nothing given; allowed: the name of a task of humaneval"),
        (
            lines([GOOD, *({"task_id": f"No/{n % 4}", "solution": "x"} for n in range(6))]),
            [],
            "m.jsonl:2: task_id: 6 of 7 rows name 4 tasks that humaneval does not have (No/0, No/1, No/2, ...)",
        ),
        (lines([GOOD]) + "{not json\n", [], "m.jsonl:2: not JSON"),
        (lines([GOOD]) + "[1]\n", [], "m.jsonl:2: a row must be a mapping of columns, list given"),
        ("", [], "m.jsonl: it has no rows"),
        (lines([{**GOOD, "sample": "one"}]), [], "m.jsonl:1: sample: 'one' given; allowed: a whole number from 0"),
        (lines([{**GOOD, "sample": 1}] * 2), [], "m.jsonl:2: sample 1 of Own/0 by m is in m.jsonl:1 already"),
        (
            lines([GOOD]),
            ["--suite", "humanevil"],
            "suite: 'humanevil' given (did you mean 'humaneval'?); it can be: huma",
        ),
        (
            lines([GOOD]),
            ["--suite", "sciq"],
            "suite: 'sciq' given; it can be: humaneval, humanevalplus, mbpp, mbppplus",
        ),
        (lines([GOOD]), ["--timeout", "0"], "--timeout: 0 given; allowed: seconds above 0"),
        (lines([GOOD]), ["--timeout", "nan"], "--timeout: nan given; allowed: seconds above 0"),
        (lines([GOOD]), ["--data-root", "nowhere"], "nowhere/humaneval: no file HumanEval"),
        (lines([GOOD]), ["--out", "data/own.jsonl/x"], "data/own.jsonl/x: cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(content, words, message, capsys):
    Path("m.jsonl").write_text(content)
    with pytest.raises(SystemExit) as caught:
        judge("m.jsonl", *words)
    told = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2
    assert len(told) == 1
    assert told[0].startswith(f"w2s: {message}")


def test_every_row_that_cannot_be_read_is_told(capsys):
    Path("m.jsonl").write_text(lines([{"solution": "x"}, {"task_id": "Own/0"}, {**GOOD, "task_id": "No/1"}]) + "{\n")
    with pytest.raises(SystemExit):
        judge("m.jsonl")
    told = capsys.readouterr().err.splitlines()
    assert [line.removeprefix("w2s: m.jsonl:")[:4] for line in told] == ["1: t", "2: s", "4: n", "3: t"]


@pytest.mark.parametrize("words", [["--k", "0"], ["--k", "1,x"], ["--k", ""]])
def test_a_k_that_is_no_count_is_refused(words, capsys):
    with pytest.raises(SystemExit) as caught:
        judge(write("m.jsonl", [GOOD]), *words)
    assert caught.value.code == 2
    assert "allowed: whole numbers above 0" in capsys.readouterr().err


def test_samples_that_are_not_there_and_a_second_writer_are_told(capsys):
    for words in (["none.jsonl"], ["empty"]):
        Path("empty").mkdir(exist_ok=True)
        with pytest.raises(SystemExit):
            judge(*words)
    write("m.jsonl", [GOOD])
    with open("m.out.partial", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(SystemExit):
            judge("m.jsonl", "--out", "m.out")
    told = capsys.readouterr().err.splitlines()
    assert [line.split(": ", 2)[2] for line in told] == [
        "no such file",
        "no samples there (*.jsonl, *.jsonl.gz or *.parquet)",
        "another `w2s judge` is writing it",
    ]


# --- programs that real models wrote --------------------------------------------------------------------------------


def judge_recorded(shared: Path, count: int, capsys) -> list[dict]:
    """So many of the recorded programs, drawn at random, judged; what the command prints is shown."""
    table = pd.read_parquet(shared / "recorded" / "humaneval_programs" / "outputs.parquet")
    table.sample(count, random_state=0).to_parquet("programs.parquet")
    main(["judge", "programs.parquet", "--suite", "humaneval", "--data-root", str(shared / "data"), "--out", "p.jsonl"])
    said = capsys.readouterr().out
    with capsys.disabled():
        print("\n" + said[said.index("statuses:") :])
    return read("p.jsonl")


def test_recorded_programs_get_their_recorded_flags(shared, capsys):
    rows = judge_recorded(shared, 300, capsys)
    assert sum(row["correct"] is row["recorded"] for row in rows) >= 0.98 * len(rows) == 294


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_recorded_programs_get_their_recorded_flags(shared, capsys):
    rows = judge_recorded(shared, 10_000, capsys)
    assert len(rows) == 10_000
    assert not [row for row in rows if row["correct"] is None]
    assert sum(row["correct"] is row["recorded"] for row in rows) >= 0.99 * len(rows)


def test_a_limit_judges_the_samples_of_the_first_tasks_by_id_in_a_file_of_its_own(capsys):
    samples = write("some.jsonl", [row for row in three_of_each() if row["task_id"] != "Own/0"])
    judge(samples, "--limit", "1")
    assert {row["task_id"] for row in read("runs/judge/some-humaneval-limit-1.jsonl")} == {"Own/1"}
    said = capsys.readouterr()
    assert "limited to 1 tasks, the first by id that have samples" in said.err
    assert "have no sample" not in said.out
    assert "limited to 1 tasks" in Path("runs/judge/some-humaneval-limit-1.jsonl.log").read_text()
    assert not Path("runs/judge/some-humaneval.jsonl").exists()


def test_a_file_of_something_else_is_not_written_over(capsys):
    rows = [{"task_id": f"Own/{at}", "solution": "x = 1"} for at in range(2)]
    samples, before = write("m.jsonl", rows), Path("m.jsonl").read_bytes()
    Path("notes.jsonl").write_text("notes\n")
    judge(write("other.jsonl", [{**row, "model": "other"} for row in rows]), "--out", "verdicts.jsonl")
    Path("listed.jsonl").write_text('{"program": "p", "task_id": ["Own/0"], "model": "m", "sample": 0}\n')
    Path("folder").mkdir()
    for out in ("m.jsonl", "notes.jsonl", "verdicts.jsonl", "listed.jsonl", "folder"):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            judge(samples, "--out", out)
        assert stopped.value.code == 2
        assert out in capsys.readouterr().err
    assert Path("m.jsonl").read_bytes() == before
    assert Path("notes.jsonl").read_text() == "notes\n"
    judge(samples, "--out", "verdicts.jsonl", "--replace")
    assert "other" not in Path("verdicts.jsonl").read_text()
