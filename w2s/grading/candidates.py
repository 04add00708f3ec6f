"""Which sampled texts are the same answer: short answers by value, programs by what they do. Nothing here sees gold."""

import ast
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from w2s.grading.answers import plain_text, same
from w2s.grading.behaviour import LIMITS, outputs, runnable
from w2s.grading.endings import final_answer
from w2s.grading.expressions import is_maths
from w2s.grading.inputs import UNREADABLE, calls_for, find_entry
from w2s.grading.quantities import read_quantity
from w2s.grading.syntax import parse
from w2s.grading.threads import Progress, map_rows
from w2s.sandbox.program import Limits
from w2s.store.records import Example

COMPARISONS = 200  # of expressions, per question; one that runs out of time counts as SLOW of them
SLOW = 100
UNSEEN = ("<not plain", "<too large", "<not run")
FAILURES = (*UNSEEN, "<exception", "<timeout", "<memory", "<crashed")


@dataclass(frozen=True)
class Merged:
    """The distinct candidates, most frequent first, and for each text the position of its candidate.

    texts: each candidate's most frequent spelling, in full. index: -1 where a text gives no answer.
    """

    texts: tuple[str, ...]
    index: tuple[int, ...]


def merge(example: Example, texts: Sequence[str], limits: Limits = LIMITS, *, inputs: int = 32) -> Merged:
    """Which of the texts are the same answer to `example`; their order only breaks ties in naming.

    Answers are the same when `w2s.grading.answers.same` says so, programs when they return the same on the calls in the
    prompt and on `inputs` generated ones (without either: when their sources differ only in layout and comments). Empty
    texts and programs that do not parse or lack the function are no answers. limits: for all calls of a program.
    BadInput if programs cannot be run safely and limits.allow_unsandboxed is false.
    """
    if example.task == "choice":
        raise ValueError(f"example {example.id}: the candidates of a choice question are its choices")
    if example.task == "answer":
        spellings = [final_answer(text) or "" for text in texts]
        keys = same_answers(spellings)
    else:
        spellings = [runnable(example, text) or "" for text in texts]
        keys = same_programs(example, spellings, inputs, limits)
    return group(texts, spellings, [keys[spelling] if spelling.strip() else None for spelling in spellings])


def merge_all(
    rows: Sequence[tuple[Example, Sequence[str]]], *, allow_unsandboxed: bool = False, progress: Progress | None = None
) -> list[Merged]:
    """`merge` of each row, in order."""
    return map_rows(merge, rows, replace(LIMITS, allow_unsandboxed=allow_unsandboxed), progress=progress)


def group(texts: Sequence[str], spellings: Sequence[str], keys: Sequence[Hashable | None]) -> Merged:
    """Texts with the same key (None: no answer) are one candidate, named by its most frequent spelling, then text."""
    members = defaultdict(list)
    for at, key in enumerate(keys):
        if key is not None:
            members[key].append(at)
    groups = sorted(members.values(), key=len, reverse=True)  # stable: ties by first appearance
    spelling_counts, text_counts = Counter(spellings), Counter(texts)

    def frequency(at: int) -> tuple[int, int, int]:
        return spelling_counts[spellings[at]], text_counts[texts[at]], -at

    candidate_of = {at: number for number, places in enumerate(groups) for at in places}
    names = tuple(texts[max(places, key=frequency)] for places in groups)
    return Merged(names, tuple(candidate_of.get(at, -1) for at in range(len(texts))))


def same_answers(finals: Sequence[str]) -> dict[str, str]:
    """Each final answer -> the answer that stands for all that are the same.

    `same` is not transitive (12 equals 12 km and 12 m, which differ): so the most frequent answers lead, and each other
    answer joins the first leader that it equals.
    """
    spellings = defaultdict(Counter)
    for final in filter(None, finals):
        spellings[read_quantity(final) or plain_text(final)][final] += 1
    kinds = sorted(spellings.items(), key=lambda pair: (-pair[1].total(), min(pair[1])))
    left, leaders, leader_of = COMPARISONS, {}, {}
    for kind, variants in kinds:
        answer = min(variants)
        for leader, leader_kind in leaders.items():
            costly = (isinstance(kind, str) or isinstance(leader_kind, str)) and is_maths(answer) and is_maths(leader)
            if costly and left <= 0:
                continue
            equal = same(answer, leader)
            left -= costly * (1 if equal is not None else SLOW)
            if equal:
                break
        else:
            leader = answer
            leaders[answer] = kind
        leader_of |= dict.fromkeys(variants, leader)
    return leader_of


def same_programs(example: Example, programs: Sequence[str], inputs: int, limits: Limits) -> dict[str, Hashable]:
    """Each program -> its results on all calls; if they cannot be seen or nothing can be called, its source."""
    sources = {program: strip_layout(program) for program in dict.fromkeys(programs) if program}
    certain, generated = calls_for(example, [program for program in programs if program], count=inputs)
    if not certain:
        return sources
    results = {}
    for program, source in sources.items():
        if source not in results:
            results[source] = outputs(program, find_entry(example), certain + generated, limits)
    kept = select_calls(list(results.values()), len(certain))
    results = {source: tuple(row[at] for at in kept) for source, row in results.items()}
    unseen = {source for source, row in results.items() if any(result.startswith(UNSEEN) for result in row)}
    return {program: (results[source], source if source in unseen else "") for program, source in sources.items()}


def select_calls(results: Sequence[tuple[str, ...]], certain: int) -> list[int]:
    """The calls that programs are compared on: the first `certain`, and those where most sound programs do not fail.

    A program is sound if it fails on none of the certain calls. If most sound programs fail on a generated call, the
    task probably rules that input out, and how they fail says nothing.
    """
    sound = [row for row in results if not any(result.startswith(FAILURES) for result in row[:certain])]
    failed = [sum(row[at].startswith(FAILURES) for row in sound) for at in range(len(results[0]) if results else 0)]
    return [at for at, count in enumerate(failed) if at < certain or 2 * count <= len(sound)]


def strip_layout(program: str) -> str:
    """A program's source without layout and comments."""
    try:
        return ast.unparse(parse(program))
    except UNREADABLE:
        return program
