"""Pages of results: made from the metrics beside them, by command, with no figure typed by hand."""

import json
import re
import shutil
from pathlib import Path

import pytest

from w2s.cli import main
from w2s.evaluation import results
from w2s.store.records import BadInput

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "evaluation" / "results").glob("*.json"))


def test_every_page_with_metrics_beside_it_is_made_from_them_alone():
    assert PAGES
    for path in PAGES:
        assert path.with_suffix(".md").read_text() == results.make_page(path.stem, json.loads(path.read_text()))


def test_every_page_of_results_is_listed_begins_with_its_command_and_names_no_folder_of_a_machine():
    index = (ROOT / "evaluation" / "results" / "README.md").read_text()
    for page in (ROOT / "evaluation" / "results").glob("*.md"):
        if page.name != "README.md":
            text = page.read_text()
            assert f"]({page.name})" in index
            assert "```\nw2s " in text or page.name == "speed.md"
            assert not re.search(r"(?<![\w.`\]])/(tmp|work|home|root)/", text)


def test_the_figures_of_the_readme_stand_on_the_pages_that_it_links_to():
    section = (ROOT / "README.md").read_text().split("## What is measured")[1].split("\n## ")[0]
    rows = re.findall(r"^\|.*?\| (.*) \| \[.*?\]\((.*?)\) \|$", section, flags=re.M)
    assert len(rows) > 5
    for words, page in rows:
        text = (ROOT / page).read_text()
        figures = re.findall(r"[−+]?\d+\.\d+", words)
        assert figures
        assert [figure for figure in figures if figure not in text] == []


def test_a_run_gets_a_page_with_its_command_its_figures_and_its_cost(in_tiny_run, tmp_path, capsys):
    main(["report", "runs/tiny", "--results", str(tmp_path)])
    assert f"results: {tmp_path / 'tiny.md'}" in capsys.readouterr().out
    page, (record,) = (tmp_path / "tiny.md").read_text(), json.loads((tmp_path / "tiny.json").read_text())
    assert record["metrics"] == json.loads(Path("runs/tiny/metrics.json").read_text())
    assert page.startswith("# tiny\n\n```\nw2s run ")
    student = next(m for m in record["metrics"]["metrics"] if (m["model"], m["name"]) == ("student", "accuracy"))
    assert re.search(rf"\| student \| {100 * student['value']:.1f} \(.* to .*\) \| {student['n']} \| 0 \|", page)
    assert "| student − committee |" in page
    assert "| **together** |" in page
    assert f"w2s at commit {record['commit']}" in page


def test_runs_of_one_config_share_a_page_and_other_runs_are_refused(in_tiny_run, tmp_path, monkeypatch):
    with pytest.raises(BadInput, match=r"seeds \[0, 0\] given; each run on a page needs its own seeds"):
        results.write_results([Path("runs/tiny"), Path("runs/tiny")], tmp_path)
    opened = results.open_run

    def with_seed(folder):
        run = opened(Path("runs/tiny"))
        if folder.name == "other":
            run.config["seeds"] = [1]
        if folder.name == "third":
            run.config.update(seeds=[2], label={})
        return run

    monkeypatch.setattr(results, "open_run", with_seed)
    results.check_alike([Path("runs/tiny"), Path("runs/other")])
    with pytest.raises(BadInput, match="third: its label is not that of"):
        results.check_alike([Path("runs/tiny"), Path("runs/third")])


def test_a_run_without_metrics_is_refused(in_tiny_run, tmp_path):
    shutil.copytree("runs/tiny", tmp_path / "tiny")
    (tmp_path / "store").symlink_to(Path("runs/store").resolve())
    (tmp_path / "tiny" / "metrics.json").unlink()
    with pytest.raises(BadInput, match="no such file; `w2s report"):
        results.read_record(tmp_path / "tiny")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("w2s run c.yaml runtime.runs_dir=/tmp/x seeds=[0,1]", "w2s run c.yaml 'seeds=[0,1]'"),
        ("w2s run c.yaml data.root=/home/me/data", "w2s run c.yaml data.root=DIR/data"),
        ("w2s combine '/home/my pools/mmlu' --methods a,b", "w2s combine DIR/mmlu --methods a,b"),
    ],
)
def test_a_command_on_a_page_names_no_folder_of_the_machine(command, words):
    assert results.portable(command) == words
