"""AdaBoost on tokens: every supervised token of an answer is a sample with a weight of its own (EnsemW2S).

Tokens are flat arrays without padding, row after row: row n has the next length_N[n] tokens (0 is allowed). Their
weights sum to 1 over the set. wrong_T is 0 (right), 1 (wrong) or the share of a tie, under teacher forcing, on rows
that the learner did not train on. A round is `adaboost.boosting_round` with tokens, or whole answers, as samples.

Letters: N rows, T tokens of all rows, S samples (T or N), C characters of all rows, V vocabulary. Sums over the set are
exact and sums over a row follow its own order, so the order of the rows changes no bit of a result.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import numpy as np

from w2s.boosting import adaboost
from w2s.store.records import BadInput, Round, TokenRanks, TokenTargets, TokenWeights, Weights, align

Tokens = TypeVar("Tokens", TokenWeights, TokenRanks, TokenTargets)


def wrongness(above_T: np.ndarray, tied_T: np.ndarray) -> np.ndarray:
    """wrong_T, 0 to 1: how wrong each token's prediction is, from two counts over the vocabulary.

    above_T counts the tokens whose logit is above the right one's, tied_T those whose logit equals it (itself
    included). It is 1 - 1/t if t tokens tie for the best, as in `adaboost.wrongness`: a model without an opinion errs
    as often as chance.
    """
    above_T, tied_T = np.asarray(above_T), np.asarray(tied_T)
    if (above_T < 0).any() or (tied_T < 1).any():
        raise ValueError("above must be counts >= 0, and tied counts >= 1: the right token equals itself")
    return np.where(above_T > 0, 1.0, 1 - 1 / tied_T)


def uniform(length_N: np.ndarray, *, by: Literal["token", "answer"] = "token") -> np.ndarray:
    """The weights before the first round, sum 1: equal for all tokens, or for all rows, each shared by its tokens."""
    length_N = np.asarray(length_N)
    if not length_N.any():
        raise ValueError("there is no token to weigh")
    weight_T = np.ones(length_N.sum()) if by == "token" else share_out(np.ones(len(length_N)), length_N)
    return adaboost.normalise(weight_T)


def token_round(
    index: int,
    learner: str,
    weight_T: np.ndarray,
    wrong_T: np.ndarray,
    length_N: np.ndarray,
    untrained_wrong_T: np.ndarray | None = None,
    judged_N: np.ndarray | None = None,
    count_T: np.ndarray | None = None,
    *,
    booster: Callable,
    vocabulary: int,
    by: Literal["token", "answer"] = "token",
    window: int = 0,
    cap: float | None = None,
    share_floor: float = 0.0,
    least_share: float = 0.0,
) -> tuple[Round, np.ndarray]:
    """One round over tokens: its Round record and weight_T of the next round (sum 1).

    `booster` is one of `adaboost.BOOSTERS`. The chance error of tokens is (V-1)/V; nearly every model beats that, so
    `ensemw2s` with the untrained base's error (untrained_wrong_T, same tokens and weights) is the sounder reference.
    judged_N (bool): the rows that the learner did not train on, where errors are measured (default: all). count_T
    (bool): the tokens that carry the answer (default: all); the others are neither judged nor raised for a miss.

    The samples are tokens or, `by` = "answer", rows. `window` > 0: a miss also raises its neighbours (`near_misses`);
    the error stays that of the misses. The weights are then tempered to an effective share of samples of at least
    `share_floor`, and capped (`cap_weights`).
    """
    wrong_T = adaboost.check_wrong(wrong_T, len(adaboost.check_weights(weight_T)))
    length_N = np.asarray(length_N)
    if length_N.sum() != len(wrong_T) or (length_N < 0).any():
        raise ValueError(f"the rows have {length_N.sum()} tokens together, but {len(wrong_T)} weights were given")
    count_T = np.ones(len(wrong_T), dtype=bool) if count_T is None else np.asarray(count_T, dtype=bool)
    judged_N = np.ones(len(length_N), dtype=bool) if judged_N is None else np.asarray(judged_N, dtype=bool)
    judged_N, length_N = judged_N[length_N > 0], length_N[length_N > 0]  # a row without tokens is no sample
    if by == "token":  # tokens that do not count are not judged, and fare like tokens that were right
        choices_T, judged_T = np.full(len(wrong_T), vocabulary), np.repeat(judged_N, length_N) & count_T
        samples = adaboost.Samples(weight_T, wrong_T * count_T, choices_T, untrained_wrong_T, judged_T)
    else:
        samples = answers_as_samples(weight_T, wrong_T, untrained_wrong_T, length_N, judged_N, count_T, vocabulary)
    if not samples.judged_S.any():
        raise ValueError("no row that is judged has a token that counts")
    record, new_S = adaboost.boosting_round(index, learner, samples, booster=booster, least_share=least_share)
    if window:
        near_T = near_misses(samples.wrong_S, length_N, window) * count_T - samples.wrong_S
        record, new_S = raise_neighbours(record, new_S, near_T, booster=booster, least_share=least_share)
    new_S, _ = adaboost.keep_effective_share(new_S, share_floor)
    return record, cap_weights(new_S if by == "token" else share_out(new_S, length_N), cap=cap)


def answers_as_samples(
    weight_T: np.ndarray,
    wrong_T: np.ndarray,
    untrained_wrong_T: np.ndarray | None,
    length_N: np.ndarray,
    judged_N: np.ndarray,
    count_T: np.ndarray,
    vocabulary: int,
) -> adaboost.Samples:
    """A row weighs what its tokens weigh together, and is wrong if any counted token is; chance is 1 - V^-L."""
    counted_N, weight_N = row_sums(count_T, length_N), row_sums(weight_T, length_N)
    with np.errstate(over="ignore"):
        choices_N = float(vocabulary) ** counted_N
    untrained_N = None if untrained_wrong_T is None else answer_wrong(untrained_wrong_T, length_N, count_T)
    wrong_N = answer_wrong(wrong_T, length_N, count_T)
    return adaboost.Samples(weight_N, wrong_N, choices_N, untrained_N, judged_N & (counted_N > 0))


def raise_neighbours(
    record: Round, new_T: np.ndarray, near_T: np.ndarray, *, booster: Callable, least_share: float
) -> tuple[Round, np.ndarray]:
    """A round's new weights, raised by exp(alpha·near_T) on top, and its record with their effective share."""
    if record.alpha <= 0 or booster(0.5, 0.5, 0.5)[1] is None:  # bagging, with nothing to beat, leaves the weights
        return record, new_T
    new_T = adaboost.reweight(new_T, near_T, record.alpha)
    share = adaboost.effective_share(new_T)
    stop = adaboost.stop_reason(record.error, record.alpha, 1.0, share, least_share=least_share)
    return dataclasses.replace(record, effective_share=share, stop=stop), new_T


