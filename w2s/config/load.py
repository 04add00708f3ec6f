"""From a file and the command line to a checked Config.

Defaults <- `base:` file (one level) <- file <- `a.b=c` on the command line. A mapping with `name` (a method and its
options) replaces the one below it whole; every other mapping is merged key by key. All problems are reported at once.
"""

import copy
import dataclasses
import inspect
import re
import typing
from pathlib import Path
from typing import Any

from w2s.config.fields import Config, Learner, RewardModels
from w2s.config.registry import build
from w2s.config.smoke import shrink
from w2s.config.studies import RewardStudy
from w2s.config.tables import load_table
from w2s.config.values import out_of_range
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

    checks: config -> a line for each rule between keys that it breaks (None: the main job's `cross_checks`).
    """
    problems: list[str] = []
    values = read(path, problems)
    for key in COMMAND_LINE_ONLY:
        if lookup(values, key):
            problems.append(f"{path}: {key}: only the command line can switch this on ({key}=true)")
    config, faults = checked(values, overrides, checks or cross_checks)
    if faults:
        # Also wrong without the command line? Unwrapped, so as not to load plug-ins that the command line removed.
        of_file = checked(values, (), inspect.unwrap(checks or cross_checks))[1]
        problems += [f"{path if line in of_file else COMMAND_LINE}: {line}" for line in faults]
    if problems:
        raise BadInput(hide("\n".join(problems)))
    return shrink(config)


def checked(
    values: dict, overrides: typing.Sequence[str], checks: typing.Callable[[Config], list[str]]
) -> tuple[Config, list[str]]:
    """`values` with the command line's `a.b=c` applied, as a configuration, and a line for each problem."""
    problems: list[str] = []
    values = copy.deepcopy(values)
    for override in overrides:
        apply(values, override, problems)
    config = build(Config, resolve(values, problems), "", problems)
    return config, problems or checks(config)


def resolve(values: dict, problems: list[str]) -> dict:
    """The values with each reference, such as `${student.model.path}`, replaced by its value."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    OmegaConf.register_resolver("oc.env", read_variable, replace=True)  # ours keeps the value out of every message
    try:
        return OmegaConf.to_container(OmegaConf.create(values), resolve=True)
    except OmegaConfBaseException as error:
        problems.append(f"{error.full_key}: {one_line(error)}")
        return {}


def from_values(
    values: typing.Mapping[str, Any], overrides: typing.Sequence[str], checks: typing.Callable[[Config], list[str]]
) -> Config:
    """The configuration of a mapping, like a config file's, with `a.b=c` applied; a BadInput lists all problems."""
    config, problems = checked(dict(values), overrides, checks)
    if problems:
        raise BadInput(hide("\n".join(problems)))
    return shrink(config)


def from_overrides(
    overrides: typing.Sequence[str], checks: typing.Callable[[Config], list[str]] | None = None
) -> Config:
    """The defaults with the command line's `a.b=c` applied; a BadInput lists all problems."""
    config, problems = checked({}, overrides, checks or value_checks)
    if problems:
        raise BadInput(hide("\n".join(f"{COMMAND_LINE}: {line}" for line in problems)))
    return config


def read(path: str | Path, problems: list[str], *, is_base: bool = False) -> dict:
    """The file's plain values over those of its `base:` file; plug-in paths become relative to the working folder."""
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
    if isinstance(values.get("plugins"), list):
        values["plugins"] = [beside(path, name) for name in values["plugins"]]
    base = values.pop("base", None)
    if base is None:
        return values
    if is_base:
        raise BadInput(f"{path}: base: a base file cannot have a base of its own")
    if not isinstance(base, str):
        raise BadInput(f"{path}: base: {base!r} given; allowed: a file name")
    below = read(Path(path).parent / base, problems, is_base=True)
    return {**below, **{key: merge(below.get(key), value) for key, value in values.items()}}  # `name` is the run's here


def beside(path: str | Path, plugin: Any) -> Any:
    """A plug-in's file or folder as the config at `path` names it; a module's name stays as it is."""
    is_path = isinstance(plugin, str) and (plugin.endswith(".py") or "/" in plugin)
    return str(Path(path).parent / plugin) if is_path else plugin


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
    """Put one `a.b=c` of the command line into `values`; a list's items are numbered from 0."""
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
    parts = key.split(".")
    node: Any = values
    for at, part in enumerate(parts):
        is_list = isinstance(node, list)
        if is_list and (not part.isdigit() or int(part) >= len(node)):
            problems.append(f"{'.'.join(parts[: at + 1])}: there is no such item; the list has {len(node)}")
            return
        if not isinstance(node, dict | list):
            problems.append(f"{key}: {'.'.join(parts[:at])} is not a mapping")
            return
        place = int(part) if is_list else part
        if at < len(parts) - 1:
            node = node[place] if is_list else node.setdefault(place, {})
    node[place] = merge(node[place] if is_list else node.get(place), value)


def all_learners(config: Config) -> dict[str, Learner]:
    """Config key -> everything that is trained on candidates."""
    learners = {f"learners.{at}": learner for at, learner in enumerate(config.learners)}
    learners |= {f"rewards.models.{at}": learner for at, learner in enumerate(config.rewards.models)}
    return learners | {"student": config.student}


def reward_checks(config: Config) -> list[str]:
    """Rules between the keys of reward models and of their use in the main job."""
    rewards, use = config.rewards, config.label.reward
    problems = reward_model_checks(rewards, alone=rewards.kind == "separate")
    probes = any(learner.model.kind == "probe" for learner in rewards.models)
    if probes and config.student.objective["name"] in ("grpo", "rloo"):
        problems.append(f"student.objective: {config.student.objective['name']!r} given; it needs rewards of kind pair")
    if rewards.kind != "separate" and len(rewards.models) > 1:
        problems.append(f"rewards.models: {len(rewards.models)} given; kind: {rewards.kind} allows 1, for all members")
    if rewards.kind in ("heads", "adapters") and any(one.model.quantise != "none" for one in rewards.models):
        problems.append(f"rewards.models.0.model.quantise: it needs kind: separate or warm; {rewards.kind} given")
    if config.student.model.quantise != "none" and config.student.objective != {"name": "sft"}:
        words = f"{config.student.model.quantise!r} given; allowed with student.objective {config.student.objective}"
        problems.append(f"student.model.quantise: {words}: none")
    problems += kind_checks(rewards, [rewards.kind], "kind")
    if use.strength is not None and use.use != "tilt":
        problems.append(f"label.reward.strength: {use.strength} given; it needs label.reward.use: tilt")
    if use.accept is not None and use.use == "none":
        problems.append(f"label.reward.accept: {use.accept} given; it needs label.reward.use: tilt or best_of_n")
    return problems


def reward_model_checks(rewards: RewardModels, *, alone: bool) -> list[str]:
    """What reward models can be made of. alone: each is a model of its own, so that it may be a probe."""
    kinds = ("pair", "probe") if alone else ("pair",)
    problems = [
        f"rewards.models.{at}.model.kind: {learner.model.kind!r} given; allowed: {', '.join(kinds)}"
        for at, learner in enumerate(rewards.models)
        if learner.model.kind not in kinds
    ]
    probes = any(learner.model.kind == "probe" for learner in rewards.models)
    if probes and rewards.members > len(rewards.models):
        words = f"{rewards.members} given; allowed with probes: at most {len(rewards.models)}, one for each of models"
        problems.append(f"rewards.members: {words}; a second fit of a probe gives the same one")
    return problems


def kind_checks(rewards: RewardModels, kinds: typing.Sequence[str], key: str) -> list[str]:
    """A line for each option that is set but needs a kind of ensemble not among `kinds` (the value of `key`)."""
    needs = {"layers": ("adapters",), "diversity": ("adapters",), "bootstrap": ("heads", "adapters")}
    return [
        f"rewards.{option}: {getattr(rewards, option)} given; it needs {key}: {' or '.join(allowed)}"
        for option, allowed in needs.items()
        if getattr(rewards, option) and not set(allowed) & set(kinds)
    ]


def value_checks(config: Config) -> list[str]:
    """Ranges, and the kinds of models: those of w2s and of loaded plug-ins."""
    kinds = load_table("kinds")
    return (
        out_of_range(config)
        + [
            f"{key}.model.kind: {learner.model.kind!r} given; allowed: one of: {', '.join(kinds)}"
            for key, learner in all_learners(config).items()
            if learner.model.kind not in kinds
        ]
        + [line for key, learner in all_learners(config).items() for line in learner_checks(key, learner)]
    )


def learner_checks(key: str, learner: Learner) -> list[str]:
    """Rules between the keys of a model and its training."""
    problems, model, key = [], learner.model, f"{key}.model"
    if (model.trainable == "top") != (model.top is not None):
        given = "null" if model.top is None else model.top
        problems.append(f"{key}.top: {given} given; trainable: top needs a number, and nothing else takes one")
    if model.lora_targets is not None and (model.trainable != "lora" or not model.lora_targets):
        words = "at least one name, and only with trainable: lora"
        problems.append(f"{key}.lora_targets: {model.lora_targets} given; allowed: {words}")
    if model.quantise != "none" and model.trainable != "lora":
        words = f"{model.quantise!r} given with trainable: {model.trainable}; allowed: trainable: lora"
        problems.append(f"{key}.quantise: {words}")
    if model.attn == "flash_attention_2" and learner.train.precision == "float32":
        problems.append(f"{key}.attn: {model.attn!r} given with train.precision: float32; allowed: auto or bfloat16")
    return problems


def run_checks(config: Config) -> list[str]:
    """Values, seeds and name: what any run needs."""
    problems = value_checks(config)
    if not config.seeds or len(set(config.seeds)) < len(config.seeds) or min(config.seeds, default=0) < 0:
        problems.append(f"seeds: {config.seeds} given; allowed: at least one, all different, none below 0")
    if not NAME.fullmatch(config.name) or config.name.casefold() in TAKEN:
        problems.append(f"name: {config.name!r} given; allowed: {NAME_WORDS}")
    return problems


def cross_checks(config: Config) -> list[str]:
    """What any run needs, and rules between keys. Methods are checked in `story.checks`."""
    problems = run_checks(config)
    thresholds = (config.data.easy_max, config.data.hard_min)
    if thresholds.count(None) != (0 if config.data.easy_share is None else 2):
        is_study = config.rewards.study != RewardStudy() or config.rewards.pairs.get("name") == "preferences"
        hint = " (reward models by themselves: `w2s rewards run`)" if is_study else ""
        problems.append(f"data: give either easy_share, or both easy_max and hard_min{hint}")
    elif config.data.easy_share is None and config.data.easy_max >= config.data.hard_min:
        problems.append(
            f"data.hard_min: {config.data.hard_min} given; allowed: above data.easy_max ({config.data.easy_max})"
        )
    if config.boosting.errors != "in_sample" and config.boosting.folds < 2:
        problems.append(f"boosting.folds: {config.boosting.folds} given; allowed: at least 2")
    if config.boosting.errors == "in_sample" and config.boosting.refit:
        problems.append("boosting.refit: true given; with errors: in_sample a round's one model already sees all rows")
    if config.boosting.tokens.window and config.boosting.tokens.by == "answer":
        problems.append(f"boosting.tokens.window: {config.boosting.tokens.window} given; by: answer allows only 0")
    for key, learner in all_learners(config).items():
        if (learner.model.kind == "sklearn") != (learner.model.pipeline is not None):
            problems.append(f"{key}.model.pipeline: goes with kind: sklearn, and only with it")
        if (train := learner.train).patience and not train.holdout_share:
            problems.append(f"{key}.train.patience: {train.patience} given; it needs train.holdout_share above 0")
    problems += reward_checks(config)
    names = [spec.get("name") for spec in config.evaluation.suites]
    repeated = {name for name in names if names.count(name) > 1}
    return problems + [f"evaluation.suites: {name!r} is listed twice" for name in sorted(repeated, key=str)]


def shown(config: Config) -> dict[str, Any]:
    """The whole configuration as others may read it: secrets redacted, environment variables by reference."""

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
