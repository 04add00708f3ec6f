"""What a report shows besides its numbers: training curves, answers, and explanations of odd numbers."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from w2s.evaluation.run.contents import Sample, Training, Vote
from w2s.evaluation.run.inspect import shorten
from w2s.evaluation.run.metrics import Answers, Judged, answer_given
from w2s.evaluation.run.pictures import LADDER
from w2s.evaluation.run.runs import SUITE, Run, answer_text, outcomes_of
from w2s.evaluation.run.verdict import WORDS
from w2s.evaluation.statistics import wilson
from w2s.store.records import Example

SHOWN_TEXT = 400  # characters of a written answer
POINTS = 80  # of a curve


def training(run: Run) -> tuple[Training, ...]:
    """The student's fits in every seed, and those of the committee's rounds (of a round's models, the first)."""
    fits = [(a, str(a.tags["model"])) for a in run.find("model") if a.tags["model"] in ("sft_student", "student")]
    fits += [(a, f"round {a.tags['index'] + 1}") for a in run.find("round", model="committee")]
    files = [(a.path / "fit-0" / "train.json", who, a.tags["seed"]) for a, who in fits]
    return tuple(curves_of(json.loads(path.read_text()), who, seed) for path, who, seed in files if path.exists())


def curves_of(record: Mapping[str, Any], who: str, seed: int) -> Training:
    looks = record.get("looks") or []
    shares = zip(looks, record.get("agreements") or [], strict=False)
    return Training(
        who,
        seed,
        loss=thinned(record.get("losses") or record.get("loss") or []),
        held_loss=tuple((int(step), float(loss)) for step, loss in looks),
        agreement=tuple((int(step), float(share)) for (step, _), share in shares if share is not None),
        **{key: thinned(record[key]) for key in ("reward", "margin", "kl") if key in record},
    )


def thinned(values: Sequence[float | None]) -> tuple[tuple[int, float], ...]:
    """(last step, mean) of equal groups of steps, at most POINTS of them."""
    parts = np.array_split(np.arange(len(values)), min(POINTS, len(values)) or 1)
    whole = [] if None in values else [part for part in parts if len(part)]
    return tuple((int(part[-1]) + 1, float(np.mean([values[at] for at in part]))) for part in whole)


def hard_answers(run: Run, answers: Answers, seed: int) -> tuple[Sample, ...]:
    """Questions of the hard test with what the ladder's models answered: in turn some that only the student has right,
    only its committee, neither, and both."""
    judged = answers[seed]
    if not {"student", "committee"} <= set(judged):
        return ()
    rows, gold = run.questions(SUITE, seed), run.gold(SUITE, seed)
    said = {model: said_by(run, model, judged[model], rows, seed) for model in LADDER if model in judged}
    right = {model: set(one.ids[one.correct_N == 1].tolist()) for model, one in judged.items() if model in said}
    kinds: dict[tuple[bool, bool], list[str]] = {}
    ids = sorted(said["student"])
    for at in np.random.default_rng(0).permutation(len(ids)):  # the same questions in every report
        key = ids[at]
        kinds.setdefault((key in right["student"], key in right["committee"]), []).append(key)
    order = [kinds.get(kind, []) for kind in ((True, False), (False, True), (False, False), (True, True))]
    most, found = max(map(len, order)), []
    chosen = [some[turn] for turn in range(most) for some in order if turn < len(some)]
    for key in chosen[: run.config["evaluation"]["samples"]]:
        votes = [Vote(model, *said[model][key], key in right[model]) for model in said if key in said[model]]
        row = rows[key]
        found.append(Sample(key, row.prompt, row.choices, tuple(votes), gold=cut(answer_text(row, gold[key]))))
    return tuple(found)


def said_by(
    run: Run, model: str, judged: Judged, rows: Mapping[str, Example], seed: int
) -> dict[str, tuple[str, float | None]]:
    """id -> a model's answer to the question in words, and its probability where it chose."""
    if judged.opinion is None:
        (artifact,) = run.outcomes(SUITE, model=model, seed=seed)
        texts = {one.id: one.text for one in reversed(outcomes_of(artifact))}  # of several, the first
        return {key: (cut(text), None) for key, text in texts.items()}
    given_N, most_N = answer_given(judged), judged.opinion.probs_NK.max(1)
    rows_given = zip(judged.ids.tolist(), given_N.tolist(), most_N.tolist(), strict=True)
    return {key: (rows[key].choices[at] if at >= 0 else "(abstained)", most) for key, at, most in rows_given}


def cut(text: str) -> str:
    """A text for the page: without blank lines around it, its line breaks kept."""
    return shorten(text.strip("\n").rstrip(), SHOWN_TEXT)


def below_chance(answers: Answers, seed: int) -> list[str]:
    """Models below chance, and why that is no error for shuffled labels."""
    found = []
    for model, judged in answers[seed].items():
        if judged.opinion is None:
            continue
        n, right = len(judged.ids), judged.correct_N.sum()
        chance = float((1 / judged.opinion.mask_NK.sum(1)).mean())
        if wilson(right, n)[1] < chance:
            words = f"seed {seed}: {WORDS.get(model, model)} is right on {right / n:.1%}, below chance ({chance:.1%})"
            why = f": {unlearned(judged, answers[seed].get('zero_shot'))}" if model == "shuffled" else ""
            found.append(words + why)
    return found


def unlearned(judged: Judged, base: Judged | None) -> str:
    words = "labels dealt to other questions teach that no choice is better than another, so it is hardly sure of any"
    words += f" (of its favourite {judged.opinion.probs_NK.max(1).mean():.0%} on average)"
    if base is None or base.opinion is None:
        return words
    own = dict(zip(base.ids.tolist(), answer_given(base).tolist(), strict=True))
    same = np.mean([own.get(key) == at for key, at in zip(judged.ids.tolist(), answer_given(judged), strict=True)])
    words += ", and has unlearned what its untouched base prefers"
    return f"{words} (the same answer on {same:.0%} of the questions)"
