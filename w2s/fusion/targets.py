"""Several teachers' distributions at the same place of a text as one, kept as a few tokens and the rest.

Letters: L teachers, B positions, S the student's vocabulary, J tokens that are kept.
"""

from collections.abc import Sequence

import numpy as np

LEAST = 1e-10
"""A probability below which the logarithm of a mixture's part does not go."""


def alphas(weight_L: np.ndarray, nats_L: np.ndarray) -> np.ndarray:
    """Each teacher counts as its alpha says."""
    return weight_L / weight_L.sum()


def mince(weight_L: np.ndarray, nats_L: np.ndarray) -> np.ndarray:
    """Only the teacher to which the text is most probable counts (FuseLLM's MinCE, arXiv 2401.10491)."""
    return np.eye(len(nats_L))[int(np.argmin(nats_L))]


def avgce(weight_L: np.ndarray, nats_L: np.ndarray) -> np.ndarray:
    """Weights in proportion to exp(-nats), with each text's nats per byte (FuseLLM's AvgCE)."""
    exponent_L = np.exp(nats_L.min() - nats_L)
    return exponent_L / exponent_L.sum()


COMBINATIONS = {"alphas": alphas, "mince": mince, "avgce": avgce}
"""(weight_L, nats_L: each teacher's cross-entropy of the text in nats per byte) -> share_L, which sums to 1."""


def mix(parts_LBS: Sequence[np.ndarray], share_L: np.ndarray, *, mixture: str = "linear") -> np.ndarray:
    """probs_BS of the teachers together: their weighted mean, or with log_linear their geometric mean, which keeps the
    mass that they have on the vocabulary on average."""
    if mixture == "linear":
        return sum(share * part for share, part in zip(share_L, parts_LBS, strict=True))
    logs_BS = sum(share * np.log(np.maximum(part, LEAST)) for share, part in zip(share_L, parts_LBS, strict=True))
    made_BS = np.exp(logs_BS - logs_BS.max(1, keepdims=True))
    kept_B = sum(share * part.sum(1) for share, part in zip(share_L, parts_LBS, strict=True))
    return made_BS * (kept_B / made_BS.sum(1))[:, None]


def keep_most(probs_BS: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """token_BJ and prob_BJ of the most probable tokens, in descending order; what they lack to 1 is the rest."""
    count = min(count, probs_BS.shape[1])
    some_BJ = np.argpartition(-probs_BS, count - 1, axis=1)[:, :count]
    order_BJ = np.argsort(-np.take_along_axis(probs_BS, some_BJ, 1), axis=1, kind="stable")
    token_BJ = np.take_along_axis(some_BJ, order_BJ, 1)
    return token_BJ, np.take_along_axis(probs_BS, token_BJ, 1)


def shared_places(teacher_T: np.ndarray, student_S: np.ndarray) -> np.ndarray:
    """For each of the student's tokens, by where it starts, the teacher's token that starts there; -1 where none does.

    Only the start must agree: what follows a common beginning is what both predict. Of several tokens that start at one
    place (a letter cut into bytes), the first counts on both sides, and the others have no partner.
    """
    first: dict[int, int] = {}
    for at, start in enumerate(teacher_T.tolist()):
        first.setdefault(start, at)
    seen: set[int] = set()
    found = []
    for start in student_S.tolist():
        found.append(-1 if start in seen else first.get(start, -1))
        seen.add(start)
    return np.array(found, dtype=np.int64)
