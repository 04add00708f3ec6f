"""What `w2s judge` prints: pass@k by model, the count of each status, and recorded flags that differ."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from w2s.evaluation.run.metrics import measure_samples
from w2s.grading.extract import extract_program, parses
from w2s.store.records import Example

if TYPE_CHECKING:
    from w2s.evaluation.judging_samples import Sample, Task, Verdicts

LISTED = 50  # disagreements with the recorded flags that are printed; OUT has all


def tables(
    suite: str, tasks: Mapping[str, Task], rows: Sequence[Sample], found: Verdicts, ks: Sequence[int] | None
) -> list[str]:
    """pass@k by model, best first, with 95% intervals over tasks; the count of each status; recorded flags."""
    passed: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for one in rows:
        passed[one.model][one.task].append(found[one.program][0] is True)
    by_model = []
    for model, by_task in passed.items():
        counts = [(task, len(right), sum(right)) for task, right in by_task.items()]
        by_model.append((measure_samples(suite, model, {0: counts}, ks=ks or (1, 10)), sum(n for _, n, _ in counts)))
    by_model.sort(key=lambda model: -(model[0][0].value or 0))
    wide = max(len("model"), *map(len, passed))
    lines = [f"{'model':{wide}} {'metric':9} {'value':>6}   95% interval     tasks samples"]
    for one, samples in [(metric, samples) for metrics, samples in by_model for metric in metrics]:
        head = f"{one.model:{wide}} {one.name:9}"
        if one.value is not None:
            lines.append(f"{head} {one.value:6.3f}   {one.low:.3f} to {one.high:.3f}   {one.n:5} {samples:7}")
        elif ks:
            lines.append(f"{head} {'-':>6}   {one.reason}")
    all_tasks = len({task.name for task in tasks.values()})
    lacking = [all_tasks - len(by_task) for by_task in passed.values()]
    if any(lacking):
        most = f"up to {max(lacking):,}" if len(lacking) > 1 else f"{lacking[0]:,}"
        lines.append(f"{most} of the {all_tasks:,} tasks have no sample and count nowhere")
    statuses = Counter(status_of(*found[one.program][:2]) for one in rows)
    lines.append("statuses: " + ", ".join(f"{count:,} {status}" for status, count in statuses.most_common()))
    return [*lines, *agreement(tasks, rows, found)]


def status_of(correct: bool | None, status: str) -> str:
    """The kind of a verdict: right, wrong, what stopped the program, or why it could not be judged."""
    if correct is None:
        return f"could not be judged ({status.split(':')[0]})"
    return "right" if correct else "wrong" if status == "judged" else status.split(":")[0]


def agreement(tasks: Mapping[str, Task], rows: Sequence[Sample], found: Verdicts) -> list[str]:
    """How many recorded flags agree with the verdicts, and the first that do not."""
    flagged = [one for one in rows if one.recorded is not None]
    if not flagged:
        return []
    others = [one for one in flagged if found[one.program][0] is not one.recorded]
    share = 1 - len(others) / len(flagged)
    lines = [f"recorded flags: {len(flagged) - len(others):,} of {len(flagged):,} agree ({share:.2%})"]
    for one in others[:LISTED]:
        correct, status, seconds = found[one.program]
        here = {True: "right", False: "wrong", None: "not judged"}[correct]
        was = "right" if one.recorded else "wrong"
        reason = why_right(tasks[one.task].example, one.text) if correct else f"{status}, after {seconds:.1f} s"
        lines.append(f"  {one.task} {one.model} sample {one.sample}: recorded {was}, here {here} ({reason})")
    return [*lines, f"  and {len(others) - LISTED:,} more"] if len(others) > LISTED else lines


def why_right(example: Example, text: str) -> str:
    """Why this judge passes a text that may fail elsewhere, run as it stands."""
    if example.task != "code":
        return "by normalised answer"
    if not parses(text):
        return "as a whole it is no Python; the program in it passes"
    whole = extract_program(example, text) == text
    return "judged" if whole else "with the imports and functions of the prompt it passes"
