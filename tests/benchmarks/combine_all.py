"""How long every way to combine takes on 29 members x 12,000 questions, and Dawid-Skene against crowd-kit's.

Every method but RL-Focal's is fitted on one half and applied to the other, with its default options. The pool is drawn:
ten choices, members from 0.2 to 0.7 that err together on hard questions, prompts of 30 words, costs, probabilities,
scores; a method that cannot work on it is named with its reason. Dawid-Skene sees a million answers, as many iterations
as crowd-kit. Run: python -m tests.benchmarks.combine_all [method ...]. Prints one JSON line; `seconds`: of all methods,
one on each core at a time as in `w2s combine`. Each ran on 300 questions before: no time is spent on imports.
"""

import argparse
import json
import os
import time
import warnings

import numpy as np

from w2s.ensemble.ballots import NotApplicable
from w2s.evaluation.pools.judging import map_on_cores
from w2s.pools.methods import ALL, apply, fit
from w2s.pools.records import Opinions, Truth, rightness
from w2s.store.records import softmax

MEMBERS, QUESTIONS, CHOICES = 29, 12_000, 10
GROUPS = [f"subject {at}" for at in range(14)]
TURNS = 5  # of Dawid-Skene, in the race


def drawn(members: int, questions: int, choices: int, *, full: bool = True, seed: int = 0) -> tuple[Opinions, Truth]:
    """A pool whose questions are hard for all alike; `full`: with prompts, costs, scores and probabilities."""
    rng = np.random.default_rng(seed)
    gold_N = rng.integers(0, choices, questions).astype(np.int16)
    skill_M, hard_N = np.linspace(-1.6, 1.1, members), 1.5 * rng.standard_normal(questions)
    ease_MN = skill_M[:, None] - hard_N + rng.logistic(size=(members, questions))
    tempting_N = (gold_N + rng.integers(1, choices, questions)) % choices  # half of the wrong answers are the same one
    other_MN = (gold_N + rng.integers(1, choices, ease_MN.shape)) % choices
    wrong_MN = np.where(rng.random(ease_MN.shape) < 0.5, tempting_N, other_MN)
    answer_MN = np.where(ease_MN > 0, gold_N, wrong_MN).astype(np.int16)
    answer_MN[rng.random(answer_MN.shape) < 0.03] = -1
    ids, names = np.arange(questions).astype(str), np.array([f"model-{at:02d}" for at in range(members)])
    blank_N, texts_N = np.full(questions, "", dtype=object), np.empty(questions, dtype=object)
    texts_N.fill(tuple("ABCDEFGHIJ"[:choices]))
    count_N, right_MN = np.full(questions, choices, np.int32), (answer_MN == gold_N).astype(np.float32)
    truth = Truth(ids, gold_N, right_MN)
    if not full:
        return Opinions(ids, names, answer_MN, count_N, texts_N, blank_N, blank_N), truth
    words = np.array([f"word{at}" for at in range(5_000)])
    subject_N = rng.integers(0, len(GROUPS), questions)
    picked = (rng.zipf(1.3, (questions, 30)) + 37 * subject_N[:, None]) % len(words)
    prompt_N = np.array([" ".join(row) for row in words[picked]], dtype=object)
    logits_MNK = rng.standard_normal((members, questions, choices))
    logits_MNK += 3 * (answer_MN[..., None] == np.arange(choices))
    probs_MNK = softmax(logits_MNK.reshape(-1, choices), np.ones((1, choices), bool)).reshape(logits_MNK.shape)
    probs_MNK = probs_MNK.astype(np.float32)
    dollars_MN = 1e-5 * np.exp(skill_M)[:, None] ** 2 * rng.uniform(0.5, 1.5, answer_MN.shape)
    check_MN = (rng.random(answer_MN.shape) < np.where(right_MN > 0, 0.95, 0.4)).astype(np.float32)
    groups_N = np.array(GROUPS, dtype=object)[subject_N]
    extras = {"score_MN": probs_MNK.max(2), "cost_MN": dollars_MN, "check_MN": check_MN, "probs_MNK": probs_MNK}
    return Opinions(ids, names, answer_MN, count_N, texts_N, groups_N, prompt_N, **extras), truth


def timed(methods: list[str]) -> tuple[dict[str, dict], float]:
    """Each method's seconds and accuracy on the other half, or why it cannot work here; and the seconds of all."""
    opinions, truth = drawn(MEMBERS, QUESTIONS, CHOICES)
    order = np.random.default_rng(0).permutation(QUESTIONS)
    rows, others = np.sort(order[: QUESTIONS // 2]), np.sort(order[QUESTIONS // 2 :])

    def one(name: str, fit_rows=rows, new_rows=others) -> dict:
        try:
            started = time.perf_counter()
            fitted = fit(name, opinions.questions(fit_rows), truth.questions(fit_rows))
            middle = time.perf_counter()
            decision = apply(fitted, opinions.questions(new_rows))
        except NotApplicable as reason:
            return {"not_applicable": str(reason)}
        seconds = {"fit": middle - started, "apply": time.perf_counter() - middle}
        return seconds | {"accuracy": float(np.nanmean(rightness(decision, truth.questions(new_rows))))}

    for name in methods:
        one(name, rows[:300], rows[300:600])
    started = time.perf_counter()
    found = map_on_cores(one, methods)
    return dict(zip(methods, found, strict=True)), time.perf_counter() - started


def race() -> dict[str, float]:
    """Dawid-Skene and crowd-kit's on a million answers; both end at the same matrices."""
    import pandas
    from crowdkit.aggregation import DawidSkene

    opinions, truth = drawn(10, 100_000, 4, full=False)
    member, row = np.nonzero(opinions.answer_MN >= 0)
    data = pandas.DataFrame({"task": row, "worker": member, "label": opinions.answer_MN[member, row]})
    started = time.perf_counter()
    fitted = fit({"name": "dawid_skene", "iterations": TURNS, "tolerance": 0.0}, opinions, truth)
    middle = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = DawidSkene(n_iter=TURNS, tol=-1).fit(data)
    ended = time.perf_counter()
    errors = theirs.errors_.sort_index().sort_index(axis=1).to_numpy().reshape(10, 4, 4).transpose(0, 2, 1)
    assert np.abs(fitted.arrays["confusion_MKK"] - errors).max() < 1e-6
    seconds, peer_seconds = middle - started, ended - middle
    return {"answers": len(data), "seconds": seconds, "peer_seconds": peer_seconds, "ratio": peer_seconds / seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("methods", nargs="*", default=ALL, help="default: every method but RL-Focal's")
    methods, total = timed(parser.parse_args().methods)
    against = race()
    figures = {"name": "combine_all", "ratio": against["ratio"], "peer": "crowd-kit DawidSkene, same iterations"}
    figures |= {
        "seconds": total,
        "members": MEMBERS,
        "questions": QUESTIONS,
        "cores": os.cpu_count(),
    }
    print(json.dumps(figures | {"dawid_skene": against, "methods": methods}))


if __name__ == "__main__":
    main()
