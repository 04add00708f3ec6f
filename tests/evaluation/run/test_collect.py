"""From a run's folder to metrics.json and its report."""

import json
import shutil
from pathlib import Path

import pytest

from tests.evaluation.written_runs import POISON, rewrite_texts, write_run
from w2s.cli import main
from w2s.evaluation.run.collect import compare, finish, report_data
from w2s.evaluation.run.runs import measure_run, open_run
from w2s.evaluation.shown import SHOWN_TEXT
from w2s.store.artifacts import read_listing, write_listing


@pytest.fixture
def folder(in_tiny_run) -> Path:
    return Path("runs/tiny")


def test_finish_does_nothing_twice_unless_it_is_asked_or_something_changed(tiny_run, tmp_path, monkeypatch):
    shutil.copytree(tiny_run / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    folder = Path("runs/tiny")
    before = (folder / "report.html").stat().st_mtime_ns
    words = finish(folder)
    assert (folder / "report.html").stat().st_mtime_ns == before
    assert finish(folder, again=True) == words
    assert (folder / "report.html").stat().st_mtime_ns != before
    text, numbers = (folder / "config.yaml").read_text(), (folder / "metrics.json").read_text()
    page = (folder / "report.html").read_text()
    for name in ("metrics.json", "report.html", "report.json"):
        (folder / name).write_text('{"verdict": "old"}')
        assert finish(folder) == words
        assert (folder / "metrics.json").read_text() == numbers
    write_listing(folder, text.replace("samples: 4", "samples: 3"), read_listing(folder))
    assert finish(folder)
    assert (folder / "report.html").read_text() != page
    assert len(json.loads((folder / "metrics.json").read_text())["metrics"]) > 10


def test_the_numbers_hold_no_time_and_no_path(folder, tiny_run):
    text = (folder / "metrics.json").read_text()
    assert str(tiny_run) not in text
    assert "second" not in text


def test_the_report_has_every_part(folder):
    run = open_run(folder)
    answers, metrics = measure_run(run)
    data = report_data(run, answers, metrics)
    assert data.synthetic.startswith("The questions are synthetic")
    assert set(data.controls_off) == {"long_learner", "naive_student"}
    assert [len(one["rounds"]) for one in data.committees.values()] == [2]
    assert len(data.heaviest) == 8
    assert all(len(row.weights) == 2 for row in data.heaviest)
    assert len(data.samples) == 4
    assert set(data.calibration) == {"floor", "committee", "student", "ceiling"}
    assert run.bins[0] == data.difficulty_bins
    assert data.flow[0].count == "160" or data.flow[0].count == "220"
    assert sum(cost.seconds for cost in data.costs) > 0
    assert data.reproduce.command.startswith("w2s run ")


def data_of(folder):
    run = open_run(folder)
    return report_data(run, *measure_run(run))


def test_the_report_of_written_answers_has_every_part_but_calibration(written):
    data = data_of(written.folder)
    assert data.written
    assert data.calibration == {}
    assert {step.name: (step.count, step.note) for step in data.flow}["pseudo-labels"] == ("5 kept", "1 dropped")
    assert [one["accuracy_by_rounds"] for one in data.committees.values()] == [[0.5, 0.75]]
    assert data.dependence["effective_voters"] == 1.7
    assert data.controls_off == ("long_learner",)
    assert data.heaviest[0].id == "easy_fit-0-1"
    assert data.heaviest[0].weights == pytest.approx((6 * 4 / 9, 6 * 5 / 10))
    assert data.heaviest[0].gold == str(written.gold["easy_fit-0-1"].answer).strip()
    assert data.reproduce.sandbox == "seccomp"
    assert {"boosting rounds (committee)", "answers", "judged"} <= {cost.stage for cost in data.costs}
    assert data.notes == ("questions of own that repeat one trained on, left out of its numbers: 1",)


def test_samples_show_what_the_learners_wrote_the_label_and_the_gold(written):
    data = data_of(written.folder)
    assert len({one.id for one in data.samples}) == 4
    for one in data.samples:
        n = int(one.id.rsplit("-", 1)[1])
        first, second = one.votes
        assert (first.learner, first.answer) == ("learner 1", written.text(n, True).rstrip())
        assert first.probability == pytest.approx(0.607)  # exp(-0.5)
        assert second.answer == written.text(n, False).rstrip()
        assert one.label == written.text(n, n % 2 == 0).rstrip()
        assert one.why == ("the log-probability is low" if n == 5 else "kept")
        assert one.gold == str(written.gold[one.id].answer).strip()
        assert one.choices == ()
    if written.task == "answer":  # right and wrong labels
        assert {int(one.id[-1]) % 2 for one in data.samples} == {0, 1}
    else:  # nothing runs programs here: kept and dropped ones
        assert [one.id for one in data.samples if one.why != "kept"] == ["transfer-0-5"]


def test_of_a_vote_over_whole_answers_the_candidates_are_the_votes(voted):
    for one in data_of(voted.folder).samples:
        n = int(one.id[-1])
        assert [(v.answer, v.probability) for v in one.votes] == [
            (voted.text(n, True), 0.9),
            (voted.text(n, False), 0.8),
        ]
        assert one.why.endswith(", share 0.75" if n % 2 == 0 else ", share 0.88")


def test_a_written_run_is_finished_with_its_texts_escaped_and_cut(written):
    run = open_run(written.folder)
    path = run.find("member_texts", model="committee · learner 2")[0].path / "transfer_texts.jsonl"
    long = f"one {POISON}\n    two\n" + "x" * 900
    rewrite_texts(path, {f"transfer-0-{n}": [long] for n in range(6)})
    assert finish(written.folder).startswith("the student cannot be told from its committee")
    html, markdown = ((written.folder / f"report.{kind}").read_text() for kind in ("html", "md"))
    assert "<script" not in html
    assert '<pre class="wrap">one &lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;\n    two\nxxx' in html
    assert "x" * SHOWN_TEXT not in html + markdown
    assert f"```\none {POISON}\n    two\nxxx" in markdown  # inside a fence it is text
    assert "Does it know what it knows?" not in html


def test_a_written_run_of_two_seeds_is_told(tmp_path):
    written = write_run(tmp_path, "answer", seeds=(0, 1))
    data = data_of(written.folder)
    assert list(data.committees) == [0, 1]
    finish(written.folder)
    assert "seeds 0, 1" in (written.folder / "report.md").read_text()


@pytest.fixture
def two(tmp_path):
    """The folder of two runs, `written` and `other`, which have the same artifacts."""
    first = write_run(tmp_path, "answer").folder
    shutil.copytree(first, first.with_name("other"))
    return first.parent


def test_a_comparison_has_a_folder_of_its_own_beside_the_runs(two, capsys):
    before = sorted((two / "written").iterdir())
    main(["report", "written", "other", "--runs-dir", str(two)])
    page = two / "compare" / "written+other" / "compare.html"
    assert capsys.readouterr().out == f"report: {page}\n"
    assert page.exists()
    assert page.with_suffix(".md").exists()
    assert sorted((two / "written").iterdir()) == before
    main(["report", "other", "written", "--runs-dir", str(two), "--out", str(two / "else")])
    assert (two / "else" / "compare.html").exists()
    assert not (two / "compare" / "other+written").exists()


def test_a_comparison_of_many_runs_has_a_name_that_a_file_system_takes(two):
    folders = [two / "written", *(two / f"{'long' * 12}{n}" for n in range(6))]
    for folder in folders[1:]:
        shutil.copytree(folders[0], folder)
    names = {compare(folders).parent.name, compare([*folders[:-1], two / "other"]).parent.name}
    assert len(names) == 2
    assert all(len(name) < 255 for name in names)


def test_one_run_has_no_comparison_to_put_anywhere(two, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["report", "written", "--runs-dir", str(two), "--out", "x"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "w2s: --out: one run given; allowed only for a comparison of several\n"


def test_nothing_that_a_model_wrote_steers_the_terminal(two, capsys):
    run = open_run(two / "written")
    path = run.find("member_texts", model="committee · learner 2")[0].path / "transfer_texts.jsonl"
    evil = "\x1b]0;title\x07 \x1b[2J\r\u202e \x9b31m \ud800 end"
    rewrite_texts(path, {f"transfer-0-{n}": [evil] for n in range(6)})
    main(["why", "written", "transfer-0-1", "--runs-dir", str(two)])
    said = capsys.readouterr().out
    assert "]0;title" in said  # it can still be read
    assert all(letter == "\n" or letter.isprintable() for letter in said)
    main(["show", path.parent.name, "--runs-dir", str(two)])
    assert all(letter == "\n" or letter.isprintable() for letter in capsys.readouterr().out)
    with pytest.raises(SystemExit):
        main(["why", "no\x1b[31mthing", "x", "--runs-dir", str(two)])
    assert "\x1b" not in capsys.readouterr().err
