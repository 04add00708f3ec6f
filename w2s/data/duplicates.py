"""Which questions are exact or near duplicates, to find leaks between splits.

Prompts are compared after normalising case, white space and sentence punctuation (signs that carry meaning in formulas
stay).

- *Exact*: the prompts are the same, and the prompt is sufficient by itself (LONG words or more, or no choices) or the
  choices are the same in any order. So "Which of these is a mammal?" with other animals is a different question.
- *Near*: the prompts' sets of words and word pairs have a Jaccard similarity of at least `near` (one changed word is
  0.8 in a prompt of 14 words); where a prompt is short, the two must also share half of the choices of the one with
  fewer. The same short prompt with half of the choices is near too, which finds the binary form of a question.

The search is exact: no pair above `near` is missed.
"""

import itertools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from w2s.store.records import BadInput, Example

LONG = 8
SENTENCE_MARKS = re.compile(r"[;!?\"'“”‘’«»…_]|(?<!\d)[.,:]|[.,:](?!\d)")
ROWS_AT_ONCE = 2000

Key = tuple[str, frozenset[str]]  # normalised prompt; normalised choices where the prompt alone is not sufficient

Like = dict[int, dict[int, float]]  # group -> the groups near it, and how similar they are


class Leak(NamedTuple):
    """A row taken out of training, and the row it duplicates. similarity: 1 if exact, else of prompts or choices."""

    removed: str
    kept: str
    kind: str  # "exact" or "near"
    similarity: float


def normalise(text: str) -> str:
    """Remove case, white space, Unicode variants and sentence punctuation; "3.5", "1,000", "-x" and "a+b" stay."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(SENTENCE_MARKS.sub(" ", plain).split()) or plain.strip()


def key_of(example: Example) -> Key:
    prompt = normalise(example.prompt)
    if not example.choices or len(prompt.split()) >= LONG:
        return prompt, frozenset()
    return prompt, frozenset(normalise(choice) for choice in example.choices)


def groups(examples: Sequence[Example], *, near: float | None = 0.8) -> tuple[np.ndarray, Like]:
    """(group_N, like): exact duplicates share a group; like[group] holds the groups near it and how similar they are.

    near: the least Jaccard similarity (0 < near <= 1), or None for exact duplicates alone. Order-free and
    deterministic up to the numbering of the groups. 20,000 questions take seconds.
    """
    if near is not None and not 0 < near <= 1:
        raise BadInput(f"near: {near} given; allowed: above 0, at most 1, or null")
    number: dict[Key, int] = {}
    group_N = np.array([number.setdefault(key_of(example), len(number)) for example in examples], dtype=int)
    like: Like = defaultdict(dict)
    if near is not None:
        for one, other, similarity in near_keys(list(number), near):
            like[one][other] = like[other][one] = similarity
    return group_N, dict(like)


def near_keys(keys: Sequence[Key], near: float) -> Iterator[tuple[int, int, float]]:
    """(i, j, similarity) of all pairs of keys that are near but not the same."""
    of_prompt: dict[str, list[int]] = defaultdict(list)
    for at, (prompt, _) in enumerate(keys):
        of_prompt[prompt].append(at)
    for one, other, share in half_shared(keys):
        yield one, other, share
    prompts = list(of_prompt)
    for at, to, similarity in near_prompts(prompts, near):
        for one in of_prompt[prompts[at]]:
            for other in of_prompt[prompts[to]]:
                few, many = sorted((keys[one][1], keys[other][1]), key=len)
                if not few or 2 * len(few & many) >= len(few):
                    yield one, other, similarity


def half_shared(keys: Sequence[Key]) -> Iterator[tuple[int, int, float]]:
    """(i, j, share) of keys with the same prompt that share half of the choices of the one with fewer."""
    columns: dict[tuple[str, str], int] = {}
    rows = [[columns.setdefault((prompt, choice), len(columns)) for choice in choices] for prompt, choices in keys]
    size_P = np.array([len(row) for row in rows])
    index = np.array([column for row in rows for column in row], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(size_P)])
    choices_PC = sparse.csr_matrix((np.ones(len(index), np.int32), index, starts), (len(keys), len(columns)))
    for i, j, shared in overlaps(choices_PC):
        share = shared / np.minimum(size_P[i], size_P[j])
        for pair in np.flatnonzero(share >= 0.5).tolist():
            yield int(i[pair]), int(j[pair]), float(share[pair])


def near_prompts(prompts: Sequence[str], near: float) -> Iterator[tuple[int, int, float]]:
    """(i, j, similarity), i < j, of all different prompts whose shingles have Jaccard >= near.

    Prefix filtering (Bayardo 2007) with the positional bound of PPJoin (Xiao 2008): with shingles sorted from rare to
    common, two sets of similarity t share one among the first |x| - ceil(t |x|) + 1 of each. So only rare shingles
    are joined, and each candidate is then confirmed by its exact similarity.
    """
    shingles_PS = shingle_matrix(prompts)
    size_P = np.diff(shingles_PS.indptr)
    prefix_P = size_P - np.ceil(near * size_P - 1e-9).astype(int) + 1
    place = np.arange(shingles_PS.nnz) - np.repeat(shingles_PS.indptr[:-1], size_P)
    first = place < np.repeat(prefix_P, size_P)
    row = np.repeat(np.arange(len(size_P)), size_P)[first]
    prefixes_PS = sparse.csr_matrix((np.ones(len(row), np.int32), (row, shingles_PS.indices[first])), shingles_PS.shape)
    last_P = shingles_PS.indices[shingles_PS.indptr[:-1] + prefix_P - 1]
    for at, to, early in overlaps(prefixes_PS):
        # What one set shares with the other beyond its own prefix is at most the rest of it (the one that ends first).
        rest = np.where(last_P[at] <= last_P[to], (size_P - prefix_P)[at], (size_P - prefix_P)[to])
        possible = early + rest >= near / (1 + near) * (size_P[at] + size_P[to]) - 1e-9
        for part in np.array_split(np.flatnonzero(possible), possible.sum() // 100_000 + 1):
            i, j = at[part], to[part]
            shared = np.asarray(shingles_PS[i].multiply(shingles_PS[j]).sum(axis=1)).ravel()
            similarity = shared / np.maximum(size_P[i] + size_P[j] - shared, 1)
            for pair in np.flatnonzero(similarity >= near - 1e-9).tolist():
                yield int(i[pair]), int(j[pair]), float(similarity[pair])


def overlaps(sets_PS: sparse.csr_matrix) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(i, j, how many columns they share) of all pairs i < j that share any, a block of rows at a time."""
    transposed_SP = sets_PS.T.tocsr()
    for start in range(0, sets_PS.shape[0], ROWS_AT_ONCE):
        shared = (sets_PS[start : start + ROWS_AT_ONCE] @ transposed_SP).tocoo()
        upper = shared.row + start < shared.col
        yield shared.row[upper] + start, shared.col[upper], shared.data[upper]


