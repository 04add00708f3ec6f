"""The results in sentences; none claims more than its interval supports."""

from collections.abc import Sequence

from w2s.evaluation.run.metrics import MODELS
from w2s.store.records import Metric

WORDS = {model: words for model, (_, words) in MODELS.items()}


def find(metrics: Sequence[Metric], suite: str, model: str, name: str) -> Metric | None:
    """The metric of that suite, model and name, or None."""
    return next((m for m in metrics if (m.suite, m.model, m.name) == (suite, model, name)), None)


def known(metrics: Sequence[Metric], suite: str, model: str, name: str) -> Metric | None:
    """The metric of that suite, model and name, if it has a value."""
    metric = find(metrics, suite, model, name)
    return None if metric is None or metric.value is None else metric


def verdict(metrics: Sequence[Metric], suite: str) -> str:
    """One sentence: the student against its committee, and PGR. `suite` is the hard suite the run is judged on."""
    gap, pgr = known(metrics, suite, "student", "accuracy_minus_committee"), find(metrics, suite, "student", "pgr")
    if gap is None:
        student = find(metrics, suite, "student", "accuracy")
        if student is not None and student.value is None:
            return f"no verdict: the student was {student.reason}"
        missing = [model for model in ("student", "committee") if find(metrics, suite, model, "accuracy") is None]
        return f"no verdict: this run has no {' and no '.join(missing) or 'seed with student and committee'} on {suite}"
    words = f"the student {compared(gap, 'its committee')}"
    if pgr is not None and pgr.value is None:
        words += f"; PGR is undefined: {pgr.reason}"
    elif pgr is not None:
        words += f"; PGR {pgr.value:.2f} ({edge(pgr.low)} to {edge(pgr.high)})"
    gaps = {other: find(metrics, suite, "student", f"accuracy_minus_{other}") for other in ("zero_shot", "shuffled")}
    level = [WORDS[other] for other, one in gaps.items() if one is not None and one.low is not None and one.low <= 0]
    words += f"; but it is not shown to be above {' or '.join(level)}" if level else ""
    taught = "student" if find(metrics, suite, "sft_student", "accuracy") is None else "sft_student"
    for model, other, cause in ((taught, "unrewarded", "rewards in labels"), ("student", "sft_student", "objective")):
        if gap := known(metrics, suite, model, f"accuracy_minus_{other}"):
            what = "a gain" if gap.low > 0 else "a loss" if gap.high < 0 else "no gain that can be told"
            words += f"; {cause} brought {what}: {amount(gap)}"
    return words


def compared(gap: Metric, other: str, *, brief: bool = False) -> str:
    """'beats OTHER by 3.1 points (95% CI 0.4 to 5.8, n = 1000)', 'is behind', or 'cannot be told from'. brief leaves
    out how many questions and seeds there were."""
    size = amount(gap, "" if brief else f", n = {gap.n}{count_seeds(gap)}", flip=gap.high < 0)
    if gap.high < 0:
        return f"is behind {other} by {size}"
    return f"beats {other} by {size}" if gap.low > 0 else f"cannot be told from {other}: difference {size}"


def amount(gap: Metric, counts: str = "", *, flip: bool = False) -> str:
    """'3.1 points (95% CI 0.4 to 5.8)', with `counts` behind the interval; flip: with the other sign."""
    value, low, high = (-gap.value, -gap.high, -gap.low) if flip else (gap.value, gap.low, gap.high)
    return f"{points(value)} points (95% CI {points(low)} to {points(high)}{counts})"


def count_seeds(metric: Metric) -> str:
    return f", {len(metric.seeds)} seeds" if len(metric.seeds) > 1 else ""


def remarks(metrics: Sequence[Metric], suite: str) -> list[str]:
    """A critical reader's questions: boosting against its controls, shortcuts, and the limits of the set."""
    found = []
    for model, other, subject in (
        ("committee", "best_learner", "the committee"),
        ("committee", "bagged", "boosting"),
        ("committee", "answer_level", "boosting by tokens"),
        ("committee", "uniform", "weighting the learners"),
        ("committee", "long_learner", "the committee"),
        ("rewarded", "committee", "the committee tilted by rewards"),
        ("merged", "committee", "the merged model"),
        *(("student", other, "the student") for other in ("unrewarded", "sft_student", "naive_student")),
        *(("student", other, "the student") for other in ("zero_shot", "easy_gold")),
    ):
        if gap := known(metrics, suite, model, f"accuracy_minus_{other}"):
            found.append(f"{subject} {compared(gap, WORDS[other], brief=True)}")
    gap, reach = (known(metrics, suite, "ceiling", f"accuracy_minus_{other}") for other in ("easy_gold", "floor"))
    if gap and reach and reach.low > 0:
        share = 1 - gap.value / reach.value
        nearly = "; weak labels are hardly needed here" if share >= 0.9 else ""
        beside = f"recovers {share:.0%} of floor to ceiling{nearly}"
        found.append(f"trained on the easy gold alone, the student's base {beside}")
    copies, alone = (known(metrics, suite, "student", name) for name in ("imitation", "imitation_if_independent"))
    if copies and alone:
        beside = f"independent errors would give {alone.value:.0%}"
        found.append(f"the student repeats {copies.value:.0%} of its teacher's wrong answers; {beside}")
    gap = known(metrics, suite, "student", "accuracy_minus_shuffled")
    if gap and gap.low <= 0:
        words = f"the student {compared(gap, WORDS['shuffled'], brief=True)}"
        found.append(f"a warning: {words}: its labels taught it nothing")
    main = ("student", "committee", "floor", "ceiling")
    shares = {model: known(metrics, suite, model, "abstained") for model in main}
    who = [f"the {model} in {share.value:.1%}" for model, share in shares.items() if share and share.value]
    found += [f"no answer was given by {', '.join(who)} of the questions"] if who else []
    return [sentence(words) for words in [*found, *resolution(metrics, suite)]]


def resolution(metrics: Sequence[Metric], suite: str) -> list[str]:
    """What the set and the seeds could not show."""
    least = known(metrics, suite, "student", "smallest_difference_committee")
    if least is None:
        return []
    words = f"the smallest difference between student and committee that this set shows: {points(least.value)} points"
    found, seeds = [f"{words} (80% power, 5% level)"], len(least.seeds)
    if seeds == 1:
        found.append("one seed: the intervals cover the questions, not what another training run would give")
    elif seeds < 4:
        found.append(f"{seeds} seeds tell little of how much seeds differ, so the intervals are wide; 5 help much")
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
