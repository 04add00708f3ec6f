"""`show` and `why` on the tiny run: an artifact in words, and how one question got its label."""

import json
from pathlib import Path

import pytest

from w2s.evaluation.run.inspect import describe_artifact, describe_row, find_artifact, shorten
from w2s.store.records import BadInput, Example, Predictions, PseudoLabels, read_arrays, read_rows

RUNS = Path("runs")


@pytest.fixture
def store(in_tiny_run) -> Path:
    return Path("runs/store")


def first(store: Path, split: str) -> Example:
    return read_rows(next(store.glob("questions-*")) / f"{split}.jsonl", Example)[0]


def test_an_artifact_is_found_by_folder_and_by_the_start_of_its_name(store):
    folder = next(store.glob("questions-*"))
    assert find_artifact(str(folder), RUNS) == find_artifact(folder.name[:-3], RUNS) == folder
    with pytest.raises(BadInput, match="artifacts match"):
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


def test_why_tells_what_everybody_wrote_for_a_question_of_the_pool(written):
    said = describe_row(written.folder, "transfer-0-1")
    lines = said.splitlines()
    assert lines[0] == "transfer-0-1 · seed 0 · transfer · own"
    assert f"→ {str(written.gold['transfer-0-1'].answer).splitlines()[0]}" in said  # for the person who asks
    wrote = {line[2:30].strip(): line.split() for line in lines if "committee ·" in line}
    assert wrote["committee · learner 1"][4:7] == ["0.500", "-0.50", "-"]
    assert wrote["committee · learner 2"][4] == "0.250"
    assert wrote["committee · learner 1"][-1] in ("2", "1")
    assert "  label by committee: kept (kept)" in lines
    label = lines[lines.index("  label by committee: kept (kept)") + 1]
    assert label.strip() == written.text(1, False).strip()
    assert "label by committee: dropped (the log-probability is low)" in describe_row(written.folder, "transfer-0-5")


def test_why_gives_a_question_the_weight_of_its_tokens_and_counts_those_missed(written):
    lines = describe_row(written.folder, "easy_fit-0-1").splitlines()
    assert [line.split() for line in lines if line.split()[:1] in (["1"], ["2"]) and len(line.split()) == 5] == [
        ["1", "2.67", "1", "of", "2"],
        ["2", "3.00", "2", "of", "3"],
    ]


def test_why_shows_everybodys_answer_to_a_hard_question_with_its_verdict(written):
    lines = describe_row(written.folder, "hard_test-0-7").splitlines()
    verdicts = {line.split()[0]: line.split()[3] for line in lines if "-0.50" in line}
    assert verdicts["ceiling"] == "right"
    assert verdicts["student"] == "wrong"
    assert verdicts["floor"] == "unjudged"
    assert "wrote" not in describe_row(written.folder, "easy_holdout-0-0")


def test_why_shows_the_candidates_of_a_vote_and_who_voted_for_which(voted):
    lines = describe_row(voted.folder, "transfer-0-0").splitlines()
    at = lines.index("  candidates of committee:")
    assert [line.strip()[:2] for line in lines[at + 1 : at + 3]] == ["0.", "1."]
    votes = {line[2:30].strip(): line[30:].split() for line in lines[at + 4 : at + 7]}
    assert votes == {
        "committee · learner 1": ["0.500", "1", "0.100", "0.900"],
        "committee · learner 2": ["0.250", "0", "0.800", "0.200"],
        "committee": ["-", "1", "0.250", "0.750"],
    }
    assert "  label by committee: share 0.750, kept (kept)" in lines
