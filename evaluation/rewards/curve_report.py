"""metrics.json, curve.html and curve.md of `w2s rewards curve`: whether gold turns down while the proxy rises."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from w2s.evaluation.pools.pictures import name_ends
from w2s.evaluation.rewards.curve import RL, SUITE, Rollouts, Samples, measure_best_of_n, measure_rl
from w2s.evaluation.rewards.reward_study import MEMBER
from w2s.evaluation.rewards.reward_study_report import how_of, mark_sizes, name_of, study_content
from w2s.evaluation.run.collect import SYNTHETIC
from w2s.evaluation.run.pictures import ACCENT, INK, PAPER, SOFT, band, canvas, interval, name_x, rule, svg, title
from w2s.evaluation.run.report import write_pages
from w2s.evaluation.run.runs import Findings, Run, finish_study
from w2s.evaluation.run.verdict import amount, count_seeds, find, known, points, sentence
from w2s.rewards.best_of_n import doublings, kl
from w2s.store.records import Metric, Rewards, align, load_arrays, read_arrays

CURVE = "curve"
FLOOR = 0.03  # a policy that is almost always right or wrong shows no curve
SHORT = {"lower_bound": "lower bound", "warm": "mean of weights", "member": "one reward model"}


def finish(folder: Path, *, again: bool = False) -> str:
    """metrics.json, curve.html and curve.md of a run; returns the verdict (see `finish_study`)."""
    return finish_study(folder, find_out, again=again)


def find_out(run: Run) -> Findings:
    """The results of an over-optimisation curve, ready to be written."""
    seeds = {seed: samples_of(run, seed) for seed in run.seeds}
    sizes = doublings(run.config["rewards"]["curve"]["samples"])
    metrics = measure_best_of_n(seeds, sizes=sizes, **how_of(run))
    rollouts = rollouts_of(run)
    metrics += measure_rl(rollouts) if rollouts else []
    words = verdict(metrics, SUITE, sizes[-1])
    content = content_of(run, metrics, sizes, words)
    return Findings(words, metrics, lambda: write_pages("curve", content, run.folder))


def samples_of(run: Run, seed: int) -> Samples:
    """The samples of a seed with their gold (0 for an empty or unjudged text) and the rewards of every ensemble."""
    (merged,), (graded,) = run.find("samples_merged", seed=seed), run.find("sample_gold", seed=seed)
    places, known = load_arrays(merged.path / "place.npz"), load_arrays(graded.path / "gold.npz")
    ids, place_NS, gold_ND = places["ids"], places["place_NS"], np.nan_to_num(known["gold_ND"])
    if known["ids"].tolist() != ids.tolist():
        raise ValueError(f"{graded.path}: its questions are not those of {merged.path}")
    found = {
        one.tags["model"]: align(read_arrays(one.path / f"{CURVE}.npz", Rewards), ids).scores_MNK
        for one in run.find("rewards", seed=seed, set=CURVE)
    }
    kinds = {kind: np.array([spread(one_ND, place_NS, np.nan) for one_ND in scores]) for kind, scores in found.items()}
    return Samples(ids, spread(gold_ND, place_NS, 0.0), kinds)


def spread(value_ND: np.ndarray, place_NS: np.ndarray, empty: float) -> np.ndarray:
    """value_NS of every sample, from those of the distinct texts; `empty` for a sample without text."""
    return np.where(place_NS >= 0, np.take_along_axis(value_ND, np.maximum(place_NS, 0), axis=1), empty)


def rollouts_of(run: Run) -> dict[str, dict[int, Rollouts]]:
    """way -> seed -> the texts written while RL optimised its reward; empty if the run has no RL."""
    found: dict[str, dict[int, Rollouts]] = {}
    for one in run.find("rollout_gold"):
        arrays = load_arrays(one.path / "rollouts.npz")
        rollouts = Rollouts(*(arrays[name] for name in ("step_T", "gold_T", "reward_T", "kl_S")))
        found.setdefault(one.tags["model"], {})[one.tags["seed"]] = rollouts
    return found


def verdict(metrics: Sequence[Metric], suite: str, most: int) -> str:
    """One sentence: whether gold turns down for one reward model, and which way turns down least."""
    drop, peak = (find(metrics, suite, MEMBER, name) for name in ("turn_down", "peak"))
    unit, until = ("n =", f"best of {most}") if suite == SUITE else ("step", f"step {most}")
    if drop.low is None:
        return f"one training run alone: gold ends {points(drop.value)} points below its peak"
    if drop.low <= 0:
        return f"gold is not shown to turn down for one reward model: {counted(drop)} from its peak to {until}"
    where = f"{unit} {peak.value:.0f}"
    words = f"for one reward model gold turns down by {counted(drop)} from its peak ({where}) to {until}"
    less = [one for one in gaps_to_member(metrics, suite) if one.high < 0]
    if not less:
        return f"{words}; no ensemble is shown to turn down less"
    least = min(less, key=lambda one: one.value)
    return f"{words}; least for {name_of(least.model)}: {counted(least, flip=True)} less"


def gaps_to_member(metrics: Sequence[Metric], suite: str) -> list[Metric]:
    gaps = [one for one in metrics if one.suite == suite and one.name == "turn_down_minus_member"]
    return [one for one in gaps if one.high is not None]


def counted(one: Metric, *, flip: bool = False) -> str:
    """'3.1 points (95% CI 0.4 to 5.8, n = 1000, 5 seeds)'; flip: of the value with the other sign."""
    return amount(one, (f", n = {one.n}" if one.suite == SUITE else "") + count_seeds(one), flip=flip)


def remarks(run: Run, metrics: Sequence[Metric], sizes: Sequence[int]) -> list[str]:
    """Answers to a critical reader's questions."""
    gaps, ways = gaps_to_member(metrics, SUITE), ways_in(metrics, SUITE)
    clear = {one.model for one in gaps if one.low > 0 or one.high < 0}
    vague = [name_of(way) for way in ways if way != MEMBER and way not in clear]
    said = [f"indistinguishable from one reward model in how far gold turns down: {', '.join(vague)}"] if vague else []
    more = [one for one in gaps if one.low > 0]
    said += [f"{name_of(one.model)} turns down by {counted(one)} more than one reward model" for one in more]
    last = [one for one in metrics if one.suite == SUITE and one.name == "last_minus_member" and one.low > 0]
    if last:
        best = max(last, key=lambda one: one.value)
        gain = f"{counted(best)} more gold than by one reward model"
        said.append(f"best of {sizes[-1]} by {name_of(best.model)} has {gain}")
    first, gain = (find(metrics, SUITE, MEMBER, name) for name in (f"gold@{sizes[0]}", "gain"))
    if not FLOOR < first.value < 1 - FLOOR:
        said.insert(0, f"the policy is right on {points(first.value)}% of its samples: there is little to turn down")
    said.append(f"before that, one reward model gains {counted(gain)} over a sample at random, at its peak")
    ranks = [one for way in ways if (one := known(metrics, SUITE, way, "ranked"))]
    shares = ", ".join(f"{name_of(one.model)} {points(one.value)}%" for one in ranks)
    said.append(f"a right sample is put above a wrong one of its question: {shares}")
    if MEMBER in ways_in(metrics, RL):
        said.append(f"by RL: {verdict(metrics, RL, rl_steps(metrics)[-1])}")
    pairs = [one.manifest["facts"] for one in run.find("pairs")]
    if any(one["rows"] < one["asked"] for one in pairs):
        fewest = min(one["rows"] for one in pairs)
        said.append(
            f"fewer pairs than the config asks ({pairs[0]['asked']}): {fewest} in a seed, one for a mixed question"
        )
    for kind, key, words in (
        ("samples_merged", "empty", "samples are empty: no reward model is asked about them, and they are wrong"),
        ("sample_gold", "unjudged", "texts could not be judged by gold and count as wrong"),
    ):
        count = sum(one.manifest["facts"][key] for one in run.find(kind))
        said += [f"{count:,} {words}"] if count else []
    return [sentence(words) for words in said]


