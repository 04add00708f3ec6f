import numpy as np
import pytest

from w2s.data import world as embedded
from w2s.data.world import ATTRIBUTES, EASY_GAP, corpus, item_names, rankings, world


def ranks_of(example):
    index = {name: at for at, name in enumerate(item_names(example.meta["world"]))}
    row = rankings(example.meta["world"])[ATTRIBUTES.index(example.meta["subject"])]
    return [int(row[index[choice]]) for choice in example.choices]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_gold_is_the_item_that_ranks_highest(seed):
    examples, gold = world(None, easy=200, hard=200, seed=seed)
    assert [row.answer for row in gold] == [int(np.argmin(ranks_of(example))) for example in examples]
    assert len({example.id for example in examples}) == 400


def test_easy_questions_have_a_wide_gap_and_levels_rise_as_gaps_shrink():
    examples, _ = world(None, easy=300, hard=300)
    for example in examples:
        best, second = sorted(ranks_of(example))[:2]
        gap = second - best
        assert example.meta["level"] == (0 if gap >= EASY_GAP else EASY_GAP - gap)
    assert {example.meta["level"] for example in examples[:300]} == {0.0}
    assert min(example.meta["level"] for example in examples[300:]) >= 1


def test_the_seed_draws_the_questions_and_picks_the_world():
    first, again, other = (world(None, easy=50, hard=50, worlds=2, seed=seed)[0] for seed in (0, 2, 1))
    assert {e.meta["world"] for e in first} == {e.meta["world"] for e in again} == {0}
    assert {e.meta["world"] for e in other} == {1}
    assert {e.id for e in first} != {e.id for e in again}
    assert world(None, easy=50, hard=50, seed=5) == world(None, easy=50, hard=50, seed=5)


def test_the_corpus_tells_the_order_and_holds_every_word_of_a_question_but_no_answer():
    lines = list(corpus(0, 2000))
    facts, questions = lines[:-20], lines[-20:]
    index, rank_AI = {name: at for at, name in enumerate(item_names(0))}, rankings(0)
    for line in facts:
        attribute, colon, *items = line.split()
        ranks = [rank_AI[ATTRIBUTES.index(attribute), index[item]] for item in items]
        assert colon == ":"
        assert ranks == sorted(ranks)
    assert all(line.endswith("=") and "?" in line for line in questions)
    words = {word for line in lines for word in line.split()}
    assert {word for e in world(None, easy=50, hard=50)[0] for word in e.prompt.split()} <= words


def test_every_question_is_marked_as_synthetic():
    examples, _ = world(None, split="hard", hard=20)
    assert len(examples) == 20
    assert all(example.meta["synthetic"] for example in examples)
    assert "SYNTHETIC" in embedded.world.__doc__
