"""Small made-up pools for the tests of combining."""

import numpy as np

from w2s.pools.records import ABSTAINED, Opinions, Truth

WORDS = ("river", "stone", "cloud", "engine", "violin", "planet", "harbour", "lantern", "saddle", "copper")


def made_up(
    seed=0,
    questions=240,
    accuracies=(0.75, 0.65, 0.6, 0.55, 0.45),
    choices=4,
    abstain=0.05,
    costs=True,
    probs=False,
    scores=False,
    groups=3,
):
    """(Opinions, Truth): independent members with these accuracies; each group's prompts begin with its own word."""
    rng = np.random.default_rng(seed)
    members, count_N = len(accuracies), np.full(questions, choices)
    gold_N = rng.integers(choices, size=questions)
    right_MN = rng.random((members, questions)) < np.array(accuracies)[:, None]
    answer_MN = np.where(right_MN, gold_N, (gold_N + rng.integers(1, choices, (members, questions))) % choices)
    answer_MN = np.where(rng.random(answer_MN.shape) < abstain, ABSTAINED, answer_MN).astype(np.int16)
    group_N = np.array([f"group {at % groups}" for at in range(questions)])
    texts = np.empty(questions, dtype=object)
    texts[:] = [tuple(f"choice {at}" for at in range(choices))] * questions
    prompt_N = np.array(
        [f"{WORDS[at % groups]} " + " ".join(rng.choice(WORDS, 6)) for at in range(questions)], dtype=object
    )
    cost_MN = np.outer(0.001 * np.array(accuracies) ** 4, np.ones(questions)) if costs else None
    probs_MNK = None
    if probs:
        probs_MNK = rng.dirichlet(np.ones(choices), (members, questions))
        top_MN = probs_MNK.argmax(2)
        rows = np.arange(questions)
        for at in range(members):  # the largest probability stands at the answer
            held = probs_MNK[at, rows, top_MN[at]].copy()
            probs_MNK[at, rows, top_MN[at]] = probs_MNK[at, rows, answer_MN[at]]
            probs_MNK[at, rows, answer_MN[at]] = held
        probs_MNK[answer_MN < 0] = np.nan
    score_MN = np.where(answer_MN >= 0, rng.random(answer_MN.shape) + (answer_MN == gold_N), np.nan) if scores else None
    ids = np.array([f"q{at:04}" for at in range(questions)])
    opinions = Opinions(
        ids,
        np.array([f"m{at}" for at in range(members)]),
        answer_MN,
        count_N,
        texts,
        group_N,
        prompt_N,
        probs_MNK,
        score_MN,
        cost_MN,
    )
    return opinions, Truth(ids, gold_N.astype(np.int16), (answer_MN == gold_N).astype(np.float32))


def shuffled(opinions, truth, seed, *, members=True):
    """The same pool with questions (and members) in another order."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(opinions.ids))
    opinions, truth = opinions.questions(rows), truth.questions(rows)
    if members:
        order = rng.permutation(len(opinions.members))
        opinions, truth = opinions.only(opinions.members[order]), Truth(truth.ids, truth.gold_N, truth.right_MN[order])
    return opinions, truth
