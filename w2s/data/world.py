"""The embedded world: a synthetic question generator with graded difficulty, and an unlabelled corpus about it.

A world has 240 made-up items and 6 attributes; each attribute is an independent random ranking of the items. The corpus
lists four items in descending order of an attribute; a question asks which of four items ranks highest. The hidden
difficulty is the gap in rank between the best two: a wide gap is easy. Everything here is synthetic and is labelled so.

Short answers and one-line functions are further tasks of the same world: see `world_tasks`.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from w2s.data import world_tasks
from w2s.store.records import Example, Gold, Task, example_id

ITEMS = 240
ATTRIBUTES = ("weight", "height", "speed", "price", "age", "heat")
EASY_MIX = (0.3, 0.2, 0.2, 0.1, 0.1, 0.1)
"""Easy questions favour some attributes, as real easy questions favour some topics; hard ones are uniform."""
EASY_GAP = 30
CHOICES = 4


def item_names(world: int) -> list[str]:
    """240 pronounceable names, different in every world."""
    syllables = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
    rng = np.random.default_rng([world, 1])
    picked = rng.permutation(len(syllables) ** 2)[:ITEMS]
    return [syllables[n // len(syllables)] + syllables[n % len(syllables)] for n in picked]


def rankings(world: int) -> np.ndarray:
    """rank_AI: the rank of each item (columns; 0 = highest) under each attribute (rows)."""
    rng = np.random.default_rng([world, 2])
    return np.stack([rng.permutation(ITEMS) for _ in ATTRIBUTES])


def corpus(world: int, lines: int, seed: int = 0, task: Task = "choice") -> Iterator[str]:
    """Unlabelled text: 'weight : a b c d', four items from the highest down, and a few bare questions.

    The tasks answer and code share another corpus, about their things instead of the items of the choice task.
    """
    if task != "choice":
        yield from world_tasks.corpus(world, item_names(world), lines, seed)
        return
    rng = np.random.default_rng([world, 3, seed])
    names, rank_AI = np.array(item_names(world)), rankings(world)
    attribute_L, items_LC = draw(rng, lines, np.full(len(ATTRIBUTES), 1 / len(ATTRIBUTES)))
    order_LC = np.take_along_axis(items_LC, rank_AI[attribute_L[:, None], items_LC].argsort(1), axis=1)
    for attribute, words in zip(attribute_L.tolist(), names[order_LC].tolist(), strict=True):
        yield f"{ATTRIBUTES[attribute]} : {' '.join(words)}"
    for attribute, words in zip(*(part[: lines // 100] for part in (attribute_L, names[items_LC])), strict=True):
        yield question(attribute, words)  # without an answer, so that a model knows the words of a question


def question(attribute: int, words: Sequence[str]) -> str:
    return f"{ATTRIBUTES[attribute]} ? {' '.join(words)} ="


def draw(rng: np.random.Generator, count: int, mix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """attribute_L and items_LC: `count` draws of an attribute and of four different items."""
    items_LC = rng.integers(ITEMS, size=(count + count // 8 + 100, CHOICES))
    sorted_LC = np.sort(items_LC, axis=1)
    items_LC = items_LC[(sorted_LC[:, 1:] != sorted_LC[:, :-1]).all(1)][:count]
    return rng.choice(len(ATTRIBUTES), size=len(items_LC), p=mix), items_LC


def world(
    root: Path | None,
    *,
    task: Task = "choice",
    split: Literal["all", "easy", "hard"] = "all",
    limit: int | None = None,
    level: float | None = None,
    worlds: int = 2,
    easy: int = 4500,
    hard: int = 6000,
    seed: int = 0,
) -> tuple[list[Example], list[Gold]]:
    """SYNTHETIC: which of four made-up items ranks highest? Level 0 = wide gap (easy), 1 or more = narrow gap.

    The tasks answer and code ask about two rankings at once; the answer is words or a function (`world_tasks`). The
    run's seed draws the questions and picks one of `worlds` worlds (seed modulo worlds). `root` is not used.
    """
    index = seed % worlds
    counts = {"easy": (easy, 0), "hard": (0, hard), "all": (easy, hard)}[split]
    rng = np.random.default_rng([index, 4, seed] if task == "choice" else [index, 7, seed])
    names, rows = item_names(index), []
    for count, is_easy in zip(counts, (True, False), strict=True):
        if task == "choice":
            rows += choice_questions(index, names, rng, count, is_easy)
        else:
            rows += world_tasks.questions(task, index, names, rng, count, is_easy)
    examples, gold = [example for example, _ in rows[:limit]], [answer for _, answer in rows[:limit]]
    if level is not None:
        examples = [dataclasses.replace(example, meta=example.meta | {"level": level}) for example in examples]
    return examples, gold


def choice_questions(
    index: int, names: Sequence[str], rng: np.random.Generator, count: int, easy: bool
) -> Iterator[tuple[Example, Gold]]:
    """`count` different choice questions of world `index`. Level 0 = wide gap, 1 to 29 = EASY_GAP minus the gap."""
    rank_AI = rankings(index)
    for attribute, items in draw_questions(rng, rank_AI, count, easy):
        ranks = rank_AI[attribute, items]
        best, second = np.sort(ranks)[:2]
        words = tuple(names[item] for item in items)
        prompt = question(attribute, words)
        meta = {"level": float(0 if easy else EASY_GAP - (second - best)), "subject": ATTRIBUTES[attribute]}
        meta |= {"synthetic": True, "world": index}
        key = example_id(f"world{index}", prompt, words)
        yield Example(key, "world", "choice", prompt, words, meta), Gold(key, int(ranks.argmin()))


def draw_questions(
    rng: np.random.Generator, rank_AI: np.ndarray, count: int, easy: bool
) -> Iterator[tuple[int, list[int]]]:
    """`count` different questions (attribute, four items in shuffled order) whose top gap is easy, or hard."""
    mix = np.array(EASY_MIX) if easy else np.full(len(ATTRIBUTES), 1 / len(ATTRIBUTES))

    def draw_batch() -> Iterable[tuple[int, list[int]]]:
        attribute_L, items_LC = draw(rng, 4 * count, mix)
        ranks_LC = np.sort(rank_AI[attribute_L[:, None], items_LC], axis=1)
        fits_L = (ranks_LC[:, 1] - ranks_LC[:, 0] >= EASY_GAP) == easy
        return zip(attribute_L[fits_L].tolist(), items_LC[fits_L].tolist(), strict=True)

    yield from world_tasks.take_distinct(count, draw_batch, lambda question: (question[0], *sorted(question[1])))
