"""What people and machines are told."""

import json
import threading
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2s import log


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


def test_progress_without_a_terminal_is_a_plain_line_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(log, "PLAIN_EVERY_S", 0.0)
    with log.progress(400, "training steps") as advance:
        advance(120, note="loss 0.31")
    assert capsys.readouterr().err == "training steps: 120 of 400 (30%), loss 0.31\n"
    monkeypatch.setattr(log, "PLAIN_EVERY_S", 60.0)
    with log.progress(400, "training steps") as advance:
        for _ in range(400):
            advance()
    assert capsys.readouterr().err == ""


def test_progress_of_a_worker_goes_to_its_pipe(capsys, monkeypatch):
    monkeypatch.setenv("W2S_PIPE", "1")
    monkeypatch.setattr(log, "PIPE_EVERY_S", 0.0)
    with log.progress(10, "steps") as advance:
        advance(4, note="n")
    assert capsys.readouterr().out == 'w2s: {"progress": 4, "of": 10, "note": "n"}\n'


def test_two_bars_share_one_display(monkeypatch, capsys):
    monkeypatch.setattr(log.sys.stderr, "isatty", lambda: True, raising=False)
    with log.progress(10, "one") as one, log.progress(10, "two [x]") as two:
        one(3)
        two(4, note="[loss]")
        assert sorted(task.completed for task in log._bars.tasks) == [3, 4]
        log.say("a line [between]")
    assert log._bars is None
    assert "a line [between]" in capsys.readouterr().err
