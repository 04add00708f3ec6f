"""Which sampled texts are the same answer: short answers by value, programs by what they do. Nothing here sees gold."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from w2s.grading.answers import final_answer, is_maths, plain_text, same
from w2s.grading.behaviour import MEMORY_MB, TIMEOUT_S, in_threads, outputs, runnable
from w2s.grading.inputs import UNREADABLE, calls_for, find_entry
from w2s.grading.quantities import read_quantity
from w2s.store.records import Example

COMPARISONS = 200  # of expressions, per question; one that took too long counts as SLOW of them
SLOW = 100
UNSEEN = ("<not plain", "<too large", "<not run")
FAILURES = (*UNSEEN, "<exception", "<timeout", "<memory", "<crashed")


@dataclass(frozen=True)
class Merged:
    """The distinct candidates, those with most texts first, and for each text the place of its candidate.

    texts: of each candidate its most frequent spelling, whole. index: -1 where a text is no answer.
    """

    texts: tuple[str, ...]
    index: tuple[int, ...]


def merge(
    example: Example,
    texts: Sequence[str],
    *,
    inputs: int = 32,
    timeout_s: float = TIMEOUT_S,
    memory_mb: int = MEMORY_MB,
    allow_unsandboxed: bool = False,
) -> Merged:
    """Which of the texts are the same answer to `example`; the order of the texts decides ties of naming alone.

    Answers are the same when `w2s.grading.answers.same` says so, programs when they give the same on the calls that
    stand in the prompt and on `inputs` generated ones (without either: when their sources are the same but for
    layout and comments). No answers are empty texts and programs that do not parse or lack the function. timeout_s,
    memory_mb: of all calls of a program. BadInput where programs cannot be run safely and nobody accepted the risk.
    """
    if example.task == "choice":
        raise ValueError(f"example {example.id}: the candidates of a choice question are its choices")
    if example.task == "answer":
        spellings = [final_answer(text) or "" for text in texts]
        keys = same_answers(spellings)
    else:
        spellings = [runnable(example, text) or "" for text in texts]
        limits = {"timeout_s": timeout_s, "memory_mb": memory_mb, "allow_unsandboxed": allow_unsandboxed}
        keys = same_programs(example, spellings, inputs, limits)
    return grouped(texts, spellings, [keys[one] if one.strip() else None for one in spellings])


def merge_all(
    rows: Sequence[tuple[Example, Sequence[str]]],
    *,
    inputs: int = 32,
    workers: int | None = None,
    timeout_s: float = TIMEOUT_S,
    memory_mb: int = MEMORY_MB,
    allow_unsandboxed: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Merged]:
    """`merge` of each row, in order. workers: rows at a time (default: one per core)."""
    limits = {"timeout_s": timeout_s, "memory_mb": memory_mb, "allow_unsandboxed": allow_unsandboxed}
    return in_threads(lambda row: merge(*row, inputs=inputs, **limits), rows, workers, allow_unsandboxed, progress)


def grouped(texts: Sequence[str], spellings: Sequence[str], keys: Sequence[Hashable | None]) -> Merged:
    """Texts of the same key (None: no answer) are one candidate, named by its most frequent spelling, then text."""
    members = defaultdict(list)
    for at, key in enumerate(keys):
        if key is not None:
            members[key].append(at)
    ordered = sorted(members.values(), key=len, reverse=True)  # stable: ties by first appearance
    spelled, written = Counter(spellings), Counter(texts)
    named = (max(many, key=lambda at: (spelled[spellings[at]], written[texts[at]], -at)) for many in ordered)
    place = {at: number for number, many in enumerate(ordered) for at in many}
    return Merged(tuple(texts[at] for at in named), tuple(place.get(at, -1) for at in range(len(texts))))


def same_answers(finals: Sequence[str]) -> dict[str, str]:
    """Each final answer -> the one that stands for all that are the same.

    `same` is no equivalence (12 is 12 km and 12 m, which differ): so the frequent ones choose first, and each
    answer joins the first leader that it equals.
    """
    spellings = defaultdict(Counter)
    for final in filter(None, finals):
        spellings[read_quantity(final) or plain_text(final)][final] += 1
    kinds = sorted(spellings.items(), key=lambda pair: (-pair[1].total(), min(pair[1])))
    left, leaders, found = COMPARISONS, {}, {}
    for kind, many in kinds:
        one = min(many)
        for leader, other in leaders.items():
            costly = (isinstance(kind, str) or isinstance(other, str)) and is_maths(one) and is_maths(leader)
            if costly and left <= 0:
                continue
            equal = same(one, leader)
            left -= costly * (1 if equal is not None else SLOW)
            if equal:
                break
        else:
            leader = one
            leaders[one] = kind
        found |= dict.fromkeys(many, leader)
    return found


def same_programs(example: Example, programs: Sequence[str], inputs: int, limits: dict) -> dict[str, Hashable]:
    """Each program -> what it gives on all calls; where that cannot be seen or nothing can be called, its source."""
    sources = {program: normalised(program) for program in dict.fromkeys(programs) if program}
    certain, generated = calls_for(example, [program for program in programs if program], count=inputs)
    if not certain:
        return sources
    given = {}
    for program, source in sources.items():
        if source not in given:
            given[source] = outputs(program, find_entry(example), certain + generated, **limits)
    kept = telling(list(given.values()), len(certain))
    found = {source: tuple(many[at] for at in kept) for source, many in given.items()}
    unseen = {source for source, many in found.items() if any(one.startswith(UNSEEN) for one in many)}
    return {program: (found[source], source if source in unseen else "") for program, source in sources.items()}


def telling(outputs: Sequence[tuple[str, ...]], certain: int) -> list[int]:
    """The calls that programs are compared on: the first `certain`, and those where most sound programs do not fail.

    Where most programs that answer the certain calls fail on a generated one, it is likely ruled out by the task, and
    how they fail says nothing of it.
    """
    sound = [many for many in outputs if not any(one.startswith(FAILURES) for one in many[:certain])]
    failed = [sum(many[at].startswith(FAILURES) for many in sound) for at in range(len(outputs[0]) if outputs else 0)]
    return [at for at, count in enumerate(failed) if at < certain or 2 * count <= len(sound)]


def normalised(program: str) -> str:
    """A program's source without layout and comments."""
    try:
        return ast.unparse(ast.parse(program, "<program>"))
    except UNREADABLE:
        return program
