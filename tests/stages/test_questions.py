"""Stages that make questions, gold and targets."""

import dataclasses
import json

import numpy as np
import pytest

from w2s.config.fields import Data, Sizes
from w2s.stages import questions
from w2s.store.records import BadInput, Example, Gold, PseudoLabels, read_arrays, read_rows, write_arrays, write_rows

SPLITS = ("easy_fit", "easy_holdout", "transfer", "hard_test")
DATA = Data(easy_max=0, hard_min=1, near=None, sizes=Sizes(100, 50, 90, 60))


@pytest.fixture
def made(tmp_path, tools):
    """The questions stage's folder."""
    folder = tmp_path / "questions"
    folder.mkdir()
    questions.questions(folder, {}, tools, data=DATA, seed=0, content="x")
    return folder


def read(folder) -> dict[str, list[Example]]:
    return {split: read_rows(folder / f"{split}.jsonl", Example) for split in SPLITS}


def test_splits_have_their_sizes_their_hardness_and_no_question_in_common(made):
    found = read(made)
    assert {split: len(rows) for split, rows in found.items()} == dict(zip(SPLITS, (100, 50, 90, 60), strict=True))
    assert len({row.id for rows in found.values() for row in rows}) == 300
    assert {row.meta["hardness"] for row in found["easy_fit"] + found["easy_holdout"]} == {0}
    assert all(row.meta["hardness"] >= 1 for row in found["transfer"] + found["hard_test"])


def test_no_file_of_the_questions_holds_an_answer(made):
    for path in made.iterdir():
        text = path.read_text()
        assert '"answer"' not in text
        assert '"gold"' not in text


def test_the_same_seed_makes_the_same_splits_and_another_one_others(made, tmp_path, tools):
    hashes = [json.loads((made / "splits.json").read_text())["hash"]]
    for seed in (0, 2):
        folder = tmp_path / f"again-{seed}"
        folder.mkdir()
        questions.questions(folder, {}, tools, data=DATA, seed=seed, content="x")
        hashes.append(json.loads((folder / "splits.json").read_text())["hash"])
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("limit", [1, 40, 75, 1000])
def test_a_limit_keeps_of_each_split_the_first_by_id_in_the_order_they_had(made, tmp_path, tools, limit):
    folder = tmp_path / "limited"
    folder.mkdir()
    facts = questions.questions(folder, {}, tools, data=DATA, seed=0, content="x", limit=limit)
    whole, limited = read(made), read(folder)
    for split in SPLITS:
        first = sorted(row.id for row in whole[split])[:limit]
        assert limited[split] == [row for row in whole[split] if row.id in first]
        assert facts[split] == len(limited[split])


def test_questions_asked_for_and_not_there_are_an_error(tmp_path, tools):
    with pytest.raises(BadInput, match="easy_fit: 5000 needed"):
        questions.questions(
            tmp_path, {}, tools, data=Data(easy_max=0, hard_min=1, near=None, sizes=Sizes(5000)), seed=0, content="x"
        )


def test_gold_holds_the_answers_of_its_splits_alone(made, tmp_path, tools):
    for splits in (("easy_fit", "easy_holdout"), ("transfer",), ("hard_test",)):
        folder = tmp_path / splits[0]
        folder.mkdir()
        facts = questions.gold(folder, {"questions": made}, tools, splits=splits, seed=0, content="x")
        wanted = {row.id for split in splits for row in read(made)[split]}
        found = read_rows(folder / "gold.jsonl", Gold)
        assert {row.id for row in found} == wanted
        assert facts["rows"] == len(wanted)


def test_targets_put_all_on_the_right_candidate(made, tmp_path, tools):
    (tmp_path / "gold").mkdir()
    questions.gold(tmp_path / "gold", {"questions": made}, tools, splits=("transfer",), seed=0, content="x")
    here = tmp_path / "targets"
    here.mkdir()
    questions.gold_targets(here, {"questions": made, "gold": tmp_path / "gold"}, tools, split="transfer")
    labels = read_arrays(here / "labels.npz", PseudoLabels)
    answer = {row.id: row.answer for row in tools.rows(0)[1]}
    assert labels.ids.tolist() == [row.id for row in read(made)["transfer"]]
    assert labels.target_NK.argmax(1).tolist() == [answer[key] for key in labels.ids.tolist()]
    assert np.array_equal(labels.target_NK.sum(1), np.ones(90))
    assert set(labels.why_N.tolist()) == {"gold"}


def test_gold_that_is_missing_is_not_made_up(made, tmp_path, tools):
    (tmp_path / "gold").mkdir()
    questions.gold(tmp_path / "gold", {"questions": made}, tools, splits=("transfer",), seed=0, content="x")
    with pytest.raises(KeyError):
        questions.gold_targets(tmp_path, {"questions": made, "gold": tmp_path / "gold"}, tools, split="easy_fit")


@pytest.fixture
def recorded(made, tmp_path, tools):
    """Labels of the first half of the transfer pool, their choices in another order; and the tools that know of it."""
    rows = read(made)["transfer"][:45]
    turned = [dataclasses.replace(row, id=f"r{at}", choices=row.choices[::-1]) for at, row in enumerate(rows)]
    rng, folder = np.random.default_rng(0), tmp_path / "recorded"
    folder.mkdir()
    target_NK = rng.dirichlet(np.ones(len(rows[0].choices)), 45)
    weight_N = np.where(np.arange(45) < 30, 1.0, 0.0)
    labels = PseudoLabels(np.array([row.id for row in turned]), target_NK, weight_N, np.full(45, "kept"))
    write_arrays(folder / "labels.npz", labels)
    write_rows(folder / "questions.jsonl", turned)
    return rows, target_NK, dataclasses.replace(tools, recorded=folder)


def test_recorded_labels_are_found_by_the_questions_words_whatever_the_order_of_their_choices(made, tmp_path, recorded):
    rows, target_NK, tools = recorded
    here = tmp_path / "labels"
    here.mkdir()
    facts = questions.recorded_targets(here, {"questions": made}, tools, content="x")
    labels = read_arrays(here / "labels.npz", PseudoLabels)
    assert facts == {"rows": 90, "kept": 30}
    place = {key: at for at, key in enumerate(labels.ids.tolist())}
    for row, target_K in zip(rows, target_NK, strict=True):
        np.testing.assert_allclose(labels.target_NK[place[row.id]], target_K[::-1])
    assert (labels.why_N == "no recorded opinion").sum() == 45
    np.testing.assert_allclose(labels.target_NK.sum(1), 1)


def test_recorded_labels_of_other_questions_are_refused(made, tmp_path, recorded):
    _, _, tools = recorded
    others = [
        dataclasses.replace(row, prompt=f"other {row.prompt}")
        for row in read_rows(tools.recorded / "questions.jsonl", Example)
    ]
    write_rows(tools.recorded / "questions.jsonl", others)
    with pytest.raises(BadInput, match="labels none of the 90 transfer questions"):
        questions.recorded_targets(tmp_path, {"questions": made}, tools, content="x")
