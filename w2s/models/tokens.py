"""Written answers token by token: each token's place, its weight in training, and its soft target.

Tokens are those of `batches.encode` for an example's only candidate, row by row. T tokens, J soft targets.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from w2s.boosting import tokens
from w2s.models import batches
from w2s.models.chat import find_end
from w2s.models.records import Encoded, Loaded
from w2s.models.tokenizing import bare
from w2s.store.records import BadInput, Example, TokenTargets, TokenWeights


def layout(loaded: Loaded, examples: Sequence[Example]) -> TokenWeights:
    """The tokens of each example's only candidate, as `encode` makes them, with uniform weights.

    start_T and end_T are character offsets in the text of `choices` and never decrease along a row; the space between a
    prompt and its answer does not count. The end token is at the text's end and has no characters. BadInput if the
    tokenizer has no offsets (not fast); ValueError unless each example has one candidate.
    """
    tokenizer = loaded.tokenizer
    if not tokenizer.is_fast:
        raise BadInput(f"model.path: {loaded.model.path}: its tokenizer does not give its tokens' offsets (not fast)")
    many = [example.id for example in examples if len(example.choices) != 1]
    if many:
        raise ValueError(f"{len(many)} examples have not one candidate each ({', '.join(many[:3])})")
    words = batches.worded(loaded, examples)
    prompts, texts = [row.prompt for row in words], [row.answers[0] for row in words]
    rows = [encoded.rows[0].token_P.tolist() for encoded in batches.encode(loaded, examples)]
    alone = with_offsets(tokenizer, texts) if texts else {}
    places = [find_spans(row, alone, at, 0, 0) for at, row in enumerate(rows)]
    # Where tokens merge across the border, the text adds other tokens to its prompt than it has on its own.
    merged = [at for at, place_T2 in enumerate(places) if place_T2 is None]
    if merged:
        starts = bare(tokenizer, [prompts[at] for at in merged])
        whole = with_offsets(tokenizer, [prompts[at] + texts[at] for at in merged])
        for place, at in enumerate(merged):
            places[at] = find_spans(rows[at], whole, place, len(starts[place]), len(prompts[at]))
    parts = [np.zeros((0, 2), dtype=np.int64)]
    for example, answer, row, place_T2 in zip(examples, texts, rows, places, strict=True):
        text = example.choices[0]
        if place_T2 is None:
            raise ValueError(f"{example.id}: its tokens are not found in its text")
        # An answer begins with a space of its own, or none; code keeps the white space around it.
        place_T2 += len(answer.lstrip()) - len(answer) + len(text) - len(text.lstrip())
        parts.append(np.maximum.accumulate(place_T2.clip(0, len(text)), axis=0))
        if len(row) > len(place_T2):
            parts.append(np.full((1, 2), len(text)))
    length_N = np.array([len(row) for row in rows], dtype=np.int64)
    start_T, end_T = np.concatenate(parts).T
    ids = np.array([example.id for example in examples], dtype=str)
    return TokenWeights(ids, length_N, start_T, end_T, tokens.uniform(length_N), fingerprint(loaded))


def with_offsets(tokenizer: Any, texts: Sequence[str]) -> Any:
    """Tokens of texts as in `tokenizing.bare`, with the offsets of each."""
    return tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)


def find_spans(row: list[int], texts: Any, at: int, begin: int, offset: int) -> np.ndarray | None:
    """Where the tokens of `row` begin and end in text `at` after `offset`, if they are its tokens from `begin` on.

    The end token, which the text lacks, is left out; a text may have been cut.
    """
    own, place = texts["input_ids"][at][begin:], texts["offset_mapping"][at][begin:]
    count = min(len(own), len(row))
    if row[:count] != own[:count] or len(row) > count + 1:
        return None
    return np.array(place[:count], dtype=np.int64).reshape(-1, 2) - offset


def factors(weights: TokenWeights, places: TokenWeights, fit_N: np.ndarray, *, drawn: bool) -> list[np.ndarray]:
    """The factor of each token's loss (T, for each row of `places`); its mean is 1 over the tokens trained on.

    `weights` may be of another tokenizer and of more rows; `fit_N` are the positions of the rows to fit on. If rows are
    `drawn` by their weights, a factor is the token's share of its row times the mean length of a row, so that both ways
    have the same expectation: each token's loss times its weight.
    """
    carried = tokens.carry(tokens.take_rows(weights, np.isin(weights.ids, places.ids)), places)
    length_N = places.length_N
    if drawn:
        factor_T = tokens.by_row(carried)[1] * length_N[fit_N].mean()
    else:
        factor_T = carried.weight_T * (length_N[fit_N].sum() / tokens.by_row(carried)[0].weight_N[fit_N].sum())
    return np.split(factor_T, np.cumsum(length_N)[:-1])


def soft_targets(soft: TokenTargets, places: TokenWeights) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ids and probabilities (T, J) for each row of `places`; BadInput if its tokens are not those of `soft`."""
    needs = "label.made: distribution needs a student with the learners' tokenizer"
    if soft.tokenizer != places.tokenizer:
        raise BadInput(f"{needs}; {places.tokenizer} given, the targets were made with {soft.tokenizer}")
    soft = tokens.gathered([tokens.take_rows(soft, np.isin(soft.ids, places.ids))], places.ids)
    other = np.flatnonzero(soft.length_N != places.length_N)
    if len(other):
        first = other[0]
        why = f"{soft.ids[first]}: {places.length_N[first]}, not {soft.length_N[first]}; does train.max_tokens cut it?"
        raise BadInput(f"{needs}; {len(other)} answers differ in tokens from their targets ({why})")
    ends = np.cumsum(soft.length_N)[:-1]
    return list(zip(np.split(soft.token_TJ, ends), np.split(soft.prob_TJ, ends), strict=True))


def text_lengths(encoded: Sequence[Encoded], target_NK: np.ndarray) -> np.ndarray:
    """How many tokens each example's text has; for several candidates, the mean under their targets."""
    owners = [(np.concatenate([row.owner_P for row in example.rows]), example.count) for example in encoded]
    counts = [np.bincount(owner_P, minlength=count) for owner_P, count in owners]
    return np.array([count @ target_K[: len(count)] for count, target_K in zip(counts, target_NK, strict=True)])


def fingerprint(loaded: Loaded) -> str:
    """16 hex digits that two models share if they cut every text alike and end it with the same token."""
    tokenizer = loaded.tokenizer
    if tokenizer.is_fast:
        whole = json.loads(tokenizer.backend_tokenizer.to_str())
        parts = {key: whole.get(key) for key in ("added_tokens", "normalizer", "pre_tokenizer", "model")}
    else:
        parts = tokenizer.get_vocab()
    text = json.dumps([parts, find_end(loaded)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
