"""What people and machines are told."""

import json
import threading
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2s.store import log


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("W2S_PIPE", raising=False)
    yield
    log.to_file(None)


def test_a_line_goes_to_people_and_to_the_file_as_json(tmp_path, capsys):
    log.to_file(tmp_path / "log.jsonl")
    log.say("round 3: error 0.31 – «ü»", {"error": 0.31, "path": tmp_path})
    log.say("two")
    assert capsys.readouterr().err == "round 3: error 0.31 – «ü»\ntwo\n"
    first, second = map(json.loads, (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines())
    assert (first["text"], first["error"], first["path"]) == ("round 3: error 0.31 – «ü»", 0.31, str(tmp_path))
    assert second["time"] >= first["time"]


@given(st.text(st.characters()) | st.text(st.sampled_from("\x1b[31m\r\n\t\x07\x9b\u202e\ud800é–")))
def test_what_is_printed_can_be_written_and_steers_no_terminal(text):
    shown = log.printable(text)
    shown.encode()
    assert not {unicodedata.category(letter) for letter in shown if letter not in "\n\t"} & {"Cc", "Cs"}
    assert not any("EMBEDDING" in name or "OVERRIDE" in name for name in (unicodedata.name(c, "") for c in shown))
    assert log.printable(shown) == shown
    kept = [letter for letter in text if letter.isprintable() or letter == "\n"]
    assert [letter for letter in shown if letter != log.UNSHOWN and (letter.isprintable() or letter == "\n")] == [
        letter for letter in kept if letter != log.UNSHOWN
    ]


def test_other_ranks_say_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    log.to_file(tmp_path / "log.jsonl")
    log.say("hello")
    with log.progress(3, "steps") as advance:
        advance(3)
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "log.jsonl").exists()


def test_lines_of_many_threads_stay_whole(tmp_path, capsys):
    log.to_file(tmp_path / "log.jsonl")
    threads = [threading.Thread(target=lambda: [log.say("x" * 300) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert len(lines) == 200
    assert {json.loads(line)["text"] for line in lines} == {"x" * 300}


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(log.time, "monotonic", lambda: Clock.now)
    return Clock


def test_progress_without_a_terminal_is_a_plain_line_now_and_then_with_rate_and_time_left(capsys, clock):
    with log.progress(400, "training steps") as advance:
        clock.now += 30  # of loading, which is no measure of the steps
        advance(20, note="loss 0.50")
        clock.now += 10
        advance(100, note="loss 0.31")
        clock.now += 1
        advance(50)
        clock.now += 29
        advance(150)  # the last note is still the newest
        advance(80)
    assert capsys.readouterr().err.splitlines() == [
        "training steps: 20 of 400 (5%), loss 0.50",
        "training steps: 120 of 400 (30%), 10 per second, 28.0 s left, loss 0.31",
        "training steps: 320 of 400 (80%), 7.5 per second, 10.7 s left, loss 0.31",
    ]


def test_the_pace_is_that_of_the_last_minute_and_what_was_done_before_is_no_part_of_it(capsys, clock):
    with log.progress(10_000, "training steps", done=9000) as advance:
        for steps in (10, *[10] * 30, *[1] * 70):  # ten a second, then one
            advance(steps)
            clock.now += 1
    with log.show_progress("slow") as show:
        for done in (50, 51, 52, 53):
            show(done, 100)
            clock.now += 600
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "training steps: 9,110 of 10,000 (91%), 10 per second, 1 min 29 s left"
    assert "1.0 per second" in said[-4]
    assert said[-3:] == [
        "slow: 51 of 100 (51%)",
        "slow: 52 of 100 (52%), 6.0 per hour, 8 h 0 min left",
        "slow: 53 of 100 (53%), 6.0 per hour, 7 h 50 min left",
    ]


def test_the_second_part_of_a_job_has_a_pace_of_its_own(capsys, clock):
    with log.show_progress("scores") as show:
        for _ in range(2):  # two reward models, one after the other
            for done in (0, 100, 200, 300, 400):
                show(done, 400)
                clock.now += 20
    said = capsys.readouterr().err.splitlines()
    assert said[-4:] == [
        "scores: 100 of 400 (25%)",
        "scores: 200 of 400 (50%), 5.0 per second, 40.0 s left",
        "scores: 300 of 400 (75%), 5.0 per second, 20.0 s left",
        "scores: 400 of 400 (100%), 5.0 per second",
    ]


def test_a_line_that_says_nothing_new_is_not_repeated(capsys, clock):
    with log.progress(5, "slow") as advance:
        for _ in range(4):
            clock.now += 11
            advance(0)
    assert capsys.readouterr().err.splitlines() == ["slow: 0 of 5 (0%)"]


def test_nothing_to_do_and_nothing_done_divide_by_no_zero(capsys, clock):
    with log.progress(0, "nothing") as advance:
        clock.now += 11
        advance(0)
    with log.progress(5, "slow") as advance:
        clock.now += 11
        advance(0)
    assert capsys.readouterr().err.splitlines() == ["nothing: 0 of 0 (0%)", "slow: 0 of 5 (0%)"]


@pytest.mark.parametrize(
    ("per_s", "words"),
    [(12345.6, "12,346 per second"), (12.3, "12 per second"), (9.96, "10 per second"), (1.25, "1.2 per second"),
     (0.999, "60 per minute"), (0.05, "3.0 per minute"), (0.001, "3.6 per hour"), (0.0001, "0.4 per hour")],
)  # fmt: skip
def test_rates_read_well(per_s, words):
    assert log.rate(per_s) == words


def test_on_a_terminal_progress_is_a_live_line_and_in_the_log_file_a_plain_one(tmp_path, capsys, clock, monkeypatch):
    monkeypatch.setattr(log.sys.stderr, "isatty", lambda: True, raising=False)
    log.to_file(tmp_path / "log.jsonl")
    with log.progress(400, "training steps") as advance:
        advance(20)
        clock.now += 20
        advance(80)
        (task,) = log._bars.tasks
        assert (task.completed, task.total) == (100, 400)
        assert task.fields["text"] == "100 of 400 (25%), 4.0 per second, 1 min 15 s left"
    (line,) = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert line["text"] == "training steps: 100 of 400 (25%), 4.0 per second, 1 min 15 s left"
    assert "100 of 400 (25%), 4.0 per second, 1 min 15 s left\n" not in capsys.readouterr().err


def test_progress_of_a_worker_goes_to_its_pipe_from_where_it_began(capsys, clock, monkeypatch):
    monkeypatch.setenv("W2S_PIPE", "1")
    with log.progress(10, "steps", done=2) as advance:
        advance(1)
        clock.now += 1
        advance(3, note="n")
    assert capsys.readouterr().out.splitlines() == [
        'w2s: {"progress": 2, "of": 10, "note": ""}',
        'w2s: {"progress": 6, "of": 10, "note": "n"}',
    ]


def test_two_bars_share_one_display(monkeypatch, capsys):
    monkeypatch.setattr(log.sys.stderr, "isatty", lambda: True, raising=False)
    with log.progress(10, "one") as one, log.progress(10, "two [x]") as two:
        one(3)
        two(4, note="[loss]")
        assert sorted(task.completed for task in log._bars.tasks) == [3, 4]
        log.say("a line [between]")
    assert log._bars is None
    assert "a line [between]" in capsys.readouterr().err
