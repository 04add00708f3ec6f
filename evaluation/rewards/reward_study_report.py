"""metrics.json, report.html and report.md of `w2s rewards run`: how good reward models are, and what fools them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from w2s.evaluation.pools.pictures import name_ends
from w2s.evaluation.pools.report import signed
from w2s.evaluation.rewards import reward_study as measured
from w2s.evaluation.rewards.reward_study import BEST, HELD_OUT, LENGTH, MEMBER, ORACLE, POOL, RANDOM, Pool, ScoredPairs
from w2s.evaluation.run.collect import costs, reproduce
from w2s.evaluation.run.pictures import ACCENT, FAINT, INK, SOFT, band, canvas, svg
from w2s.evaluation.run.report import write_pages
from w2s.evaluation.run.runs import Findings, Run, finish_study
from w2s.evaluation.run.verdict import compared, find, points, sentence
from w2s.rewards.best_of_n import kl
from w2s.store.records import Example, Gold, Metric, Rewards, align, load_arrays, read_arrays, read_rows

NAMES = {
    MEMBER: "one reward model",
    BEST: "the best one on held-out pairs",
    "worst": "worst case",
    "uncertainty": "mean less variance",
    "lower_bound": "lower confidence bound",
    "rank_average": "rank average",
    "warm": "WARM (mean of weights)",
    "heads": "heads on one body",
    "adapters": "adapters on one body",
    LENGTH: "the longer text",
    RANDOM: "a coin",
    ORACLE: "the true preference",
}
DRAWN = {
    MEMBER: "one of them",
    "mean": "mean",
    "worst": "worst case",
    "warm": "WARM",
    "heads": "heads",
    LENGTH: "longest",
}
DRAWN |= {RANDOM: "at random"}  # names at the ends of lines
BRIEF = (MEMBER, "mean", "warm", "heads", "adapters", LENGTH)  # columns of the tables of parts


def finish(folder: Path, *, again: bool = False) -> str:
    """metrics.json, report.html and report.md of a run; returns the verdict (see `finish_study`)."""
    return finish_study(folder, find_out, again=again)


def find_out(run: Run) -> Findings:
    """The results of a reward study, ready to be written."""
    sets, pools = read_sets(run), read_pools(run)
    metrics = measure(run, sets, pools)
    words = verdict(metrics, headline(run))
    content = content_of(run, sets, metrics, words)
    return Findings(words, metrics, lambda: write_pages("reward_study", content, run.folder, name="report"))


def how_of(run: Run) -> dict[str, Any]:
    """How scores of members become one."""
    return {"by": run.config["rewards"]["standardise"], "aggregate": run.config["rewards"]["aggregate"]}


def read_sets(run: Run) -> dict[str, dict[int, ScoredPairs]]:
    """suite -> seed -> its pairs with everybody's scores; the held-out pairs first."""
    suites = [HELD_OUT, *dict.fromkeys(one.tags["set"] for one in run.find("suite"))]
    return {name: {seed: read_pairs(run, name, seed) for seed in run.seeds} for name in suites}


def read_pairs(run: Run, suite: str, seed: int) -> ScoredPairs:
    which = {"seed": seed} if suite == HELD_OUT else {}
    (listed,) = run.find("pairs", **which) if suite == HELD_OUT else run.find("suite", set=suite)
    (known,) = run.find("gold", set=suite, **which)
    examples = read_rows(listed.path / f"{suite}.jsonl", Example)
    gold = {row.id: int(row.answer) for row in read_rows(known.path / "gold.jsonl", Gold)}
    length_N2 = np.array([[len(text) for text in row.choices] for row in examples], dtype=float)
    rewards = rewards_of(run, suite, seed, np.array([row.id for row in examples]))
    scores, members = measured.proxies(rewards, np.ones(length_N2.shape, bool), length_N2, **how_of(run))
    return ScoredPairs(examples, np.array([gold[row.id] for row in examples]), scores, members)


def rewards_of(run: Run, suite: str, seed: int, ids: np.ndarray) -> dict[str, Rewards]:
    found = run.find("rewards", seed=seed, set=suite)
    return {one.tags["model"]: align(read_arrays(one.path / f"{suite}.npz", Rewards), ids) for one in found}


