"""THE STORY of the reward study: reward models on preference data, their ensembles, and what each of them prefers.

`chain` is the story of one seed; it only declares stages, as in `story.main`. The preferences of the held-out pairs,
the suites and the pool are in stages that no reward model descends from.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial, update_wrapper
from pathlib import Path
from typing import Any, NamedTuple

from w2s.config.fields import Config
from w2s.config.load import kind_checks, reward_model_checks, run_checks
from w2s.config.registry import pick
from w2s.data.preferences import PREFERENCES
from w2s.data.rows import hash_rows
from w2s.rewards.pairs import PAIRS, DrawnPairs
from w2s.stages import Tools
from w2s.stages import reward_study as stages_of_study
from w2s.stages.reward_study import HELD_OUT, POOL
from w2s.store.artifacts import Stage
from w2s.store.records import BadInput, Example, Gold
from w2s.story.checks import check_methods
from w2s.story.rewards import average, fit_head, fit_jointly, fit_separately, score
from w2s.story.teller import UNSEEDED, Stages, Teller

SEPARATE, WARM, HEADS, ADAPTERS = "separate", "warm", "heads", "adapters"


class Data(NamedTuple):
    """The data of the study, read once for all seeds."""

    pairs: DrawnPairs
    suites: dict[str, tuple[list[Example], list[Gold]]]
    pool: stages_of_study.Pool | None


def tell_reward_study(config: Config, tools: Tools, declare: Callable[..., Stage]) -> None:
    """The study of `w2s rewards run`."""
    data = read_data(config)
    for seed in config.seeds:
        chain(Teller(config, seed, tools, declare), data)


def read_data(config: Config) -> Data:
    """Pairs, suites and pool; BadInput if any cannot be read."""
    study, root = config.rewards.study, Path(config.data.root) if config.data.root else None
    suites = {}
    for at, spec in enumerate(study.suites):
        pairs = pick(PREFERENCES, spec, key=f"rewards.study.suites.{at}")(root)
        suites[suite_name(spec)] = (pairs.examples, pairs.gold)
    pool = stages_of_study.read_answers(study.pool, root) if study.pool.outputs else None
    return Data(pick(PAIRS, config.rewards.pairs, key="rewards.pairs")(root), suites, pool)


def chain(teller: Teller, data: Data) -> None:
    """The story of one seed."""
    config, study = teller.config.rewards, teller.config.rewards.study

    # 1. Pairs to learn from, and sets to judge on, with instructions that training has not seen.
    cut = cut_pairs(teller, data)
    pairs = tell_pairs(teller, data, cut)
    sets = {HELD_OUT: pairs, **tell_suites(teller, data)}
    if data.pool is not None:
        sets[POOL] = tell_pool(teller, data.pool, cut)

    # 2. Reward models: separate ones, possibly with a shared start, and the other kinds of ensemble.
    start = fit_head(teller, config, pairs) if WARM in study.compare or study.shared_start else None
    ensembles = {SEPARATE: fit_separately(teller, config, pairs, start if study.shared_start else None)}
    if WARM in study.compare:
        members = ensembles[SEPARATE] if study.shared_start else fit_separately(teller, config, pairs, start)
        ensembles[WARM] = average(teller, members)
    for kind in (HEADS, ADAPTERS):
        if kind in study.compare:
            ensembles[kind] = fit_jointly(teller, dataclasses.replace(config, kind=kind), pairs)

    # 3. Every ensemble scores every set.
    for kind, members in ensembles.items():
        for name, rows in sets.items():  # a stage per set: a further set adds stages and changes none
            score(teller, f"{kind} scores {name}", members, {name: rows}, (name,), {"model": kind, "set": name})


def cut_pairs(teller: Teller, data: Data) -> stages_of_study.Cut:
    """This seed's pairs to fit on and held-out pairs."""
    config = teller.config
    suites = {name: rows for name, (rows, _) in data.suites.items()}
    return stages_of_study.cut(data.pairs, config.rewards.study.held_out, suites, config.data.near, teller.seed)


def tell_pairs(teller: Teller, data: Data, cut: stages_of_study.Cut) -> Stage:
    """The pairs to fit on and the held-out ones, and in a separate stage the preferences of the latter."""
    labels = data.pairs.labels
    gold = {key: int(target_K.argmax()) for key, target_K in zip(labels.ids, labels.target_NK, strict=True)}
    fit_gold, held_out_gold = ([Gold(row.id, gold[row.id]) for row in rows] for rows in (cut.fit, cut.held_out))
    options = {"content": hash_rows((cut.fit, fit_gold)) + hash_rows((cut.held_out, []))}
    tags = {"kind": "pairs", "removed": cut.removed, "counts": data.pairs.counts}
    pairs = write_down(teller, stages_of_study.pairs, "pairs", {"rows": cut, "labels": labels}, options, tags)
    tell_preferred(teller, HELD_OUT, cut.held_out, held_out_gold, {})
    return pairs


