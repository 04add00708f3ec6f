"""mergekit's configuration files, where the method is one of ours (formulas: mergekit 0.1.5, commit a6c4028)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from w2s.store.records import BadInput


@dataclass
class Recipe:
    """A merge as `w2s merge` takes it."""

    models: list[str]
    weights: list[float]
    method: dict[str, Any]
    base: str | None
    scale: float = 1.0
    dtype: str | None = None
    notes: list[str] = field(default_factory=list)
    """Where ours is known to differ from mergekit."""


METHODS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "linear": ({"name": "mean"}, {}),
    "task_arithmetic": ({"name": "mean"}, {}),
    "nuslerp": ({"name": "slerp"}, {}),
    "ties": ({"name": "ties", "density": 1.0}, {"density": "density"}),
    "dare_linear": ({"name": "dare", "density": 1.0}, {"density": "density"}),
    "dare_ties": ({"name": "dare", "density": 1.0, "signs": True}, {"density": "density"}),
    "della_linear": ({"name": "della", "signs": False}, {"density": "density", "epsilon": "spread"}),
    "della": ({"name": "della", "signs": True}, {"density": "density", "epsilon": "spread"}),
    "breadcrumbs": ({"name": "breadcrumbs"}, {"density": "density", "gamma": "largest"}),
    "breadcrumbs_ties": ({"name": "breadcrumbs", "signs": True}, {"density": "density", "gamma": "largest"}),
    "model_stock": ({"name": "stock"}, {}),
    "sce": ({"name": "sce", "density": 1.0}, {"select_topk": "density"}),
}
"""mergekit's method -> ours with mergekit's defaults, and its parameters -> our options."""
DIVIDES = {"linear": True, "ties": True, "nuslerp": True, "model_stock": True, "sce": True}
"""Whether mergekit divides by the sum of the weights where `normalize` is not given; others do not."""
ELECTS = ("dare_ties", "della", "breadcrumbs_ties", "ties")
DRAWS = ("dare_linear", "dare_ties", "della_linear", "della")
KNOWN = ("merge_method", "base_model", "models", "parameters", "dtype", "out_dtype", "tokenizer_source", "name")
ONLY_MEMORY = ("int8_mask",)


def read(path: Path) -> Recipe:
    """The recipe of a file; BadInput with a line for each thing in it that we cannot do."""
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise BadInput(f"{path}: not readable: {str(error).splitlines()[0]}") from None
    if not isinstance(config, dict):
        raise BadInput(f"{path}: a mapping with merge_method and models is expected")
    problems: list[str] = []
    recipe = translate(config, problems)
    if problems:
        raise BadInput("\n".join(f"{path}: {line}" for line in problems))
    return recipe


def translate(config: Mapping[str, Any], problems: list[str]) -> Recipe | None:
    """The recipe, unless something is added to `problems`."""
    name, base, models = config.get("merge_method"), config.get("base_model"), list_models(config, problems)
    problems += [f"{key}: not one of ours; allowed: {', '.join(KNOWN)}" for key in config if key not in KNOWN]
    if config.get("tokenizer_source") not in (None, "base"):
        problems.append(f"tokenizer_source: {config['tokenizer_source']!r} given; allowed: base")
    dtype = config.get("out_dtype") or config.get("dtype")
    if dtype not in (None, "float32", "bfloat16", "float16"):
        problems.append(f"dtype: {dtype!r} given; allowed: float32, bfloat16, float16")
    if name not in METHODS:
        problems.append(f"merge_method: {name!r} given; allowed: {', '.join(METHODS)}")
        return None
    if base is None and name != "linear":
        problems.append(f"base_model: missing; {name} needs it")
    method, options = METHODS[name]
    shared = numbers(config.get("parameters"), "parameters", {"normalize", "lambda", "weight", *options}, problems)
    own = [numbers(one.get("parameters"), f"models.{one['model']}", {"weight", *options}, problems) for one in models]
    method = method | read_options(options, shared, own, problems)
    weights, divides = [one.get("weight", shared.get("weight", 1.0)) for one in own], DIVIDES.get(name, False)
    divides = bool(shared.get("normalize", divides))
    check_weights(name, weights, divides, problems)
    scale = float(shared.get("lambda", 1.0)) * (1.0 if divides else sum(weights))
    told = f"{name}: what is dropped is made up for by 1 / density, as in the paper; mergekit estimates the factor"
    return Recipe([one["model"] for one in models], weights, method, base, scale, dtype, [told] * (name in DRAWS))


def list_models(config: Mapping[str, Any], problems: list[str]) -> list[dict[str, Any]]:
    """The models to merge; the base does not count among them unless it has parameters."""
    models = config.get("models")
    if not isinstance(models, list) or not all(isinstance(m, dict) and isinstance(m.get("model"), str) for m in models):
        problems.append("models: a list of {model, parameters} is expected")
        return []
    return [one for one in models if one["model"] != config.get("base_model") or one.get("parameters")]


def read_options(
    options: Mapping[str, str], shared: Mapping[str, float], own: list[dict[str, float]], problems: list[str]
) -> dict[str, float]:
    """Our options from mergekit's parameters, which may stand at each model or for all."""
    found = {}
    for theirs, ours in options.items():
        values = {one.get(theirs, shared.get(theirs)) for one in own}
        if len(values) > 1:
            problems.append(f"{theirs}: {', '.join(sorted(map(str, values)))} given; allowed: the same for all models")
        if (value := next(iter(values), None)) is not None:
            found[ours] = value
    return found


def check_weights(name: str, weights: list[float], divides: bool, problems: list[str]) -> None:
    if any(weight < 0 for weight in weights):
        problems.append(f"weight: {min(weights):g} given; allowed: 0 or more")
    if not divides and name in ELECTS:
        problems.append(f"parameters.normalize: false for {name}; allowed: true (the sum is divided by them)")
    if not divides and name == "linear" and abs(sum(weights) - 1) > 1e-6:
        problems.append(f"weight: a sum of {sum(weights):g}, and normalize is false; allowed for linear: a sum of 1")


def numbers(given: Any, key: str, allowed: set[str], problems: list[str]) -> dict[str, float]:
    """Parameters that are plain numbers (or true, false) and allowed."""
    found = {}
    for name, value in ({} if given is None else given if isinstance(given, dict) else {"": given}).items():
        if name in ONLY_MEMORY:
            continue
        if name not in allowed:
            problems.append(f"{key}.{name}: not one of ours; allowed: {', '.join(sorted(allowed))}")
        elif not isinstance(value, int | float):
            problems.append(f"{key}.{name}: {value!r} given; allowed: one number for the whole model")
        else:
            found[name] = value
    return found
