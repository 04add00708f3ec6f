"""The written tasks of the embedded world: short answers and one-line functions about 160 of its things.

Each of four traits is a random ranking of the things. A question names two traits and four things; the answer names
the highest thing of each trait, as words or as the arguments of a function. The corpus, which both tasks share, names
the highest of four things for every trait, and shows functions without comments and questions without answers.
The hidden difficulty is the narrower of the two gaps in rank between the best two things. Everything is synthetic.

Letters: L questions or lines, C the things of one of them, A the traits (or the two of a question), I all things.
"""

import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from w2s.sandbox.plain import encode
from w2s.store.records import Example, Gold, Task, example_id

THINGS = 160
# A trait, and what a function does with the argument that is highest in it.
OPERATORS = {"weight": "+", "height": "*", "speed": "%", "price": "|"}
TRAITS = tuple(OPERATORS)
EASY_MIX = (0.4, 0.3, 0.2, 0.1)  # easy questions favour some traits; hard ones are uniform
EASY_GAP = 20
NAMED = 4  # things in a question
SHOWN = (2, 3, 5, 7)  # the arguments of the example in a function's comment
HIDDEN = ((6, 8, 23, 17), (19, 15, 14, 29), (15, 23, 2, 20), (23, 11, 15, 5), (24, 6, 19, 25), (27, 17, 8, 13))
"""Arguments that tell any two different functions apart (a test tries them all)."""
END = "[eos]"
"""Ends a whole text of the corpus, so that a model of it knows when to stop: the word tokenizer's end token."""
_PLACES = itertools.product(range(NAMED), repeat=2)
FUNCTIONS = tuple(itertools.product(itertools.permutations(range(len(TRAITS)), 2), _PLACES))
"""Every function: its two traits, and the positions of the two arguments that it uses."""

Draw = tuple[list[int], list[int], list[int], int]  # two traits, four things, the best thing of each trait, the gap
Item = TypeVar("Item")


def rankings(world: int) -> np.ndarray:
    """rank_AI: the rank of each thing (columns; 0 = highest) under each trait (rows)."""
    rng = np.random.default_rng([world, 5])
    return np.stack([rng.permutation(THINGS) for _ in TRAITS])