def ways_in(metrics: Sequence[Metric], suite: str) -> list[str]:
    return list(dict.fromkeys(one.model for one in metrics if one.suite == suite))


def rl_steps(metrics: Sequence[Metric]) -> list[int]:
    """The last steps of the parts that summarise an RL run."""
    return sorted({int(m.name.partition("@")[2]) for m in metrics if m.suite == RL and m.name.startswith("gold@")})


def content_of(run: Run, metrics: list[Metric], sizes: Sequence[int], words: str) -> dict[str, Any]:
    table = {(one.suite, one.model, one.name): one for one in metrics}

    def get(way: str, name: str, suite: str = SUITE) -> Metric | None:
        return table.get((suite, way, name))

    drawn = {"gold": curve(metrics, sizes, "gold"), "proxy": curve(metrics, sizes, "proxy"), "drops": drops(metrics)}
    steps, rl_ways = rl_steps(metrics), ways_in(metrics, RL)
    if steps:
        drawn["rl_steps"] = rl_curve(get, rl_ways, steps, "steps")
        if all(get(way, f"kl@{step}", RL).value is not None for way in rl_ways for step in steps):
            drawn["rl_kl"] = rl_curve(get, rl_ways, steps, "kl")
    return study_content(run, words, remarks(run, metrics, sizes)) | {
        "synthetic": SYNTHETIC if any(one["name"] == "world" for one in run.config["data"]["sources"]) else None,
        "ways": ways_in(metrics, SUITE),
        "rl_ways": rl_ways,
        "sizes": sizes,
        "steps": steps,
        "pairs": [one.tags | {"rows": one.manifest["facts"]["rows"]} for one in run.find("pairs")],
        "get": get,
        "member": MEMBER,
        "signed": lambda share: "0.0" if abs(share) < 0.0005 else f"{100 * share:+.1f}",
        "pictures": drawn,
    }


