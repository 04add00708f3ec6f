"""metrics.json, report.html and report.md of `w2s rewards run`: how good reward models are, and what fools them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from w2s.evaluation.pools.pictures import name_ends
from w2s.evaluation.pools.report import signed
from w2s.evaluation.rewards import reward_study as measured
from w2s.evaluation.rewards.reward_study import BEST, HELD_OUT, LENGTH, MEMBER, ORACLE, POOL, RANDOM, Pool, ScoredPairs
from w2s.evaluation.run.collect import costs, reproduce
from w2s.evaluation.run.pictures import ACCENT, INK, SOFT, band, canvas, name_x, rule, svg
from w2s.evaluation.run.report import write_pages
from w2s.evaluation.run.runs import Findings, Run, finish_study, quantised_bases
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
# Names at the ends of lines.
DRAWN = {MEMBER: "one of them", "mean": "mean", "worst": "worst case", "warm": "WARM", "heads": "heads"}
DRAWN |= {LENGTH: "longest", RANDOM: "at random"}
BRIEF = (MEMBER, "mean", "warm", "heads", "adapters", LENGTH)  # columns of the tables of parts


def finish(folder: Path, *, again: bool = False) -> str:
    """metrics.json, report.html and report.md of a run; returns the verdict (see `finish_study`)."""
    return finish_study(folder, find_out, again=again)


def find_out(run: Run) -> Findings:
    """The results of a reward study, ready to be written."""
    suites = [HELD_OUT, *dict.fromkeys(one.tags["set"] for one in run.find("suite"))]
    sets = {name: {seed: read_pairs(run, name, seed) for seed in run.seeds} for name in suites}
    best, metrics = measured.best_members(sets[HELD_OUT]), []
    for suite, by_seed in sets.items():  # the best member is chosen on the held-out pairs, so it is not judged on them
        metrics += measured.measure_pairs(suite, by_seed, None if suite == HELD_OUT else best)
    if pools := {seed: read_pool(run, seed) for seed in run.seeds if run.find(POOL)}:
        probes = run.config["rewards"]["study"]["pool"]["probes"]
        metrics += measured.measure_pool(pools, probes, best, **how_of(run))
    words = verdict(metrics, headline(run))
    content = content_of(run, sets, metrics, words)
    return Findings(words, metrics, lambda: write_pages("reward_study", content, run.folder, name="report"))


def how_of(run: Run) -> dict[str, Any]:
    """How members' scores are aggregated."""
    return {"by": run.config["rewards"]["standardise"], "aggregate": run.config["rewards"]["aggregate"]}


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


def read_pool(run: Run, seed: int) -> Pool:
    """The pool with every ensemble's scores."""
    (candidates,), (gold,) = run.find(POOL, seed=seed), run.find("pool_gold", seed=seed)
    arrays = load_arrays(gold.path / "preference.npz")
    ids, preference_NK = arrays["ids"], arrays["preference_NK"]
    rows = {row.id: row for row in read_rows(candidates.path / f"{POOL}.jsonl", Example)}
    length_NK = np.full(preference_NK.shape, np.nan)
    models_NK = np.full(preference_NK.shape, "", dtype=object)
    for at, row in enumerate(rows[key] for key in ids.tolist()):
        length_NK[at, : len(row.choices)] = [len(text) for text in row.choices]
        models_NK[at, : len(row.choices)] = row.meta["models"]
    wide, rewards = preference_NK.shape[1], {}
    for kind, one in rewards_of(run, POOL, seed, ids).items():
        padding = ((0, 0), (0, 0), (0, wide - one.scores_MNK.shape[2]))
        scores_MNK = np.pad(one.scores_MNK, padding, constant_values=np.nan)
        rewards[kind] = Rewards(one.ids, scores_MNK, one.models)
    return Pool(ids, preference_NK, models_NK, length_NK, rewards)


def name_of(model: str) -> str:
    return NAMES.get(model, model)


def name_members(config: Mapping[str, Any]) -> dict[str, str]:
    """Where the separate members have several bases: `member 2` -> the same with its base."""
    bases = [Path(one["model"]["path"]).name for one in config["rewards"]["models"]]
    if len(set(bases)) == 1:
        return {}
    return {
        f"member {at + 1}": f"member {at + 1}: {bases[at % len(bases)]}" for at in range(config["rewards"]["members"])
    }


def headline(run: Run) -> str:
    """The config's aggregator, which the verdict is about; all are measured."""
    return run.config["rewards"]["aggregate"]["name"]


def verdict(metrics: Sequence[Metric], by: str) -> str:
    """One sentence: the ensemble against one member, and against preferring the longer text, on held-out pairs."""
    over, length = (find(metrics, HELD_OUT, by, f"accuracy_minus_{other}") for other in (MEMBER, LENGTH))
    said = f"on held-out instructions the {name_of(by)} of the reward models {compared(over, 'one of them')}"
    return f"{said}, and {compared(length, 'preferring the longer text')}"