def read_pools(run: Run) -> dict[int, Pool]:
    """seed -> the pool with every ensemble's scores; empty where the run has none."""
    found = {}
    for seed in run.seeds if run.find(POOL) else ():
        (candidates,), (gold,) = run.find(POOL, seed=seed), run.find("pool_gold", seed=seed)
        arrays = load_arrays(gold.path / "preference.npz")
        ids, preference_NK = arrays["ids"], arrays["preference_NK"]
        rows = {row.id: row for row in read_rows(candidates.path / f"{POOL}.jsonl", Example)}
        length_NK = np.full(preference_NK.shape, np.nan)
        models_NK = np.full(preference_NK.shape, "", dtype=object)
        for at, row in enumerate(rows[key] for key in ids.tolist()):
            length_NK[at, : len(row.choices)] = [len(text) for text in row.choices]
            models_NK[at, : len(row.choices)] = row.meta["models"]
        rewards = {kind: widened(one, preference_NK) for kind, one in rewards_of(run, POOL, seed, ids).items()}
        found[seed] = Pool(ids, preference_NK, models_NK, length_NK, rewards)
    return found


def widened(rewards: Rewards, like_NK: np.ndarray) -> Rewards:
    scores_MNK = np.full((len(rewards.models), *like_NK.shape), np.nan)
    scores_MNK[..., : rewards.scores_MNK.shape[2]] = rewards.scores_MNK
    return Rewards(rewards.ids, scores_MNK, rewards.models)


def measure(run: Run, sets: Mapping[str, Mapping[int, ScoredPairs]], pools: Mapping[int, Pool]) -> list[Metric]:
    """Every metric. The best member is chosen on the held-out pairs, so it is judged on all other sets."""
    best = measured.best_members(sets[HELD_OUT])
    found = []
    for suite, by_seed in sets.items():
        found += measured.measure_pairs(suite, by_seed, None if suite == HELD_OUT else best)
    if pools:
        probes = run.config["rewards"]["study"]["pool"]["probes"]
        found += measured.measure_pool(pools, probes, best, **how_of(run))
    return found


# --- words -----------------------------------------------------------------------------------------------------------


def headline(run: Run) -> str:
    """The aggregator in the config, which the verdict is about; all are measured."""
    return run.config["rewards"]["aggregate"]["name"]


def verdict(metrics: Sequence[Metric], by: str) -> str:
    """One sentence: the ensemble against one member, and against preferring the longer text, on held-out pairs."""
    over, length = (find(metrics, HELD_OUT, by, f"accuracy_minus_{other}") for other in (MEMBER, LENGTH))
    said = f"on held-out instructions the {NAMES.get(by, by)} of the reward models {compared(over, 'one of them')}"
    return f"{said}, and {compared(length, 'preferring the longer text')}"


def remarks(run: Run, metrics: Sequence[Metric]) -> list[str]:
    """What an honest reader asks next."""
    said, study, by = [], run.config["rewards"]["study"], headline(run)
    what = NAMES.get(by, by)
    for suite in [one for one in suites_of(metrics) if one not in (HELD_OUT, POOL)]:
        gap = find(metrics, suite, by, f"accuracy_minus_{LENGTH}")
        said.append(f"on {suite} the {what} {compared(gap, 'preferring the longer text')}")
    alike = find(metrics, HELD_OUT, "separate", "agreement")
    if alike is not None:
        share = f"{points(alike.value)}% (95% CI {points(alike.low)} to {points(alike.high)})"
        said.append(
            f"two separate reward models order {share} of the held-out pairs alike: no aggregator can change these"
        )
    for kind, whose in (("warm", "the mean of the weights"), ("heads", "heads on one body"), ("adapters", "adapters")):
        gap = find(metrics, HELD_OUT, kind, "accuracy_minus_mean")
        if gap is not None:
            said.append(f"{whose} {compared(gap, 'the mean of the scores')}, on held-out instructions")
    sizes = sizes_of(metrics)
    if sizes:
        random, longest = (find(metrics, POOL, by, f"preference@{sizes[-1]}_minus_{one}") for one in (RANDOM, LENGTH))
        said.append(
            f"in true preference, best of {sizes[-1]} answers by the {what} {compared(random, 'an answer at random')}, "
            f"and {compared(longest, 'the longest answer')}"
        )
    if study["shared_start"]:
        said.append("the separate reward models share the head they start from; their mean of weights is made of them")
    lost = left_out(run.find("pairs")[0].tags["counts"])
    if lost:
        said.append(f"rows of the preference data that make no pair are left out: {lost}")
    missing = sum(one.value for one in metrics if one.name == "unjudged")
    if missing:
        said.append(f"{missing:.0f} scores were not finite: who has none for a text gives its pair half a point")
    return [sentence(words) for words in said]


def left_out(counts: Mapping[str, int]) -> str:
    """Rows that make no pair, by why: '3 equal, 1 empty of 40'."""
    why = [f"{count:,} {what}" for what, count in counts.items() if count and what not in ("rows", "kept", "pairs")]
    return f"{', '.join(why)} of {counts['rows']:,}" if why else ""


def suites_of(metrics: Sequence[Metric]) -> list[str]:
    return list(dict.fromkeys(one.suite for one in metrics))