def near_misses(wrong_T: np.ndarray, length_N: np.ndarray, window: int) -> np.ndarray:
    """near_T, 0 to 1: the largest wrong·(1 - d/(window+1)) over the tokens of the same row at distance d <= window."""
    row_T = np.repeat(np.arange(len(length_N)), length_N)
    raised_T = np.array(wrong_T, dtype=np.float64)
    for distance in range(1, min(window, int(np.max(length_N)) - 1) + 1):
        near_T = wrong_T * (1 - distance / (window + 1))
        same = row_T[distance:] == row_T[:-distance]
        raised_T[distance:] = np.maximum(raised_T[distance:], near_T[:-distance] * same)
        raised_T[:-distance] = np.maximum(raised_T[:-distance], near_T[distance:] * same)
    return raised_T


def answer_wrong(wrong_T: np.ndarray, length_N: np.ndarray, count_T: np.ndarray | None = None) -> np.ndarray:
    """wrong_N, 0 to 1: whether any counted token of a row is wrong, 1 - Π (1 - wrong); without counted tokens, 0.

    With ties it is the probability of a wrong token when they are broken at random.
    """
    wrong_T = np.asarray(wrong_T, dtype=np.float64)
    counted_T = wrong_T if count_T is None else wrong_T * np.asarray(count_T, dtype=bool)
    with np.errstate(divide="ignore"):
        return np.clip(-np.expm1(row_sums(np.log1p(-counted_T), length_N)), 0.0, 1.0)


