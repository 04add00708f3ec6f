"""What the numbers say, in sentences; none claims more than its interval supports."""

from __future__ import annotations

from collections.abc import Sequence

from w2s.evaluation.run.metrics import MODELS
from w2s.store.records import Metric

WORDS = {model: words for model, (_, words) in MODELS.items()}


def find(metrics: Sequence[Metric], suite: str, model: str, name: str) -> Metric | None:
    """The metric of that suite, model and name, or None."""
    return next((m for m in metrics if (m.suite, m.model, m.name) == (suite, model, name)), None)


def verdict(metrics: Sequence[Metric], suite: str) -> str:
    """One sentence: the student against its committee, and PGR. `suite` is the hard suite the run is judged on."""
    gap = find(metrics, suite, "student", "accuracy_minus_committee")
    pgr = find(metrics, suite, "student", "pgr")
    if gap is None or gap.value is None:
        missing = [model for model in ("student", "committee") if find(metrics, suite, model, "accuracy") is None]
        return f"no verdict: this run has no {' and no '.join(missing) or 'seed with student and committee'} on {suite}"
    beaten = f"the student {compared(gap, 'its committee')}"
    if pgr is not None and pgr.value is None:
        beaten += f"; PGR is undefined: {pgr.reason}"
    elif pgr is not None:
        beaten += f"; PGR {pgr.value:.2f} ({edge(pgr.low)} to {edge(pgr.high)})"
    return beaten + untaught(metrics, suite) + brought(metrics, suite)


def untaught(metrics: Sequence[Metric], suite: str) -> str:
    """What qualifies the headline: a student not shown to be above its untouched base or shuffled labels."""
    gaps = {other: find(metrics, suite, "student", f"accuracy_minus_{other}") for other in ("zero_shot", "shuffled")}
    level = [WORDS[other] for other, gap in gaps.items() if gap is not None and gap.low is not None and gap.low <= 0]
    return f"; but it is not shown to be above {' or '.join(level)}" if level else ""


def brought(metrics: Sequence[Metric], suite: str) -> str:
    """Whether rewards and the objective of the student brought a gain, where the run has them."""
    found = ""
    taught = "student" if find(metrics, suite, "sft_student", "accuracy") is None else "sft_student"
    for model, other, gain in ((taught, "unrewarded", "rewards in labels"), ("student", "sft_student", "objective")):
        gap = find(metrics, suite, model, f"accuracy_minus_{other}")
        if gap is not None and gap.value is not None:
            what = "a gain" if gap.low > 0 else "a loss" if gap.high < 0 else "no gain that can be told"
            amount = f"{points(gap.value)} points (95% CI {points(gap.low)} to {points(gap.high)})"
            found += f"; {gain} brought {what}: {amount}"
    return found


def compared(gap: Metric, other: str, *, brief: bool = False) -> str:
    """'beats OTHER by 3.1 points (95% CI 0.4 to 5.8, n = 1000)', 'is behind', or 'cannot be told from'.

    brief leaves out how many questions and seeds there were.
    """
    behind = gap.high < 0
    value, low, high = (-gap.value, -gap.high, -gap.low) if behind else (gap.value, gap.low, gap.high)
    amount = f"{points(value)} points (95% CI {points(low)} to {points(high)}"
    amount += "" if brief else f", n = {gap.n}" + (f", {len(gap.seeds)} seeds" if len(gap.seeds) > 1 else "")
    if behind:
        return f"is behind {other} by {amount})"
    return f"beats {other} by {amount})" if gap.low > 0 else f"cannot be told from {other}: difference {amount})"


def remarks(metrics: Sequence[Metric], suite: str) -> list[str]:
    """What an honest reader asks next: boosting against its controls, shortcuts, what the set could not show."""
    found = []
    for model, other, subject in (
        ("committee", "best_learner", "the committee"),
        ("committee", "bagged", "boosting"),
        ("committee", "answer_level", "boosting by tokens"),
        ("committee", "uniform", "weighting the learners"),
        ("committee", "long_learner", "the committee"),
        ("rewarded", "committee", "the committee tilted by rewards"),
        ("student", "unrewarded", "the student"),
        ("student", "sft_student", "the student"),
        ("student", "naive_student", "the student"),
        ("student", "zero_shot", "the student"),
        ("student", "easy_gold", "the student"),
    ):
        gap = find(metrics, suite, model, f"accuracy_minus_{other}")
        if gap is not None and gap.value is not None:
            found.append(f"{subject} {compared(gap, WORDS[other], brief=True)}")
    found += [
        *shortcut(metrics, suite),
        *copying(metrics, suite),
        *leakage(metrics, suite),
        *silence(metrics, suite),
        *resolution(metrics, suite),
    ]
    return [sentence(words) for words in found]


def silence(metrics: Sequence[Metric], suite: str) -> list[str]:
    """How often the main models gave no answer."""
    shares = {model: find(metrics, suite, model, "abstained") for model in ("student", "committee", "floor", "ceiling")}
    who = [f"the {model} in {share.value:.1%}" for model, share in shares.items() if share is not None and share.value]
    return [f"no answer was given by {', '.join(who)} of the questions"] if who else []


def shortcut(metrics: Sequence[Metric], suite: str) -> list[str]:
    """Whether the easy gold alone makes weak labels unnecessary."""
    gap = find(metrics, suite, "ceiling", "accuracy_minus_easy_gold")
    reach = find(metrics, suite, "ceiling", "accuracy_minus_floor")
    if gap is None or reach is None or gap.value is None or not reach.value or reach.low <= 0:
        return []
    share = 1 - gap.value / reach.value
    nearly = "; weak labels are hardly needed here" if share >= 0.9 else ""
    return [f"trained on the easy gold alone, the student's base recovers {share:.0%} of floor to ceiling{nearly}"]


def copying(metrics: Sequence[Metric], suite: str) -> list[str]:
    """How much of the committee's errors the student repeats."""
    share = find(metrics, suite, "student", "imitation")
    expected = find(metrics, suite, "student", "imitation_if_independent")
    if share is None or share.value is None or expected is None:
        return []
    beside = f"independent errors would give {expected.value:.0%}"
    return [f"the student repeats {share.value:.0%} of its committee's wrong answers; {beside}"]


def leakage(metrics: Sequence[Metric], suite: str) -> list[str]:
    """Shuffled labels must teach nothing."""
    gap = find(metrics, suite, "student", "accuracy_minus_shuffled")
    if gap is None or gap.value is None or gap.low > 0:
        return []
    return [f"a warning: the student {compared(gap, WORDS['shuffled'], brief=True)}: its labels taught it nothing"]


def resolution(metrics: Sequence[Metric], suite: str) -> list[str]:
    least = find(metrics, suite, "student", "smallest_difference_committee")
    if least is None or least.value is None:
        return []
    found = [f"the smallest difference between student and committee that this set shows: {points(least.value)} points"]
    found[0] += " (80% power, 5% level)"
    if len(least.seeds) == 1:
        found.append("one seed: the intervals cover the questions, not what another training run would give")
    elif len(least.seeds) < 4:
        found.append(
            f"{len(least.seeds)} seeds tell little of how much seeds differ, so the intervals are wide; 5 help much"
        )
    return found


def points(share: float) -> str:
    """0.031 -> '3.1'."""
    return f"{100 * share + 0.0:.1f}"


def edge(bound: float | None) -> str:
    """One end of an interval; None: unbounded."""
    return "unbounded" if bound is None else f"{bound:.2f}"


def sentence(words: str) -> str:
    """With a capital and a full stop."""
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", "!", "?")) else ".")