def curve(metrics: Sequence[Metric], sizes: Sequence[int], what: str) -> str:
    """Gold (%) or proxy of what is chosen against n, spaced by KL; a line for each way, one reward model in colour."""
    figure, (axis,) = canvas(3.4, left=0.09, right=0.68, top=0.97, bottom=0.15)
    x, ends, scale = [kl(n) for n in sizes], [], 100 if what == "gold" else 1
    # Ranks have their own unit.
    for way in [one for one in ways_in(metrics, SUITE) if what == "gold" or one != "rank_average"]:
        line = [find(metrics, SUITE, way, f"{what}@{n}") for n in sizes]
        if any(one.value is None for one in line):  # nothing was scored
            continue
        colour, y = ACCENT if way == MEMBER else INK, [scale * one.value for one in line]
        if way in (MEMBER, "worst"):
            band(axis, x, line, colour, scale)
        axis.plot(x, y, color=colour, lw=2.2 if way == MEMBER else 1.1, zorder=3 if way == MEMBER else 2)
        top = int(np.argmax(y))
        if what == "gold" and 0 < top < len(y) - 1:
            axis.plot(x[top], y[top], "o", color=colour, ms=4.5, mec=PAPER, mew=0.8, zorder=4)
        ends.append((y[-1], SHORT.get(way, name_of(way)), colour))
    name_ends(axis, ends)
    mark_sizes(axis, sizes)
    return svg(figure, f"{what.capitalize()} of the chosen sample against n, for each way of making one reward")


def drops(metrics: Sequence[Metric]) -> str:
    """How far gold turns down for each way, with its interval."""
    found = [one for one in metrics if (one.suite, one.name) == (SUITE, "turn_down")]
    found.sort(key=lambda one: -one.value)
    height = 0.6 + 0.29 * len(found)
    figure, (axis,) = canvas(height, left=0.42, right=0.87, top=0.995, bottom=0.44 / height)
    axis.axvline(0, color=SOFT, lw=0.8, zorder=0)
    for at, metric in enumerate(found):
        interval(axis, -at, metric, name_of(metric.model), ACCENT if metric.model == MEMBER else INK, dot=5, size=10.5)
    axis.set_ylim(-len(found) + 0.4, 0.6)
    axis.set_yticks([])
    name_x(axis, "points of gold lost from the peak to the last n")
    return svg(figure, "How far gold turns down, with 95 percent intervals")


def rl_curve(get: Callable[..., Metric | None], ways: Sequence[str], steps: Sequence[int], against: str) -> str:
    """Gold (%) and the reward that RL had, side by side, against steps or against the root of the KL."""
    figure, axes = canvas(2.6, 2, left=0.08, right=0.78, top=0.87, bottom=0.2, wspace=0.35)
    for axis, (what, scale) in zip(axes, (("gold", 100), ("reward", 1)), strict=True):
        ends = []
        for way in ways:
            line = [get(way, f"{what}@{step}", RL) for step in steps]
            x = steps if against == "steps" else [max(get(way, f"kl@{step}", RL).value, 0) ** 0.5 for step in steps]
            colour, y = ACCENT if way == MEMBER else INK, [scale * one.value for one in line]
            if way == MEMBER and line[0].low is not None and against == "steps":
                band(axis, x, line, colour, scale)
            axis.plot(x, y, color=colour, lw=2 if way == MEMBER else 1.1, marker="o", ms=2.5)
            ends.append((y[-1], SHORT.get(way, name_of(way)), colour))
        title(axis, "gold, %" if what == "gold" else "its reward")
        rule(axis)
        if what == "reward":
            name_ends(axis, ends)
    name_x(axes[0], "RL steps" if against == "steps" else "root of KL from the policy, nats", loc="left")
    return svg(figure, f"Gold and reward while RL optimises it, against {against}")