def cap_weights(weight_T: np.ndarray, *, cap: float | None) -> np.ndarray:
    """The weights with none above `cap` times their mean, sum 1. None: no cap.

    The excess goes to the others in proportion to their weights: min(scale·w, limit) with the one scale that gives
    a sum of 1 (the nearest such weights by Kullback-Leibler). Order and ratios below the cap stay, weights of 0 stay 0.
    A cap that the tokens of weight above 0 cannot fill is a BadInput.
    """
    weight_T = adaboost.normalise(adaboost.check_weights(weight_T))
    if cap is None:
        return weight_T
    limit = cap / len(weight_T)
    some = int((weight_T > 0).sum())
    if not limit * some >= 1 - 1e-12:
        raise BadInput(f"cap: {cap!r} of the mean given, but {some} tokens with weight cannot fill it to 1")
    if weight_T.max() <= limit:
        return weight_T
    if limit * some <= 1 + 1e-12:
        return np.where(weight_T > 0, 1 / some, 0.0)
    falling_T = -np.sort(-weight_T)
    behind_T = np.cumsum(falling_T[::-1])[::-1]  # the weight of the k-th heaviest and all lighter ones
    scale_T = (1 - limit * np.arange(some)) / behind_T[:some]
    # The fewest heaviest weights to hold at the limit such that the next one comes out below it.
    full = int(np.argmax(scale_T * falling_T[:some] <= limit))
    free = weight_T < falling_T[full - 1]
    scale = (1 - limit * int((~free).sum())) / math.fsum(weight_T[free])
    return np.where(free, np.minimum(weight_T * scale, limit), limit)


def by_row(weights: TokenWeights) -> tuple[Weights, np.ndarray]:
    """The rows' weights, and each token's share of its row (sum 1 in each row; equal shares in a row of weight 0).

    For a trainer that draws rows by weight: the shares weigh the tokens' losses in a drawn row, so the expected loss is
    Σ weight·loss over all tokens.
    """
    weight_N = row_sums(weights.weight_T, weights.length_N)
    mass_T = np.repeat(weight_N, weights.length_N)
    equal_T = share_out(np.ones(len(weights.ids)), weights.length_N)
    return Weights(weights.ids, weight_N), np.divide(weights.weight_T, mass_T, out=equal_T, where=mass_T > 0)


def take_rows(record: Tokens, index_N: np.ndarray) -> Tokens:
    """The rows `index_N` (positions, or a mask) with all their tokens; the weights are unchanged (sum <= 1)."""
    index_N = np.arange(len(record.ids))[index_N]
    length_N = np.asarray(record.length_N)
    at_T = ranges((np.cumsum(length_N) - length_N)[index_N], length_N[index_N])
    names = [f.name for f in dataclasses.fields(record) if f.name.endswith(("_T", "_TJ"))]
    tokens = {name: getattr(record, name)[at_T] for name in names}
    return dataclasses.replace(record, ids=record.ids[index_N], length_N=length_N[index_N], **tokens)


def gathered(parts: Sequence[Tokens], ids: np.ndarray) -> Tokens:
    """Records of different rows as one, in the order of `ids`; a ValueError if these are not its ids."""
    names = [f.name for f in dataclasses.fields(parts[0]) if isinstance(getattr(parts[0], f.name), np.ndarray)]
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    whole = dataclasses.replace(parts[0], **arrays)
    return take_rows(whole, align(Weights(whole.ids, np.arange(len(whole.ids))), ids).weight_N)


def layout(ranks: TokenRanks, weight_T: np.ndarray) -> TokenWeights:
    """weight_T as a record, on the tokens of `ranks`."""
    return TokenWeights(ranks.ids, ranks.length_N, ranks.start_T, ranks.end_T, weight_T, ranks.tokenizer)


def overlapping(weights: TokenWeights, from_N: np.ndarray, to_N: np.ndarray) -> np.ndarray:
    """count_T (bool): the tokens that share a character with [from_N, to_N) of their row's answer."""
    end_T = np.maximum(weights.end_T, weights.start_T + 1)
    return (weights.start_T < np.repeat(to_N, weights.length_N)) & (end_T > np.repeat(from_N, weights.length_N))