def corpus(world: int, names: Sequence[str], lines: int, seed: int = 0) -> Iterator[str]:
    """Unlabelled text: 'a b c d ; speed c , weight a , price a , height d', and functions without a comment.

    Seven in ten of the `lines` are of the first kind. For every hundred lines there are two more: bare questions. No
    line has a line break.
    """
    rng = np.random.default_rng([world, 6, seed])
    words_I, rank_AI = np.array(names[:THINGS]), rankings(world)
    _, things_LC = draw(rng, lines, np.full(len(TRAITS), 1 / len(TRAITS)))
    best_LA = np.take_along_axis(things_LC, rank_AI[:, things_LC].argmin(2).T, axis=1)
    order_LA = rng.permuted(np.tile(np.arange(len(TRAITS)), (len(things_LC), 1)), axis=1)
    drawn = zip(order_LA.tolist(), words_I[things_LC].tolist(), words_I[best_LA].tolist(), strict=True)
    for number, (order, words, best) in enumerate(drawn):
        if number % 10 < 7:
            yield f"{' '.join(words)} ; {' , '.join(f'{TRAITS[trait]} {best[trait]}' for trait in order)} {END}"
        else:
            yield f"{head(words)} {body(order[:2], [best[trait] for trait in order[:2]])} {END}"
    # One function after the other, so that the corpus soon has every number that an example can return.
    for (traits, places), words in zip(
        itertools.cycle(FUNCTIONS), words_I[things_LC[: lines // 100]].tolist(), strict=False
    ):
        yield words_prompt(traits, words)
        yield function_prompt(traits, words, [words[place] for place in places]).replace("\n", " ")


def questions(
    task: Task, index: int, names: Sequence[str], rng: np.random.Generator, count: int, easy: bool
) -> Iterator[tuple[Example, Gold]]:
    """`count` different questions of `task` (answer or code) in world `index`: easy ones, or hard ones.

    Level 0 = both gaps are at least EASY_GAP, 1 to 19 = EASY_GAP minus the narrower one.
    """
    source = f"world{index}-{task}"
    base = [[encode(number) for number in arguments] for arguments in HIDDEN]
    hidden = {"kind": "inputs", "entry_point": "f", "base": base, "plus": [], "compare": "equal", "atol": 0}
    for traits, things, best, gap in draw_questions(rng, rankings(index), count, easy):
        words, chosen = [names[thing] for thing in things], [names[thing] for thing in best]
        meta = {"level": float(0 if easy else EASY_GAP - gap), "subject": " ".join(TRAITS[trait] for trait in traits)}
        meta |= {"synthetic": True, "world": index}
        if task == "answer":
            prompt, tests = words_prompt(traits, words), ()
            answer = " ".join(f"{TRAITS[trait]} {word}" for trait, word in zip(traits, chosen, strict=True))
        else:
            prompt, tests = function_prompt(traits, words, chosen), (hidden,)
            answer = f"{prompt} {body(traits, chosen)}"
        key = example_id(source, prompt)
        if task == "code":
            meta |= {"entry_point": "f", "task_id": f"world/{key}"}
        yield Example(key, "world", task, prompt, meta=meta), Gold(key, answer, tests)


def draw_questions(rng: np.random.Generator, rank_AI: np.ndarray, count: int, easy: bool) -> Iterator[Draw]:
    """`count` different questions, things in shuffled order: both gaps are wide (easy), or one of them is narrow."""
    mix = np.array(EASY_MIX) if easy else np.full(len(TRAITS), 1 / len(TRAITS))

    def draw_batch() -> Iterable[Draw]:
        traits_L2, things_LC = draw(rng, 4 * count, mix)
        rank_L2C = rank_AI[traits_L2[:, :, None], things_LC[:, None, :]]
        best_L2 = np.take_along_axis(things_LC, rank_L2C.argmin(2), axis=1)
        sorted_L2C = np.sort(rank_L2C, axis=2)
        gap_L = (sorted_L2C[:, :, 1] - sorted_L2C[:, :, 0]).min(1)
        drawn = (part[(gap_L >= EASY_GAP) == easy].tolist() for part in (traits_L2, things_LC, best_L2, gap_L))
        return zip(*drawn, strict=True)

    yield from take_distinct(count, draw_batch, lambda question: (*question[0], *sorted(question[1])))


def take_distinct(
    count: int, draw_batch: Callable[[], Iterable[Item]], make_key: Callable[[Item], tuple[int, ...]]
) -> Iterator[Item]:
    """The first `count` items with different keys, from as many batches as needed."""
    seen: set[tuple[int, ...]] = set()
    while len(seen) < count:
        for item in draw_batch():
            if len(seen) == count:
                return
            if (key := make_key(item)) not in seen:
                seen.add(key)
                yield item


def draw(rng: np.random.Generator, count: int, mix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """traits_L2 and things_LC: `count` draws of two different traits and of four different things."""
    drawn = 2 * count + 100  # some draws repeat a trait or a thing and are left out
    traits_L2 = rng.choice(len(TRAITS), size=(drawn, 2), p=mix)
    things_LC = rng.integers(THINGS, size=(drawn, NAMED))
    sorted_LC = np.sort(things_LC, axis=1)
    fits_L = (traits_L2[:, 0] != traits_L2[:, 1]) & (sorted_LC[:, 1:] != sorted_LC[:, :-1]).all(1)
    return traits_L2[fits_L][:count], things_LC[fits_L][:count]


def words_prompt(traits: Sequence[int], words: Sequence[str]) -> str:
    return f"{' '.join(TRAITS[trait] for trait in traits)} ? {' '.join(words)} ="


def function_prompt(traits: Sequence[int], words: Sequence[str], chosen: Sequence[str]) -> str:
    """The head of a function, below a comment with the traits and one true example."""
    result = run(traits, [words.index(word) for word in chosen], SHOWN)
    shown = f"f({', '.join(map(str, SHOWN))}) == {result}"
    return f"# {' '.join(TRAITS[trait] for trait in traits)} ; {shown}\n{head(words)}"


def head(words: Sequence[str]) -> str:
    return f"def f({', '.join(words)}):"


def body(traits: Sequence[int], chosen: Sequence[str]) -> str:
    """The function's one line, written as a word-level tokenizer does, with a space between any two tokens."""
    steps = (f"{OPERATORS[TRAITS[trait]]} {word}" for trait, word in zip(traits, chosen, strict=True))
    return f"return 9 {' '.join(steps)}"


TIGHTNESS = {"*": 2, "%": 2, "+": 1, "|": 0}
COMPUTE = {"+": operator.add, "*": operator.mul, "%": operator.mod, "|": operator.or_}


def run(traits: Sequence[int], places: Sequence[int], arguments: Sequence[int]) -> int:
    """The value of '9 op x op y' in Python, where x and y are the arguments at `places`."""
    first, second = (OPERATORS[TRAITS[trait]] for trait in traits)
    x, y = (arguments[place] for place in places)
    if TIGHTNESS[second] > TIGHTNESS[first]:
        return COMPUTE[first](9, COMPUTE[second](x, y))
    return COMPUTE[second](COMPUTE[first](9, x), y)
