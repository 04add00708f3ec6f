"""`show` and `why` on the tiny run: an artifact in words, and how one question got its label."""

import json
from pathlib import Path

import pytest

from evaluation.inspect import describe_artifact, describe_row, find_artifact, shorten
from w2s.records import BadInput, Example, Predictions, PseudoLabels, read_arrays, read_rows

RUNS = Path("runs")


@pytest.fixture
def store(in_tiny_run) -> Path:
    return Path("runs/store")


def first(store: Path, split: str) -> Example:
    return read_rows(next(store.glob("questions-*")) / f"{split}.jsonl", Example)[0]


def test_an_artifact_is_found_by_folder_and_by_the_start_of_its_name(store):
    folder = next(store.glob("questions-*"))
    assert find_artifact(str(folder), RUNS) == find_artifact(folder.name[:-3], RUNS) == folder
    with pytest.raises(BadInput, match="artifacts begin so"):
        find_artifact("fit-", RUNS)
    with pytest.raises(BadInput, match="no such artifact"):
        find_artifact("nothing", RUNS)


def test_show_says_what_made_it_and_what_it_holds(store):
    for folder in store.iterdir():
        said = describe_artifact(folder.name, RUNS)
        assert said.startswith(f"{folder.name}: ")
        manifest = json.loads((folder / "manifest.json").read_text())
        for name in manifest["files"]:
            assert f"\n{name} (" in said
        assert all(len(line) < 1300 for line in said.splitlines())


def test_why_tells_how_a_question_of_the_pool_got_its_label(store):
    example = first(store, "transfer")
    said = describe_row(RUNS / "tiny", example.id[:10])
    assert said.startswith(f"{example.id} · seed 0 · transfer · world")
    assert "→ " in said  # the right answer, for the person who asks
    learners = [line for line in said.splitlines() if "committee · learner" in line]
    assert len(learners) == 2
    labels = [line for line in said.splitlines() if line.strip().startswith("label by committee:")]
    assert len(labels) == 1
    for stage in json.loads((RUNS / "tiny/stages.json").read_text())["stages"]:
        if stage["tags"].get("kind") == "labels" and stage["tags"]["model"] == "committee":
            found = read_arrays(store / stage["folder"] / "labels.npz", PseudoLabels)
            target = found.target_NK[found.ids.tolist().index(example.id)]
            assert " ".join(f"{value:.3f}" for value in target) in labels[0]
            assert "kept (kept)" in labels[0]


def test_why_shows_the_weights_of_an_easy_question_round_by_round(store):
    example = first(store, "easy_fit")
    lines = describe_row(RUNS / "tiny", example.id).splitlines()
    rows = [line.split() for line in lines if line.split()[:1] in (["1"], ["2"])]
    rows = [row for row in rows if len(row) > 4]
    assert [row[0] for row in rows] == ["1", "2"]
    assert all(float(row[1]) > 0 for row in rows)


@pytest.mark.parametrize("split", ["easy_holdout", "hard_test"])
def test_why_shows_the_votes_on_any_other_question(store, split):
    said = describe_row(RUNS / "tiny", first(store, split).id)
    assert f"seed 0 · {split}" in said
    assert ("committee · learner 1" in said) or split == "hard_test"
    if split == "hard_test":
        opinion = next(p for p in store.glob("combined-*/hard_test.npz"))
        assert read_arrays(opinion, Predictions).by in said


def test_an_id_that_is_nobodys_is_said(store):
    with pytest.raises(BadInput, match="no question of"):
        describe_row(RUNS / "tiny", "zzz")


def test_long_lines_are_cut():
    assert shorten("a" * 200, 10) == "a" * 9 + "…"
    assert shorten("ab") == "ab"