def shingle_matrix(prompts: Sequence[str]) -> sparse.csr_matrix:
    """0/1 matrix of prompts by words and word pairs; columns run from rare to common, indices are sorted."""
    columns: dict[str, int] = {}
    indices, starts = [], [0]
    for prompt in prompts:
        words = prompt.split()
        shingles = {*words, *map(" ".join, itertools.pairwise(words))}
        indices.extend(columns.setdefault(shingle, len(columns)) for shingle in sorted(shingles))
        starts.append(len(indices))
    index = np.array(indices, dtype=np.int64)
    rank = np.empty(len(columns), dtype=np.int64)
    rank[np.argsort(np.bincount(index, minlength=len(columns)), kind="stable")] = np.arange(len(columns))
    matrix = sparse.csr_matrix((np.ones(len(index), np.int32), rank[index], starts), (len(prompts), len(columns)))
    matrix.sort_indices()
    return matrix


def remove_leaks(
    train: Sequence[Example], suite: Sequence[Example], *, near: float | None = 0.8
) -> tuple[list[Example], list[Leak]]:
    """(train without duplicates of questions of `suite`, what was removed and why). The suite is unchanged."""
    group_N, like = groups([*train, *suite], near=near)
    held = {group: example.id for group, example in zip(group_N[len(train) :].tolist(), suite, strict=True)}
    kept, leaks = [], []
    for example, group in zip(train, group_N[: len(train)].tolist(), strict=True):
        leak = leak_of(example.id, group, held, like)
        if leak is None:
            kept.append(example)
        else:
            leaks.append(leak)
    return kept, leaks


def leak_of(key: str, group: int, held: dict[int, str], like: Like) -> Leak | None:
    """Why the question `key` of `group` is removed when the groups `held` (group -> id) are held out, or None."""
    if group in held:
        return Leak(key, held[group], "exact", 1.0)
    nearest = max(((s, other) for other, s in like.get(group, {}).items() if other in held), default=None)
    if nearest is None:
        return None
    return Leak(key, held[nearest[1]], "near", nearest[0])