def sizes_of(metrics: Sequence[Metric]) -> list[int]:
    """The n of best-of-n."""
    names = [one.name for one in metrics if one.suite == POOL and one.model == RANDOM]
    return sorted(
        {int(name.removeprefix("preference@")) for name in names if name.removeprefix("preference@").isdigit()}
    )


# --- pages -----------------------------------------------------------------------------------------------------------


def content_of(
    run: Run, sets: Mapping[str, Mapping[int, ScoredPairs]], metrics: list[Metric], words: str
) -> dict[str, Any]:
    table = {(one.suite, one.model, one.name): one for one in metrics}
    names = [one.model for one in metrics if (one.suite, one.name) == (HELD_OUT, "accuracy")]
    singles = [name for name in names if name.startswith("member ")]
    rows = [name for name in (MEMBER, BEST, *names, RANDOM) if name not in singles]
    sizes = sizes_of(metrics)
    study, best = run.config["rewards"]["study"], measured.best_members(sets[HELD_OUT])
    return {
        "run": run.config["name"],
        "source": run.config["rewards"]["pairs"]["source"]["name"],
        "seeds": run.seeds,
        "verdict": sentence(words),
        "remarks": remarks(run, metrics),
        "suites": [one for one in suites_of(metrics) if one != POOL],
        "rows": [*dict.fromkeys(rows), *singles],
        "gaps": [one for one in dict.fromkeys(rows) if one not in (LENGTH, RANDOM)],
        "brief": [name for name in BRIEF if name in rows],
        "kinds": list(next(iter(sets[HELD_OUT].values())).members),
        "singles": singles,
        "best": best,
        "headline": headline(run),
        "get": lambda suite, model, name: table.get((suite, model, name)),
        "parts": (parts := {suite: parts_of(metrics, suite) for suite in sets}),
        "subsets": {suite: any(part.startswith("subset: ") for part in found) for suite, found in parts.items()},
        "matrix": measured.agreement_matrix(sets[HELD_OUT]).tolist(),
        "sizes": sizes,
        "shown": [*sizes[:-1:2], *sizes[-1:]],
        "probes": study["pool"]["probes"] if sizes else [],
        "chosen": [*dict.fromkeys([MEMBER, BEST, *(r for r in rows if r != RANDOM), *singles, RANDOM, ORACLE])],
        "pairs": [one.tags | {"rows": one.manifest["facts"]} for one in run.find("pairs")],
        "pools": [one.tags | {"rows": one.manifest["facts"]} for one in run.find(POOL)],
        "name": lambda model: NAMES.get(model, model),
        "short": lambda model: DRAWN.get(model, NAMES.get(model, model)),
        "costs": [one for one in costs(run) if one.seconds >= 1],
        "reproduce": reproduce(run),
        "standardise": run.config["rewards"]["standardise"],
        "signed": signed,
        "pictures": {"curve": curve(metrics, sizes, headline(run))} if sizes else {},
    }


def parts_of(metrics: Sequence[Metric], suite: str) -> list[str]:
    """The parts of a set that have numbers of their own, as their metrics name them."""
    parts = (one.name.partition("@")[2] for one in metrics if one.suite == suite and one.model == MEMBER)
    return [part for part in parts if part]


def curve(metrics: Sequence[Metric], sizes: Sequence[int], by: str) -> str:
    """True preference of the chosen answer against n, spaced by divergence from drawing one answer."""
    figure, (axis,) = canvas(3.0, left=0.09, right=0.7, top=0.97, bottom=0.17)
    x, ends = [kl(n) for n in sizes], []
    for name, words in ({by: NAMES.get(by, by)} | DRAWN).items():
        line = [find(metrics, POOL, name, f"preference@{n}") for n in sizes]
        if None in line:
            continue
        colour = ACCENT if name == by else SOFT if name in (LENGTH, RANDOM) else INK
        if name == by:
            band(axis, x, line, colour)
        dashes = (0, (4, 2.5)) if name in (LENGTH, RANDOM) else "-"
        axis.plot(x, [100 * one.value for one in line], color=colour, lw=2 if name == by else 1.1, ls=dashes)
        ends.append((100 * line[-1].value, words, colour))
    name_ends(axis, ends)
    mark_sizes(axis, sizes)
    return svg(figure, "True preference of the chosen answer against n")


def mark_sizes(axis, sizes: Sequence[int]) -> None:
    """The x axis of best-of-n, spaced by divergence from drawing one answer."""
    axis.set_xticks([kl(n) for n in sizes], [str(n) for n in sizes])
    axis.grid(axis="y", color=FAINT, lw=0.6)
    axis.set_xlabel("best of n, spaced by KL = ln n − (n − 1) / n", color=SOFT, size=10)
