"""From a file and the command line to a checked Config.

Defaults <- `base:` file (one level) <- file <- `a.b=c` on the command line. A mapping with `name` (a method and its
options) replaces the one below it whole; every other mapping is merged key by key. All problems are said at once.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import re
import typing
from pathlib import Path
from typing import Any

from w2s.config.fields import Config, Learner, RewardModels, Sizes
from w2s.config.registry import build
from w2s.config.smoke import limited
from w2s.config.studies import RewardSuites
from w2s.store.hidden import hide, hide_values, read_variable
from w2s.store.records import BadInput

COMMAND_LINE = "command line"
COMMAND_LINE_ONLY = ("runtime.trust_remote_code", "runtime.allow_unsandboxed")
SECRET = re.compile(r"(token|secret|password|api_?key)", re.IGNORECASE)
NAME = re.compile(r"(?!.*\.(lock|partial|new)$)\w[\w.-]{0,79}", re.IGNORECASE)
TAKEN = ("store", "combine", "compare", "judge", "evaluate")  # other folders of runs_dir
NAME_WORDS = (
    "letters, digits, '.', '_', '-', at most 80, the first a letter, digit or '_'; not "
    f"{', '.join(TAKEN)}, and no name that ends in .lock, .partial or .new"
)


def load(
    path: str | Path, overrides: typing.Sequence[str] = (), checks: typing.Callable[[Config], list[str]] | None = None
) -> Config:
    """The checked configuration, or one BadInput with a line for each problem that blames the file or the command line.

    checks: what keys that depend on each other must satisfy (None: the main job's `cross_checks`).
    """
    problems: list[str] = []
    values = read(path, problems)
    for key in COMMAND_LINE_ONLY:
        if lookup(values, key):
            problems.append(f"{path}: {key}: only the command line can switch this on ({key}=true)")
    config, found = checked(values, overrides, checks or cross_checks)
    if found:
        of_file = checked(values, (), checks or cross_checks)[1]  # wrong without the command line too
        problems += [f"{path if line in of_file else COMMAND_LINE}: {line}" for line in found]
    if problems:
        raise BadInput(hide("\n".join(problems)))
    return limited(config)


def checked(
    values: dict, overrides: typing.Sequence[str], checks: typing.Callable[[Config], list[str]]
) -> tuple[Config, list[str]]:
    """`values` with `a.b=c` of the command line over them as a configuration, and everything that is wrong with it."""
    problems: list[str] = []
    values = copy.deepcopy(values)
    for override in overrides:
        apply(values, override, problems)
    config = build(Config, resolve(values, problems), "", problems)
    return config, problems or checks(config)


def resolve(values: dict, problems: list[str]) -> dict:
    """`${student.model.path}` and the like, after the command line has had its say."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    OmegaConf.register_resolver("oc.env", read_variable, replace=True)  # the same, and what it gives is shown nowhere
    try:
        return OmegaConf.to_container(OmegaConf.create(values), resolve=True)
    except OmegaConfBaseException as error:
        problems.append(f"{error.full_key}: {one_line(error)}")
        return {}


def from_overrides(overrides: typing.Sequence[str]) -> Config:
    """The defaults with `a.b=c` of the command line over them."""
    config, problems = checked({}, overrides, range_checks)
    if problems:
        raise BadInput(hide("\n".join(f"{COMMAND_LINE}: {line}" for line in problems)))
    return config


def read(path: str | Path, problems: list[str], *, is_base: bool = False) -> dict:
    """The file's plain values over those of its `base:` file."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        values = OmegaConf.to_container(OmegaConf.load(path))
    except FileNotFoundError:
        raise BadInput(f"{path}: there is no such file") from None
    except (YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise BadInput(f"{path}{line}: not readable: {one_line(getattr(error, 'problem', None) or error)}") from None
    if not isinstance(values, dict):
        raise BadInput(f"{path}: a mapping of keys is expected, a list or text was given")
    base = values.pop("base", None)
    if base is None:
        return values
    if is_base:
        raise BadInput(f"{path}: base: a base file cannot have a base of its own")
    if not isinstance(base, str):
        raise BadInput(f"{path}: base: {base!r} given; allowed: a file name")
    below = read(Path(path).parent / base, problems, is_base=True)
    return {**below, **{key: merge(below.get(key), value) for key, value in values.items()}}  # `name` is the run's here


def one_line(error: object) -> str:
    return str(error).strip().split("\n")[0]


def merge(below: Any, above: Any) -> Any:
    """`above` over `below`; a mapping with `name` replaces the one below it whole."""
    if not isinstance(below, dict) or not isinstance(above, dict) or ("name" in above and "name" in below):
        return above
    return {**below, **{key: merge(below.get(key), value) for key, value in above.items()}}


def lookup(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def apply(values: dict, override: str, problems: list[str]) -> None:
    """Put one `a.b=c` of the command line into `values`; list items are numbered from 0."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    key, equals, text = override.partition("=")
    if not equals or not key:
        problems.append(f"{override!r}: not understood; an override is written key=value")
        return
    try:
        value = OmegaConf.to_container(OmegaConf.create(f"value: {text}"))["value"]
    except (YAMLError, OmegaConfBaseException) as error:
        problems.append(f"{key}: {text!r} is not readable: {one_line(error)}")
        return
    *parents, last = key.split(".")
    node: Any = values
    for at, part in enumerate(parents):
        if isinstance(node, list):
            if not part.isdigit() or int(part) >= len(node):
                problems.append(f"{'.'.join(parents[: at + 1])}: there is no such item; the list has {len(node)}")
                return
            node = node[int(part)]
        else:
            node = node.setdefault(part, {}) if isinstance(node, dict) else None
        if not isinstance(node, dict | list):
            problems.append(f"{key}: {'.'.join(parents[: at + 1])} is not a mapping")
            return
    if isinstance(node, list):
        if not last.isdigit() or int(last) >= len(node):
            problems.append(f"{key}: there is no such item; the list has {len(node)}")
            return
        node[int(last)] = merge(node[int(last)], value)
    else:
        node[last] = merge(node.get(last), value)


ABOVE_0, SHARE, NOT_BELOW_0, BELOW_1 = "above 0", "from 0 to 1", "0 or more", "from 0 up to, not including, 1"
BETWEEN, NOT_BELOW_1 = "above 0 and below 1", "1 or more"
WITHIN = {
    ABOVE_0: lambda value: value > 0,
    SHARE: lambda value: 0 <= value <= 1,
    NOT_BELOW_0: lambda value: value >= 0,
    BELOW_1: lambda value: 0 <= value < 1,
    BETWEEN: lambda value: 0 < value < 1,
    NOT_BELOW_1: lambda value: value >= 1,
}
RANGES = {
    **{f"data.sizes.{field.name}": ABOVE_0 for field in dataclasses.fields(Sizes)},
    **{f"runtime.{name}": ABOVE_0 for name in ("slots", "processes", "threads", "micro_batch", "checkpoint_every")},
    **{f"evaluation.{name}": ABOVE_0 for name in ("bins", "programs", "max_new_tokens")},
    **dict.fromkeys(("limit", "boosting.rounds", "boosting.patience"), ABOVE_0),
    **dict.fromkeys(("label.temperature", "label.top"), ABOVE_0),
    **{f"rewards.{name}": ABOVE_0 for name in ("members", "head_steps", "layers", "rank")},
    **dict.fromkeys(("rewards.diversity", "label.reward.strength"), NOT_BELOW_0),
    **{"rewards.study.held_out": BETWEEN, "rewards.study.pool.instructions": ABOVE_0},
    **{f"rewards.curve.{name}": ABOVE_0 for name in ("pairs", "questions", "samples", "temperature")},
    **{f"writing.{name}": ABOVE_0 for name in ("max_new_tokens", "samples", "temperature")},
    **{
        "data.easy_share": BETWEEN,
        "data.near": SHARE,
        "boosting.min_effective_share": SHARE,
        "boosting.least_effective_share": SHARE,
        "boosting.tokens.window": NOT_BELOW_0,
        "boosting.tokens.cap": NOT_BELOW_1,  # no weight can lie below so many times the mean and all together sum to 1
    },
    **{f"evaluation.{name}": NOT_BELOW_0 for name in ("samples", "temperature")},
}
LEARNER_RANGES = {
    **{f"train.{name}": ABOVE_0 for name in ("epochs", "steps", "batch", "lr", "clip", "eval_every", "patience")},
    **dict.fromkeys(("train.max_tokens", "model.layers", "model.lora_rank"), ABOVE_0),
    **{"train.weight_decay": NOT_BELOW_0, "train.warmup_share": SHARE},
    **{f"train.{name}": BELOW_1 for name in ("beta2", "holdout_share")},
}


def range_checks(config: Config) -> list[str]:
    """Numbers that are out of their range; null stands for a default and is not checked."""
    asked = [(key, functools.reduce(getattr, key.split("."), config), RANGES[key]) for key in RANGES]
    asked += [
        (f"{who}.{key}", functools.reduce(getattr, key.split("."), one), LEARNER_RANGES[key])
        for who, one in all_learners(config).items()
        for key in LEARNER_RANGES
    ]
    return [
        f"{key}: {value} given; allowed: {allowed}"
        for key, value, allowed in asked
        if value is not None and not WITHIN[allowed](value)
    ]


def all_learners(config: Config) -> dict[str, Learner]:
    """Config key -> whatever is trained on candidates."""
    found = {f"learners.{at}": one for at, one in enumerate(config.learners)}
    found |= {f"rewards.models.{at}": one for at, one in enumerate(config.rewards.models)}
    return found | {"student": config.student}


def reward_checks(config: Config) -> list[str]:
    """What reward models and their use in the main job rule out."""
    wanted, use = config.rewards, config.label.reward
    problems = [
        f"rewards.models.{at}.model.kind: {one.model.kind!r} given; allowed: pair"
        for at, one in enumerate(wanted.models)
        if one.model.kind != "pair"
    ]
    if wanted.kind != "separate" and len(wanted.models) > 1:
        problems.append(f"rewards.models: {len(wanted.models)} given; kind: {wanted.kind} allows 1, which all begin as")
    problems += kind_checks(wanted, [wanted.kind], "kind")
    if use.strength is not None and use.use != "tilt":
        problems.append(f"label.reward.strength: {use.strength} given; it needs label.reward.use: tilt")
    if use.accept is not None and use.use == "none":
        problems.append(f"label.reward.accept: {use.accept} given; it needs label.reward.use: tilt or best_of_n")
    return problems


def kind_checks(wanted: RewardModels, kinds: typing.Sequence[str], key: str) -> list[str]:
    """Options of kinds of ensemble that are not among the `kinds`, which stand under `key`."""
    needs = {"layers": ("adapters",), "diversity": ("adapters",), "bootstrap": ("heads", "adapters")}
    return [
        f"rewards.{option}: {getattr(wanted, option)} given; it needs {key}: {' or '.join(allowed)}"
        for option, allowed in needs.items()
        if getattr(wanted, option) and not set(allowed) & set(kinds)
    ]


def run_checks(config: Config) -> list[str]:
    """Ranges, seeds and name: what any run needs."""
    problems = range_checks(config)
    if not config.seeds or len(set(config.seeds)) < len(config.seeds) or min(config.seeds, default=0) < 0:
        problems.append(f"seeds: {config.seeds} given; allowed: at least one, all different, none below 0")
    if not NAME.fullmatch(config.name) or config.name.casefold() in TAKEN:
        problems.append(f"name: {config.name!r} given; allowed: {NAME_WORDS}")
    return problems


def cross_checks(config: Config) -> list[str]:
    """These, and keys that depend on each other. Method names are checked by the pipeline, which knows the tables."""
    problems = run_checks(config)
    if (config.data.easy_share is None) == (config.data.easy_max is None or config.data.hard_min is None):
        of_study = config.rewards.study != RewardSuites() or config.rewards.pairs.get("name") == "preferences"
        hint = " (reward models by themselves: `w2s rewards run`)" if of_study else ""
        problems.append(f"data: give either easy_share, or both easy_max and hard_min{hint}")
    elif config.data.easy_share is None and config.data.easy_max >= config.data.hard_min:
        problems.append(
            f"data.hard_min: {config.data.hard_min} given; allowed: above data.easy_max ({config.data.easy_max})"
        )
    if config.boosting.errors != "in_sample" and config.boosting.folds < 2:
        problems.append(f"boosting.folds: {config.boosting.folds} given; allowed: at least 2")
    if config.boosting.tokens.window and config.boosting.tokens.by == "answer":
        problems.append(f"boosting.tokens.window: {config.boosting.tokens.window} given; by: answer allows 0 alone")
    for at, learner in enumerate(config.learners):
        if (learner.model.kind == "sklearn") != (learner.model.pipeline is not None):
            problems.append(f"learners.{at}.model.pipeline: goes with kind: sklearn, and only with it")
    if config.student.model.kind == "sklearn":
        problems.append("student.model.kind: 'sklearn' given; allowed: lm, pair, towers")
    for key, one in all_learners(config).items():
        if one.train.patience and not one.train.holdout_share:
            problems.append(f"{key}.train.patience: {one.train.patience} given; it needs train.holdout_share above 0")
    problems += reward_checks(config)
    named = [spec.get("name") for spec in config.evaluation.suites]
    problems += [
        f"evaluation.suites: {name!r} is there twice"
        for name in sorted({n for n in named if named.count(n) > 1}, key=str)
    ]
    return problems


def shown(config: Config) -> dict[str, Any]:
    """The whole configuration as it may be read by others: secrets redacted, values of the environment by reference."""

    def redact(node: Any, key: str = "") -> Any:
        if isinstance(node, dict):
            return {k: redact(v, k) for k, v in node.items()}
        if isinstance(node, list):
            return [redact(v, key) for v in node]
        return "[redacted]" if isinstance(node, str) and SECRET.search(key) else node

    return hide_values(redact(dataclasses.asdict(config)))


def to_yaml(config: Config) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(shown(config)))
