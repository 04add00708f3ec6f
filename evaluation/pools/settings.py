"""The settings of `w2s combine`: its flags or the keys of its config file, and the methods with their options."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from w2s.config.load import apply as override
from w2s.config.load import read
from w2s.config.plugins import load_plugins
from w2s.config.registry import build, did_you_mean, pick
from w2s.pools.methods import ALL, FAMILIES, METHODS
from w2s.store.records import BadInput


@dataclass(frozen=True)
class Settings:
    """The flags of `w2s combine`, or the keys of its config file."""

    outputs: str = ""
    """A file or folder of recorded outputs."""
    questions: str | None = None
    """The file of questions, unless the outputs' folder holds it."""
    methods: list = field(default_factory=lambda: ["all"])
    """Names of methods or families, `all`, or mappings {name: ..., options}."""
    plugins: list[str] = field(default_factory=list)
    """Python files, packages or modules that add methods; `all` leaves theirs out, so they must be named."""
    suite: str | None = None
    """The suite that evalplus samples are judged by, such as humanevalplus; read from data_root or from the hub."""
    data_root: str | None = None
    models: list[str] = field(default_factory=list)
    """Only these models; [] is all."""
    groups: list[str] = field(default_factory=list)
    """Only the questions of these groups (tasks, subjects); [] is all."""
    costs: dict = field(default_factory=dict)
    """US dollars per answer, by member or pattern (`gpt-4*: 0.01`), where none were recorded; first match counts."""
    unit: str = "$"
    """The unit of costs, recorded or given: for example tokens or seconds."""
    metric: list[str] = field(default_factory=list)
    """lm-eval logs: the metrics that say right or wrong, in order of preference; [] prefers exact_match, acc, ..."""
    filter: list[str] = field(default_factory=list)
    """lm-eval logs: the filters whose answers count, in order of preference; [] takes the one with most answers."""
    limit: int | None = None
    """A smoke run: only the first `limit` questions by id."""
    repeats: int = 5
    """How many times the questions are split into halves."""
    seed: int = 0
    online: bool = False
    """Also run the online protocol, in `repeats` random orders: each label is revealed after its question."""
    encoder: str | None = None
    """A sentence encoder, by folder or hub name, for the features of prompts that routers read; TF-IDF by default."""
    out: str | None = None
    """The folder of results; runs/combine/<name of outputs> by default."""

    @property
    def folder(self) -> Path:
        """Where the results go."""
        name = Path(self.outputs).resolve().stem + (f"-limit-{self.limit}" if self.limit else "")
        return Path(self.out or Path("runs") / "combine" / name)

    @property
    def method_names(self) -> list[str]:
        """The methods and families as named in the settings."""
        return [entry if isinstance(entry, str) else entry["name"] for entry in self.methods]


def read_settings(
    config: str | None, flags: dict[str, Any], overrides: Sequence[str]
) -> tuple[Settings, list[dict[str, Any]]]:
    """The settings, and a spec {name: ..., **options} for each method.

    Flags take precedence over the keys of the config file, METHOD.OPTION=value over both. BadInput with a
    line for each problem.
    """
    problems: list[str] = []
    values = {} if config is None else read(config, problems)
    settings = build(Settings, {**values, **flags}, "", problems)
    load_plugins(settings.plugins, shipped=True)
    if settings.limit is not None and settings.limit < 1:
        problems.append(f"limit: {settings.limit} given; allowed: a whole number above 0")
    if settings.seed < 0:
        problems.append(f"seed: {settings.seed} given; allowed: 0 and above")
    if not settings.outputs:
        problems.append("outputs: none given; a file or folder of recorded outputs is needed")
    specs = expand_methods(settings.methods, problems)
    for text in overrides:
        name = text.partition(".")[0]
        if name not in specs:
            problems.append(f"{text}: {name!r} is not among the methods{did_you_mean(name, specs)}")
        else:
            override(specs, text, problems)
    for name, options in specs.items():
        try:
            pick(METHODS, {"name": name, **options}, key="methods")
            if options.get("seed", 0) < 0:
                problems.append(f"methods.seed: {options['seed']} given; allowed: 0 and above")
        except BadInput as error:
            problems.append(str(error))
    if problems:
        raise BadInput("\n".join(problems))
    return settings, [{"name": name, **options} for name, options in specs.items()]


def expand_methods(methods: Sequence[Any], problems: list[str]) -> dict[str, dict[str, Any]]:
    """The options of each method by name; the two baselines are always among them."""
    specs: dict[str, dict[str, Any]] = {"best_single": {}, "plurality": {}}
    for entry in methods:
        if not isinstance(entry.get("name") if isinstance(entry, dict) else entry, str):
            problems.append(f"methods: {entry!r} given; allowed: a name, or a mapping with a name and options")
        elif isinstance(entry, dict):
            specs[entry["name"]] = {key: value for key, value in entry.items() if key != "name"}
        elif entry == "all":
            specs |= {name: {} for name in ALL if name not in specs}
        elif entry in FAMILIES:
            specs |= {name: {} for name in FAMILIES[entry] if name not in specs}
        elif entry in METHODS:
            specs.setdefault(entry, {})
        else:
            known = ["all", *FAMILIES, *METHODS]
            problems.append(f"methods: {entry!r} is not known{did_you_mean(entry, known)}; see `w2s methods combine`")
    return specs