def tell_suites(teller: Teller, data: Data) -> Stages:
    """Name -> the pairs of a suite; their preferences are in separate stages."""
    suites = {}
    for name, (rows, gold) in data.suites.items():
        options = {"name": name, "content": hash_rows((rows, []))}
        tags = {"kind": "suite", "set": name, "seed": UNSEEDED}
        suites[name] = write_down(teller, stages_of_study.judged_pairs, name, {"rows": rows}, options, tags)
        tell_preferred(teller, name, rows, gold, {"seed": UNSEEDED})
    return suites


def tell_preferred(teller: Teller, name: str, rows: list[Example], gold: list[Gold], tags: dict[str, Any]) -> None:
    """The preferences of a set's pairs."""
    options, tags = {"name": name, "content": hash_rows((rows, gold))}, {"kind": "gold", "set": name, **tags}
    write_down(teller, stages_of_study.preferred, f"preferred of {name}", {"gold": gold}, options, tags)


def tell_pool(teller: Teller, pool: stages_of_study.Pool, cut: stages_of_study.Cut) -> Stage:
    """The pool's instructions that this seed does not train on; in a separate stage, the preference for each
    answer."""
    config = teller.config
    count = config.rewards.study.pool.instructions
    unseen = stages_of_study.untrained(pool, cut.fit, count, config.data.near, teller.seed)
    rows, words = {"rows": unseen}, hash_rows((unseen.examples, []))
    tags = {"kind": POOL, "counts": unseen.counts}
    answers = write_down(teller, stages_of_study.pool, "pool of answers", rows, {"content": words}, tags)
    known = hashlib.sha256(words.encode() + unseen.preference_NK.tobytes()).hexdigest()[:16]
    work, tags = stages_of_study.pool_preferences, {"kind": "pool_gold"}
    write_down(teller, work, "preferences of the pool", rows, {"content": known}, tags)
    return answers


def write_down(
    teller: Teller, work: Callable, title: str, rows: dict[str, Any], options: dict[str, Any], tags: dict[str, Any]
) -> Stage:
    """A stage that writes rows read before; their hash is among the options."""
    return teller.tell(update_wrapper(partial(work, **rows), work), title, {}, options, tags)


def suite_name(spec: Mapping[str, Any]) -> str:
    """The name of the set; for a file, the file's."""
    return Path(str(spec["path"])).name.split(".")[0] if "path" in spec else str(spec.get("name"))


def checks(config: Config) -> list[str]:
    """A line for everything in the config that this study does not support; no data is read."""
    setting, study = config.rewards, config.rewards.study
    pairs, members = setting.pairs.get("name"), setting.members
    problems = run_checks(config) + kind_checks(setting, study.compare, "rewards.study.compare")
    if config.limit:
        problems.append(f"limit: {config.limit} given; it goes with `w2s run` and `w2s evaluate`")
    if pairs != "preferences":
        problems.append(f"rewards.pairs: {pairs!r} given; allowed here: preferences, with a source")
    problems += suite_checks(study.suites)
    problems += reward_model_checks(setting, alone=not (study.compare or study.shared_start))
    try:
        check_methods(config)
    except BadInput as error:
        problems += str(error).splitlines()
    if members < 2:
        problems.append(f"rewards.members: {members} given; allowed: 2 or more")
    if len(set(study.compare)) < len(study.compare):
        problems.append(f"rewards.study.compare: {study.compare} given; allowed: each kind once")
    models = [learner.model for learner in setting.models]
    bases = {(model.path, model.revision, model.layers) for model in models}
    if len(bases) > 1 and (study.shared_start or study.compare):
        why = "shared_start and rewards.study.compare need members of one base"
        problems.append(f"rewards.models: {len(bases)} different bases given; allowed: 1 ({why})")
    return problems


def suite_checks(suites: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for every suite without a source and every name used twice."""
    problems = []
    for at, spec in enumerate(suites):
        try:
            pick(PREFERENCES, spec, key=f"rewards.study.suites.{at}")
        except BadInput as error:
            problems.append(str(error))
    names = [HELD_OUT, POOL, *map(suite_name, suites)]
    repeated = sorted({name for name in names if names.count(name) > 1})
    return problems + [f"rewards.study.suites: the name {name!r} is already taken" for name in repeated]