def remarks(run: Run, metrics: Sequence[Metric]) -> list[str]:
    """Answers to a critical reader's questions."""
    said, by = [], headline(run)
    what = name_of(by)
    for suite in [one for one in suites_of(metrics) if one not in (HELD_OUT, POOL)]:
        gap = find(metrics, suite, by, f"accuracy_minus_{LENGTH}")
        said.append(f"on {suite} the {what} {compared(gap, 'preferring the longer text')}")
    if alike := find(metrics, HELD_OUT, "separate", "agreement"):
        share = f"{points(alike.value)}% (95% CI {points(alike.low)} to {points(alike.high)}) of the held-out pairs"
        said.append(f"two separate reward models order {share} alike: no aggregator can change these")
    for kind, whose in (("warm", "the mean of the weights"), ("heads", "heads on one body"), ("adapters", "adapters")):
        if gap := find(metrics, HELD_OUT, kind, "accuracy_minus_mean"):
            said.append(f"{whose} {compared(gap, 'the mean of the scores')}, on held-out instructions")
    if sizes := sizes_of(metrics):
        random, longest = (find(metrics, POOL, by, f"preference@{sizes[-1]}_minus_{one}") for one in (RANDOM, LENGTH))
        words = f"{compared(random, 'an answer at random')}, and {compared(longest, 'the longest answer')}"
        said.append(f"in true preference, best of {sizes[-1]} answers by the {what} {words}")
    if run.config["rewards"]["study"]["shared_start"]:
        said.append("the separate reward models share the head they start from; their mean of weights is made of them")
    if lost := left_out(run.find("pairs")[0].tags["counts"]):
        said.append(f"rows of the preference data that make no pair are left out: {lost}")
    if missing := sum(one.value for one in metrics if one.name == "unjudged"):
        said.append(f"{missing:.0f} scores were not finite: who has none for a text gives its pair half a point")
    return [sentence(words) for words in said]


def left_out(counts: Mapping[str, int]) -> str:
    """Rows that make no pair, by reason: '3 equal, 1 empty of 40'."""
    why = [f"{count:,} {what}" for what, count in counts.items() if count and what not in ("rows", "kept", "pairs")]
    return f"{', '.join(why)} of {counts['rows']:,}" if why else ""


def suites_of(metrics: Sequence[Metric]) -> list[str]:
    return list(dict.fromkeys(one.suite for one in metrics))


def sizes_of(metrics: Sequence[Metric]) -> list[int]:
    """The n of best-of-n."""
    names = {one.name.removeprefix("preference@") for one in metrics if (one.suite, one.model) == (POOL, RANDOM)}
    return sorted(int(name) for name in names if name.isdigit())


def study_content(run: Run, words: str, remarks: Sequence[str]) -> dict[str, Any]:
    """What the pages of both studies show; words: the verdict."""
    return {
        "run": run.config["name"],
        "seeds": run.seeds,
        "verdict": sentence(words),
        "remarks": [*remarks, *map(sentence, quantised_bases(run))],
        "config": run.config,
        "name": name_of,
        "costs": [one for one in costs(run) if one.seconds >= 1],
        "reproduce": reproduce(run),
    }


Sets = Mapping[str, Mapping[int, ScoredPairs]]  # suite -> seed -> its pairs


def content_of(run: Run, sets: Sets, metrics: list[Metric], words: str) -> dict[str, Any]:
    table = {(one.suite, one.model, one.name): one for one in metrics}
    names = [one.model for one in metrics if (one.suite, one.name) == (HELD_OUT, "accuracy")]
    singles = [name for name in names if name.startswith("member ")]
    rows = [name for name in (MEMBER, BEST, *names, RANDOM) if name not in singles]
    sizes, members = sizes_of(metrics), name_members(run.config)
    return study_content(run, words, remarks(run, metrics)) | {
        "name": lambda model: members.get(model, name_of(model)),
        "suites": [one for one in suites_of(metrics) if one != POOL],
        "rows": [*dict.fromkeys(rows), *singles],
        "gaps": [one for one in dict.fromkeys(rows) if one not in (LENGTH, RANDOM)],
        "brief": [name for name in BRIEF if name in rows],
        "kinds": list(next(iter(sets[HELD_OUT].values())).members),
        "singles": singles,
        "best": measured.best_members(sets[HELD_OUT]),
        "headline": headline(run),
        "get": lambda suite, model, name: table.get((suite, model, name)),
        "parts": (parts := {suite: parts_of(metrics, suite) for suite in sets}),
        "subsets": {suite: any(part.startswith("subset: ") for part in found) for suite, found in parts.items()},
        "matrix": measured.agreement_matrix(sets[HELD_OUT]).tolist(),
        "sizes": sizes,
        "shown": [*sizes[:-1:2], *sizes[-1:]],
        "probes": run.config["rewards"]["study"]["pool"]["probes"] if sizes else [],
        "chosen": [*dict.fromkeys([MEMBER, BEST, *(r for r in rows if r != RANDOM), *singles, RANDOM, ORACLE])],
        "pairs": [one.tags | {"rows": one.manifest["facts"]} for one in run.find("pairs")],
        "pools": [one.tags | {"rows": one.manifest["facts"]} for one in run.find(POOL)],
        "short": lambda model: DRAWN.get(model, name_of(model)),
        "signed": signed,
        "pictures": {"curve": curve(metrics, sizes, headline(run))} if sizes else {},
    }


def parts_of(metrics: Sequence[Metric], suite: str) -> list[str]:
    """The parts of a set with their own numbers, as their metrics name them."""
    parts = (one.name.partition("@")[2] for one in metrics if one.suite == suite and one.model == MEMBER)
    return [part for part in parts if part]


def curve(metrics: Sequence[Metric], sizes: Sequence[int], by: str) -> str:
    """True preference of the chosen answer against n, spaced by divergence from drawing one answer."""
    figure, (axis,) = canvas(3.0, left=0.09, right=0.7, top=0.97, bottom=0.17)
    x, ends = [kl(n) for n in sizes], []
    for name, words in ({by: name_of(by)} | DRAWN).items():
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
    rule(axis)
    name_x(axis, "best of n, spaced by KL = ln n − (n − 1) / n")
