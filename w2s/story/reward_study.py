"""THE STORY of reward models on preference data: pairs by people or a judge, ensembles, and whom they prefer.

`story` reads the pairs and returns the story of one seed, which only declares stages, as in `pipeline`. What was
preferred in the held-out pairs, the suites and the pool stands in stages that no reward model descends from.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from functools import partial, update_wrapper
from pathlib import Path
from typing import Any, NamedTuple

from w2s.config.fields import Config
from w2s.config.load import kind_checks, run_checks
from w2s.config.registry import pick
from w2s.data.preferences import PREFERENCES
from w2s.data.rows import hash_rows
from w2s.rewards.pairs import PAIRS, DrawnPairs
from w2s.stages import Tools, rewards
from w2s.stages import reward_study as preferences
from w2s.stages.reward_study import HELD_OUT, POOL
from w2s.store.artifacts import Stage
from w2s.store.records import BadInput, Example, Gold
from w2s.story import rewards as rewarded
from w2s.story.checks import check_methods
from w2s.story.choices import UNSEEDED, Story

SEPARATE, WARM, HEADS, ADAPTERS = "separate", "warm", "heads", "adapters"


class Data(NamedTuple):
    """What was read, once for all seeds."""

    pairs: DrawnPairs
    suites: dict[str, tuple[list[Example], list[Gold]]]
    pool: preferences.Pool | None


def story(config: Config) -> Callable[[Config, int, Tools, Callable[..., Stage]], None]:
    """Reads the data; what it returns tells the stages of one seed. Whatever cannot be read is a BadInput."""
    study, root = config.rewards.study, Path(config.data.root) if config.data.root else None
    suites = {}
    for at, spec in enumerate(study.suites):
        found = pick(PREFERENCES, spec, key=f"rewards.study.suites.{at}")(root)
        suites[suite_name(spec)] = (found.examples, found.gold)
    pool = preferences.read_answers(study.pool, root) if study.pool.outputs else None
    data = Data(pick(PAIRS, config.rewards.pairs, key="rewards.pairs")(root), suites, pool)
    return lambda config, seed, tools, tell: chain(config, seed, tools, tell, data)


def chain(config: Config, seed: int, tools: Tools, tell: Callable[..., Stage], data: Data) -> None:
    """The story of one seed."""
    told = Preferring(config, seed, tools, tell, data)

    # 1. Pairs to learn from, and sets to be judged on, with instructions that training has not seen.
    pairs = told.cut_pairs()
    told.add_suites()
    if data.pool is not None:
        told.add_pool()

    # 2. Reward models: separate ones, which may share their start, and the other kinds of ensemble.
    given, start = config.rewards, None
    compare, shared = given.study.compare, given.study.shared_start
    if WARM in compare or shared:
        start = rewarded.start_of(told, given, pairs)
    ensembles = {SEPARATE: rewarded.separate(told, given, pairs, start if shared else None)}
    if WARM in compare:
        members = ensembles[SEPARATE] if shared else rewarded.separate(told, given, pairs, start)
        ensembles[WARM] = rewarded.averaged(told, members)
    for kind in (HEADS, ADAPTERS):
        if kind in compare:
            ensembles[kind] = rewarded.joint(told, dataclasses.replace(given, kind=kind), pairs)

    # 3. Everyone scores every set.
    for kind, found in ensembles.items():
        told.score(kind, found)


class Preferring(Story):
    """The stages of one seed as they are told; `sets` holds what reward models are asked about."""

    def __init__(self, config: Config, seed: int, tools: Tools, tell: Callable[..., Stage], data: Data):
        super().__init__(config, seed, tools, tell)
        self.data, self.sets = data, {}

    def put(self, work: Callable, title: str, rows: Mapping[str, Any], *, tags: dict, **choices: Any) -> Stage:
        """A stage that writes rows which were read already; their hash is among the choices."""
        return self.tell(update_wrapper(partial(work, **rows), work), title, {}, tags=tags, **choices)

    def cut_pairs(self) -> Stage:
        suites = {name: rows for name, (rows, _) in self.data.suites.items()}
        drawn, near = self.data.pairs, self.config.data.near
        self.cut = preferences.cut(drawn, self.config.rewards.study.held_out, suites, near, self.seed)
        gold = {
            key: int(target_K.argmax()) for key, target_K in zip(drawn.labels.ids, drawn.labels.target_NK, strict=True)
        }
        held = [Gold(row.id, gold[row.id]) for row in self.cut.held_out]
        content = hash_rows((self.cut.fit, [Gold(row.id, gold[row.id]) for row in self.cut.fit]))
        rows = {"rows": self.cut, "labels": drawn.labels}
        tags = {"kind": "pairs", "removed": self.cut.removed, "counts": drawn.counts}
        held_content = hash_rows((self.cut.held_out, held))
        self.sets[HELD_OUT] = self.put(
            preferences.pairs, "pairs", rows, tags=tags, content=content + hash_rows((self.cut.held_out, []))
        )
        self.put(
            preferences.preferred, f"preferred of {HELD_OUT}", {"gold": held}, tags={"kind": "gold", "set": HELD_OUT},
            name=HELD_OUT, content=held_content,
        )  # fmt: skip
        return self.sets[HELD_OUT]

    def add_suites(self) -> None:
        for name, (rows, gold) in self.data.suites.items():
            tags, content = {"set": name, "seed": UNSEEDED}, hash_rows((rows, gold))
            self.sets[name] = self.put(
                preferences.judged_pairs, name, {"rows": rows}, tags={"kind": "suite", **tags}, name=name,
                content=hash_rows((rows, [])),
            )  # fmt: skip
            self.put(
                preferences.preferred, f"preferred of {name}", {"gold": gold}, tags={"kind": "gold", **tags},
                name=name, content=content,
            )  # fmt: skip

    def add_pool(self) -> None:
        """The instructions of the pool that this seed trains nothing on."""
        asked = self.config.rewards.study.pool
        found = preferences.untrained(
            self.data.pool, self.cut.fit, asked.instructions, self.config.data.near, self.seed
        )
        words, tags = hash_rows((found.examples, [])), {"kind": POOL, "counts": found.counts}
        known = hashlib.sha256(words.encode() + found.preference_NK.tobytes()).hexdigest()[:16]
        rows = {"rows": found}
        self.sets[POOL] = self.put(preferences.pool, "pool of answers", rows, tags=tags, content=words)
        self.put(
            preferences.pool_preferences, "preferences of the pool", rows, tags={"kind": "pool_gold"}, content=known
        )

    def score(self, kind: str, found: Mapping[str, Stage]) -> None:
        """One stage for each set, so that a further set adds stages only."""
        parents = rewarded.numbered("model", found)
        for name, asked in self.sets.items():
            self.tell(
                rewards.scores, f"{kind} scores {name}", {name: asked, **parents},
                tags={"kind": "rewards", "model": kind, "set": name}, names=list(found), sets=(name,),
            )  # fmt: skip


def suite_name(spec: Mapping[str, Any]) -> str:
    """The set's name; a file's is its own."""
    return Path(str(spec["path"])).name.split(".")[0] if "path" in spec else str(spec.get("name"))


def checks(config: Config) -> list[str]:
    """Everything in the config that this run cannot work with; no data are read."""
    given = config.rewards
    problems = run_checks(config) + kind_checks(given, given.study.compare, "rewards.study.compare")
    if config.limit:
        problems.append(f"limit: {config.limit} given; it goes with `w2s run` and `w2s evaluate`")
    if given.pairs.get("name") != "preferences":
        problems.append(f"rewards.pairs: {given.pairs.get('name')!r} given; allowed here: preferences, with a source")
    for at, spec in enumerate(given.study.suites):
        try:
            pick(PREFERENCES, spec, key=f"rewards.study.suites.{at}")
        except BadInput as error:
            problems.append(str(error))
    names = [HELD_OUT, POOL, *map(suite_name, given.study.suites)]
    problems += [
        f"rewards.study.suites: {name!r} is there twice, or taken"
        for name in sorted({one for one in names if names.count(one) > 1})
    ]
    for at, one in enumerate(given.models):
        key = f"rewards.models.{at}.model"
        if one.model.kind != "pair":
            problems.append(f"{key}.kind: {one.model.kind!r} given; allowed: pair (a reward model has a head)")
    try:
        check_methods(config)
    except BadInput as error:
        problems += str(error).splitlines()
    if given.members < 2:
        problems.append(f"rewards.members: {given.members} given; allowed: 2 or more")
    if len(set(given.study.compare)) < len(given.study.compare):
        problems.append(f"rewards.study.compare: {given.study.compare} given; allowed: each kind once")
    alike = {(one.model.path, one.model.revision, one.model.layers) for one in given.models}
    if len(alike) > 1 and (given.study.shared_start or given.study.compare):
        why = "shared_start and rewards.study.compare need members of one base"
        problems.append(f"rewards.models: {len(alike)} different bases given; allowed: 1 ({why})")
    return problems
