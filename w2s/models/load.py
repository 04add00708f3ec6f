"""Loading and saving models: a hub name, a folder or a saved learner becomes a module that scores candidates."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from w2s.config.fields import Model
from w2s.models import backends, builtin, chat, internals, shortcuts, trainable, window
from w2s.models.folders import describe, first_words, name_damage, read_marks, read_model, write_marks
from w2s.models.kinds import KINDS, find_kind
from w2s.models.records import Estimator, Loaded
from w2s.store.records import BadInput

ADAPTER, SIDES = "adapter.safetensors", ("down", "up")


def load(
    model: Model,
    *,
    path: str | None = None,
    seed: int = 0,
    device: str = "cpu",
    precision: str = "float32",
    max_tokens: int = 512,
    trust_remote_code: bool = False,
) -> Loaded:
    """The model, ready to train: cut to model.layers; only the parameters that model.trainable names need a gradient.

    `precision`: of the weights: bfloat16, or else float32. A head that scores the last token stays in float32.
    `path` is read instead of model.path (a builtin: model's folder). Weights missing from the folder, and all weights
    of a folder marked from_scratch, are drawn from `seed`. `max_tokens` is lowered to what the model can read. Dropout
    is off: it would make results depend on micro-batches and processes. Weights are read only from safetensors.
    BadInput if anything cannot be read.
    """
    if isinstance(find_kind(model.kind), Estimator):
        raise BadInput(f"model.kind: {model.kind!r} is not a network, so no folder holds it; see models.kinds")
    source = path or model.path
    if source.startswith("builtin:"):
        raise BadInput(f"model.path: {source!r} is made by a run before it is read; give its folder")
    hub = {"revision": model.revision if source == model.path else None, "trust_remote_code": trust_remote_code}
    if problems := backends.lacking(model, torch.cuda.device_count()):
        raise BadInput("\n".join(problems))
    with name_damage(source):
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        module, tokenizer = read(model, source, seed, dtype, hub, device)
    if isinstance(getattr(module, "score", None), nn.Linear):
        module.score.float()
    module = module if internals.is_quantised(module) else module.to(device)
    limit = window.limit_tokens(module.config, max_tokens)
    loaded = Loaded(module, tokenizer, model, limit, precision)
    chat.check(loaded, source)
    if KINDS[model.kind].writes:
        loaded = shortcuts.prepare(loaded, source)
    return dataclasses.replace(loaded, module=trainable.freeze(module, model, seed))


def load_folder(folder: str | Path, *, device: str = "cpu", precision: str | None = None) -> Loaded:
    """The model that `save` wrote, ready to predict; the folder holds all that is needed.

    `precision`: of the weights; None: that in which it predicts.
    """
    model, marks = read_model(folder)
    return load_saved(model, folder, marks, device=device, precision=precision)


def load_saved(
    model: Model, folder: str | Path, marks: Mapping[str, Any], *, device: str, precision: str | None
) -> Loaded:
    """`model` from a folder whose weights are already cut, full, and have their adapters merged; `marks` as `note`
    wrote."""
    model = dataclasses.replace(model, layers=None, trainable="all", quantise="none")
    saved = marks.get("precision", "float32")
    options = {"device": device, "precision": precision or saved, "max_tokens": marks["max_tokens"]}
    return dataclasses.replace(load(model, path=str(folder), **options), precision=saved)


def save(loaded: Loaded, folder: str | Path, *, state: dict[str, torch.Tensor] | None = None) -> None:
    """Write a folder for `load_folder`: safetensors (adapters merged), tokenizer and w2s.json.

    `state`: weights to write instead of the module's own, by the same names (DeepSpeed's, or the best look's).
    A quantised module is turned into a full one for good: its weights as training saw them, and the adapters in them.
    """
    if internals.is_quantised(loaded.module):
        loaded.module.dequantize()
    state = internals.merged(loaded.module, loaded.module.state_dict() if state is None else state)
    loaded.module.save_pretrained(folder, state_dict=state)
    loaded.tokenizer.save_pretrained(folder)
    write_marks(folder, note(loaded))


def note(loaded: Loaded) -> dict[str, Any]:
    """What the folder of a saved model says about it."""
    return {"model": describe(loaded.model), "max_tokens": loaded.max_tokens, "precision": loaded.precision}


def save_adapter(folder: str | Path, adapter: internals.Adapter) -> None:
    """Write what a LoRA learner adds to its base to adapter.safetensors: "<layer>.down" (I, R), "<layer>.up" (R, O)."""
    parts = {f"{layer}.{side}": part for layer, pair in adapter.items() for side, part in zip(SIDES, pair, strict=True)}
    write_tensors(Path(folder) / ADAPTER, parts)


def read_adapter(folder: str | Path) -> internals.Adapter:
    """The adapter that `save_adapter` wrote, for `adapters.share`; BadInput if it is missing or damaged."""
    path = Path(folder) / ADAPTER
    parts = read_tensors(path)
    layers = [name.removesuffix(".down") for name in parts if name.endswith(".down")]
    try:
        return {layer: (parts[f"{layer}.down"], parts[f"{layer}.up"]) for layer in layers}
    except KeyError as error:
        raise BadInput(f"{path}: not readable: {first_words(error)}") from None


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """What `write_tensors` wrote; BadInput if the file is missing or damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{path}: not readable: {first_words(error)}") from None


def read(
    model: Model, source: str, seed: int, dtype: torch.dtype, hub: dict[str, Any], device: str
) -> tuple[nn.Module, Any]:
    """Module and tokenizer, read by transformers with the options `hub` and our changes to the configuration."""
    import transformers

    kind = KINDS[model.kind]
    attention = {} if model.attn == "auto" else {"attn_implementation": model.attn}
    config = transformers.AutoConfig.from_pretrained(source, **attention, **hub)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, **hub)
    if not len(tokenizer):
        raise BadInput(f"{source}: the model has no tokenizer")
    for name, value in vars(config).items():
        if isinstance(value, float) and re.search("dropout|pdrop", name):
            setattr(config, name, 0.0)
    cut(config, model.layers, source)
    if kind.head:
        config.num_labels = 1
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if read_marks(source).get("from_scratch"):
            return builtin.draw(config, seed, kind.builtin).to(dtype), tokenizer
        auto = getattr(transformers, kind.auto)
        hub = hub | backends.options(model, device)
        return auto.from_pretrained(source, config=config, dtype=dtype, use_safetensors=True, **hub), tokenizer


def cut(config, layers: int | None, source: str) -> None:
    """Keep the first `layers` layers; the weights of the others are not read."""
    if layers is None:
        return
    if layers > config.num_hidden_layers:
        raise BadInput(f"model.layers: {layers} given; allowed: at most {config.num_hidden_layers}, as {source} has")
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
