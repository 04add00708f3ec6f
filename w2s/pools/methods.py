"""Every method of combining a fixed pool's answers: fit on questions with gold, apply to questions without.

A method is `(opinions, truth, *, options) -> Fitted`; the Fitted's kind says how it is applied (`APPLY`). Each
function of `alphas.ALPHAS` is a method as well: the vote with these alphas. The families are listed in `FAMILIES`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from w2s.config.registry import options, pick
from w2s.ensemble.alphas import ALPHAS, accuracy_log_odds, uniform
from w2s.ensemble.ballots import Ballots, NotApplicable
from w2s.ensemble.combiners import log_odds, mean_probability
from w2s.ensemble.subsets import SUBSETS
from w2s.ensemble.votes import count_votes, vote_shares
from w2s.pools import cascades, frugal, label_models, routing, stacking, trees
from w2s.pools.records import ABSTAINED, NOT_ASKED, Decision, Fitted, Opinions, Truth, ballots
from w2s.store.records import BadInput


def best_single(opinions: Opinions, truth: Truth) -> Fitted:
    """The member that is right most often, alone: what every other method has to beat.

    A member is not right where it was not asked. Ties go to the first name.
    """
    right_M = np.nan_to_num(truth.right_MN[:, truth.known_N]).mean(1)
    level = np.sort(opinions.members[right_M >= right_M.max() - 1e-12])
    return Fitted("member", level[:1], {})


def apply_member(fitted: Fitted, opinions: Opinions, point: int) -> Decision:
    silent_N = np.isin(opinions.answer_MN[0], (ABSTAINED, NOT_ASKED))
    return Decision(silent_N, member_N=np.zeros(len(opinions.ids), dtype=int))


def plurality(alpha_R: np.ndarray, ballots: Ballots) -> np.ndarray:
    """The candidate with the most votes; a tie goes to the side with the more accurate members."""
    return uniform(alpha_R, ballots)


def mean_of_probabilities(opinions: Opinions, truth: Truth) -> Fitted:
    """The plain mean of the recorded probabilities; a member without them does not count."""
    return Fitted("probabilities", needs_probabilities(opinions), {"logarithmic": np.array(False)})


def log_pool(opinions: Opinions, truth: Truth) -> Fitted:
    """The mean of the log-probabilities (a logarithmic opinion pool; Genest and Zidek 1986)."""
    return Fitted("probabilities", needs_probabilities(opinions), {"logarithmic": np.array(True)})


def needs_probabilities(opinions: Opinions) -> np.ndarray:
    """The members; NotApplicable if no choice probabilities were recorded."""
    if opinions.probs_MNK is None:
        raise NotApplicable("no choice probabilities were recorded")
    return opinions.members


def apply_probabilities(fitted: Fitted, opinions: Opinions, point: int) -> Decision:
    """The pooled probabilities over the members that have any for the question."""
    needs_probabilities(opinions)
    silent_MN = ~np.isfinite(opinions.probs_MNK).all(2) | (np.nansum(opinions.probs_MNK, axis=2) < 0.5)
    uniform_NK = opinions.mask_NK / np.maximum(opinions.count_N, 1)[:, None]
    probs_MNK = np.where(silent_MN[..., None], uniform_NK, opinions.probs_MNK)
    how = log_odds if fitted.arrays["logarithmic"] else mean_probability
    return Decision(silent_MN.all(0), how(probs_MNK, opinions.mask_NK, np.ones(len(probs_MNK)), silent_MN))


def vote(opinions: Opinions, truth: Truth, weigh: Callable[[np.ndarray, Ballots], np.ndarray]) -> Fitted:
    """The weighted vote with the alphas that `weigh` finds; a tie goes to the side with the more accurate members."""
    if (opinions.members[1:] < opinions.members[:-1]).any():
        # By name: nothing else breaks ties between voters.
        order = np.argsort(opinions.members)
        truth = dataclasses.replace(truth, right_MN=truth.right_MN[order])
        opinions = opinions.only(opinions.members[order])
    evidence = ballots(opinions, truth)
    alpha_M = np.asarray(weigh(np.ones(len(opinions.members)), evidence), dtype=np.float64)
    used = np.flatnonzero(alpha_M > 0)
    tie_M = accuracy_log_odds(alpha_M, evidence)
    scale = alpha_M.max() * 1e-6 / max(tie_M.max(), 1e-12)
    # Unused members are not part of the fitted vote: they need not be asked again.
    return Fitted("vote", opinions.members[used], {"alpha_M": (alpha_M + scale * tie_M)[used]})


def apply_vote(fitted: Fitted, opinions: Opinions, point: int) -> Decision:
    """The shares of the votes; a question without a vote is an abstention."""
    votes_NK = count_votes(opinions.answer_MN, opinions.mask_NK.shape[1], fitted.arrays["alpha_M"])
    return Decision(~votes_NK.any(1), vote_shares(votes_NK))


def fit(spec: Mapping[str, Any] | str, opinions: Opinions, truth: Truth) -> Fitted:
    """Fit the method that `spec` ({name: ..., **options}, or a name) names, on the questions that have gold.

    Raises BadInput for an unknown method or option, NotApplicable if the data lack what the method needs.
    """
    name = spec if isinstance(spec, str) else spec.get("name")
    method = pick(METHODS, spec, key="methods")
    return vote(opinions, truth, method) if name in BALLOTS else method(opinions, truth)


def apply(fitted: Fitted, opinions: Opinions, point: int | None = None) -> Decision:
    """A fitted method's Decision; `opinions` may hold other members too, and the decision's positions refer to it."""
    if fitted.kind not in APPLY:
        raise BadInput(f"kind: {fitted.kind!r} is not known; it can be: {', '.join(APPLY)}")
    decision = APPLY[fitted.kind](fitted, opinions.only(fitted.members), fitted.point if point is None else point)
    place = {name: at for at, name in enumerate(opinions.members.tolist())}
    place_M = np.array([place[name] for name in fitted.members.tolist()])
    asked_MN = np.zeros(opinions.answer_MN.shape, dtype=bool)
    asked_MN[place_M] = True if decision.asked_MN is None else decision.asked_MN
    asked_MN &= opinions.answer_MN != NOT_ASKED
    member_N = None if decision.member_N is None else np.where(decision.member_N >= 0, place_M[decision.member_N], -1)
    probs_NK = decision.probs_NK
    if probs_NK is not None and not probs_NK.shape[1]:
        probs_NK = np.zeros((len(probs_NK), 1))  # open questions that nobody answered: there is no candidate at all
    return dataclasses.replace(decision, asked_MN=asked_MN, member_N=member_N, probs_NK=probs_NK)


def online(spec: Mapping[str, Any]) -> Callable[..., dict[str, np.ndarray]]:
    """The online protocol of a method, (opinions, truth, *, seed) -> right_N by name, with the options of `spec`.

    A method and its protocol share options by name; the others keep their defaults, and the caller gives the seed.
    """
    protocol = ONLINE[spec["name"]]
    shared = options(METHODS[spec["name"]]).keys() & options(protocol).keys() - {"seed"}
    return functools.partial(protocol, **{name: value for name, value in spec.items() if name in shared})


VOTES = {name: ALPHAS[name] for name in ("best_single", "accuracy_log_odds", "decorrelated")}
VOTES |= {"plurality": plurality, "best_single": best_single}
VOTES |= {"mean_of_probabilities": mean_of_probabilities, "log_pool": log_pool}
FAMILIES: dict[str, dict[str, Callable]] = {
    "votes": VOTES,
    "label models": label_models.METHODS,
    "boosting": {name: ALPHAS[name] for name in ("samme", "bagging")},
    "stacking": {**stacking.METHODS, **trees.METHODS},
    "selection": SUBSETS,
    "routing": routing.METHODS,
    "cascades": {**frugal.METHODS, **cascades.METHODS},
}
METHODS = {name: method for family in FAMILIES.values() for name, method in family.items()}
BALLOTS = {"plurality"} | {name for name, method in METHODS.items() if method is ALPHAS.get(name)}
"""The methods that weigh the voters of a vote."""
ALL = list(METHODS)
"""What "all" stands for; methods of plug-ins, which are added later, must be named (RL-Focal trains for minutes)."""
APPLY = {"member": apply_member, "vote": apply_vote, "probabilities": apply_probabilities}
for module in (label_models, stacking, trees, routing, frugal, cascades):
    APPLY |= module.APPLY
ONLINE: dict[str, Callable[..., dict[str, np.ndarray]]] = {}
"""Method -> its online protocol, (opinions, truth, *, seed) -> right_N by name. Plug-ins fill it."""
