"""What to know about a recorded pool before trusting it: gaps, and signs of wrong labels."""

import numpy as np
from scipy.stats import binom

from w2s.pools.records import ABSTAINED, NOT_ASKED, NOT_RECORDED, Opinions, Truth

LEVEL = 0.05
EVERYONE = "all agree"  # stands for a member in `find_suspicious`


def pool_notes(opinions: Opinions, truth: Truth) -> list[str]:
    """One sentence per finding: abstentions, gaps, missing gold, flags against gold, suspicious labels."""
    notes = [*answer_notes(opinions), *truth_notes(opinions, truth)]
    if opinions.cost_MN is not None and (gaps := np.isnan(opinions.cost_MN) & (opinions.answer_MN != NOT_ASKED)).any():
        notes.append(f"{gaps.sum():,} answers have no cost: their member's mean stands in (--costs gives prices)")
    suspects = find_suspicious(opinions, truth)
    for group in dict.fromkeys(group for group, *_ in suspects):
        here = [suspect for suspect in suspects if suspect[0] == group]
        _, member, accuracy, chance, n = min(here, key=lambda suspect: suspect[2] - suspect[3])
        who = "what all members agree on is" if member == EVERYONE else f"{member} is"
        why = ", unless they are near copies" if member == EVERYONE else ""
        more = len(here) - 1
        notes.append(
            f"wrong labels? in {group or 'the questions'} {who} right in {accuracy:.1%} of {n:,}, "
            f"below {chance:.1%}{f' ({more} more such)' if more else ''}: look at the gold{why}"
        )
    return notes


def answer_notes(opinions: Opinions) -> list[str]:
    answer_MN, size = opinions.answer_MN, opinions.answer_MN.shape[1]
    notes, asked_M = [], np.count_nonzero(answer_MN != NOT_ASKED, axis=1)
    empty_M = np.count_nonzero(answer_MN == ABSTAINED, axis=1)
    empty, asked = empty_M.sum(), asked_M.sum()
    if empty:
        share_M = empty_M / np.maximum(asked_M, 1)
        often = [at for at in np.argsort(-share_M, kind="stable") if share_M[at] > 0.05]
        named = first_five([f"{opinions.members[at]} {share_M[at]:.1%}" for at in often])
        above = f"; above 5%: {named}" if often else ""
        notes.append(f"{empty:,} of {asked:,} answers are abstentions ({empty / max(asked, 1):.1%}){above}")
    if hidden := (answer_MN == NOT_RECORDED).any(0).sum():
        notes.append(f"in {hidden:,} of {size:,} questions the answers were not recorded, only whether they are right")
    short = np.flatnonzero(asked_M < size)
    if len(short):
        named = first_five([f"{opinions.members[at]} {asked_M[at]:,}" for at in short[np.argsort(asked_M[short])]])
        notes.append(f"{len(short)} members were not asked all {size:,} questions: {named}")
    return notes


def first_five(words: list[str]) -> str:
    return ", ".join(words[:5]) + (f" and {len(words) - 5} more" if len(words) > 5 else "")


def truth_notes(opinions: Opinions, truth: Truth) -> list[str]:
    size, notes = len(truth.ids), []
    flagged_N = np.isfinite(truth.right_MN).any(0)
    lacking_N = (truth.gold_N == -2) & ~flagged_N
    if lacking_N.any():
        notes.append(f"{lacking_N.sum():,} of {size:,} questions have neither gold nor flags: they are not used")
    alone_N = (truth.gold_N == -2) & flagged_N & (opinions.answer_MN >= 0).any(0)
    if alone_N.any():
        notes.append(f"{alone_N.sum():,} of {size:,} questions have flags but no gold: votes cannot be judged on them")
    against = 0
    for answer_N, right_N in zip(opinions.answer_MN, truth.right_MN, strict=True):
        differs_N = np.abs(((answer_N >= 0) & (answer_N == truth.gold_N)) - right_N) > 0.5
        against += np.count_nonzero((truth.gold_N > -2) & (answer_N >= ABSTAINED) & differs_N)
    if against:
        notes.append(f"{against:,} flags disagree with the gold answer: the flag is trusted")
    return notes


def find_suspicious(opinions: Opinions, truth: Truth) -> list[tuple[str, str, float, float, int]]:
    """(group, member, accuracy, chance, n) where members are right far below chance: a sign of flipped or shifted gold.

    The exact binomial test of right answers among n, one-sided, at LEVEL over all members and groups together
    (Bonferroni); chance is the mean of 1/candidates. Abstentions do not count. Where three or more members agree, that
    answer is one more member, named EVERYONE, whose chance is at least a half: models may share an error, but not
    on most of what they agree on. Only questions with choices are tested: for others the chance is unknown.

    A model can truly be below chance, and flipped labels stay hidden in a task on which all are near chance.
    """
    answer_MN, right_MN = opinions.answer_MN, truth.right_MN
    groups, group_N = np.unique(opinions.group_N, return_inverse=True)
    tested_N = choice_questions(opinions, truth, group_N, len(groups))
    rows = []
    for member, answer_N, right_N in zip(opinions.members, answer_MN, right_MN, strict=True):
        used_N = tested_N & (answer_N >= 0) & np.isfinite(right_N)
        rows.append((str(member), used_N, right_N, 0.0))
    if len(answer_MN) >= 3:
        agreed_N = tested_N & (answer_MN[0] >= 0) & (truth.gold_N > -2)
        for answer_N in answer_MN[1:]:
            agreed_N &= answer_N == answer_MN[0]
        rows.append((EVERYONE, agreed_N, answer_MN[0] == truth.gold_N, 0.5))
    suspects, chance_N = [], 1 / np.maximum(opinions.count_N, 1)
    for member, used_N, right_N, least in rows:
        columns = (None, right_N[used_N], chance_N[used_N])
        n_G, hit_G, chance_G = (np.bincount(group_N[used_N], values, len(groups)) for values in columns)
        chance_G = np.maximum(chance_G / np.maximum(n_G, 1), least)
        p_G = np.where(n_G > 0, binom.cdf(np.floor(hit_G), n_G, chance_G), 1)
        for at in np.flatnonzero(p_G < LEVEL / (len(rows) * len(groups))):
            suspects.append((str(groups[at]), member, float(hit_G[at] / n_G[at]), float(chance_G[at]), int(n_G[at])))
    return sorted(suspects)


def choice_questions(opinions: Opinions, truth: Truth, group_N: np.ndarray, groups: int) -> np.ndarray:
    """Which questions are in groups that offer choices.

    The candidates of an open question are its answers, so each was given by some member, and gold may be missing.
    """
    given_N = np.zeros(len(group_N), np.int32)
    for k in range(int(opinions.count_N.max(initial=0))):
        given_N += (opinions.answer_MN == k).any(0)
    spare_G = np.bincount(group_N, weights=given_N < opinions.count_N, minlength=groups) > 0
    lost_G = np.bincount(group_N, weights=truth.gold_N == -1, minlength=groups) > 0
    return (spare_G & ~lost_G)[group_N]