def carry(weights: TokenWeights, to: TokenWeights) -> TokenWeights:
    """The weights moved to the tokens of `to` (whose own weights are not read): the same ids, in its order.

    With the same tokenizer they are the same numbers. With another, each token's weight is spread evenly over its
    characters, and each character's weight over the tokens of `to` that have it (the pieces of a multi-byte character
    share it). Each row keeps its weight. So that nothing is lost, a token without characters (the end of the text:
    start = end = the text's length) has the character that begins there, and a character without a token (a space that
    a tokenizer drops) belongs to the next token with characters of its own, or at the end to the last token.

    Uniform weights do not stay uniform: a long token gets more than a short one. Raises a ValueError if the ids differ,
    if a row with weight has no token in `to`, or if the same tokenizer split a row differently.
    """
    position = align(Weights(weights.ids, np.arange(len(weights.ids))), to.ids).weight_N
    weights = take_rows(weights, position)
    if weights.tokenizer == to.tokenizer:
        if not all(np.array_equal(getattr(weights, n), getattr(to, n)) for n in ("length_N", "start_T", "end_T")):
            raise ValueError(f"tokenizer {to.tokenizer} split these answers differently before: the texts differ")
        return weights
    lost_N = (row_sums(weights.weight_T, weights.length_N) > 0) & (np.asarray(to.length_N) == 0)
    if lost_N.any():
        raise ValueError(f"{lost_N.sum()} rows have weight and no token to carry it to ({to.ids[lost_N][0]})")
    width_N = np.maximum(widths(weights), widths(to))
    from_C, source_C = characters(weights, width_N)
    to_C, target_C = characters(to, width_N)
    size_T = np.bincount(source_C, minlength=len(weights.weight_T))
    mass_C = np.bincount(from_C, (weights.weight_T / size_T)[source_C], minlength=width_N.sum())
    covers_C = np.maximum(np.bincount(to_C, minlength=width_N.sum()), 1)
    weight_T = np.bincount(target_C, (mass_C / covers_C)[to_C], minlength=len(to.start_T))
    return dataclasses.replace(to, weight_T=weight_T)


def widths(weights: TokenWeights) -> np.ndarray:
    """width_N: the characters of each row up to the end of its last token; 0 in a row without tokens."""
    length_N, width_N = np.asarray(weights.length_N), np.zeros(len(weights.ids), dtype=np.int64)
    last_N = np.cumsum(length_N)[length_N > 0] - 1
    width_N[length_N > 0] = np.maximum(weights.end_T, weights.start_T + 1)[last_N]
    return width_N


def characters(weights: TokenWeights, width_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of a character (numbered through the rows, width_N each) and a token that has it."""
    length_N = np.asarray(weights.length_N)
    start_T, end_T = np.array(weights.start_T), np.maximum(weights.end_T, weights.start_T + 1)
    first_T = ranges(np.zeros(len(length_N), dtype=np.int64), length_N) == 0
    before_T = np.where(first_T, 0, np.roll(end_T, 1))
    if (start_T < 0).any() or (~first_T & (np.diff(start_T, prepend=0) < 0)).any() or (before_T > end_T).any():
        raise ValueError(f"tokenizer {weights.tokenizer}: a row's tokens do not stand in the order of its characters")
    # A character without a token goes to the next token, or, before a token without characters, to the previous one.
    empty_T = (weights.end_T <= weights.start_T) & ~first_T
    end_T[:-1] = np.where(empty_T[1:], np.maximum(end_T[:-1], start_T[1:]), end_T[:-1])
    start_T = np.where(empty_T, start_T, np.minimum(start_T, before_T))
    end_T[np.cumsum(length_N)[length_N > 0] - 1] = width_N[length_N > 0]
    base_T = np.repeat(np.cumsum(width_N) - width_N, length_N)
    return ranges(base_T + start_T, end_T - start_T), np.repeat(np.arange(len(start_T)), end_T - start_T)


def ranges(begin_N: np.ndarray, length_N: np.ndarray) -> np.ndarray:
    """The ranges [begin_N[n], begin_N[n] + length_N[n]), concatenated."""
    shift_N = begin_N - (np.cumsum(length_N) - length_N)
    return np.arange(int(np.sum(length_N))) + np.repeat(shift_N, length_N)


def row_sums(values_T: np.ndarray, length_N: np.ndarray) -> np.ndarray:
    """Each row's sum over its tokens."""
    return np.bincount(np.repeat(np.arange(len(length_N)), length_N), values_T, minlength=len(length_N))


def share_out(weight_N: np.ndarray, length_N: np.ndarray) -> np.ndarray:
    """weight_T: each row's weight, split equally over its tokens."""
    return np.repeat(weight_N / np.maximum(length_N, 1), length_N)
