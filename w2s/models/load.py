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
from w2s.models import builtin, chat, internals, shortcuts, window
from w2s.models.folders import describe, first_words, name_damage, read_marks, read_model, write_marks
from w2s.models.kinds import KINDS, find_kind
from w2s.models.records import Estimator, Loaded
from w2s.store.records import BadInput

ADAPTER, SIDES = "adapter.safetensors", ("down", "up")
ATTENTION = re.compile(r"(^|\.)(attn|attention|self_attn|self_attention)\.")
POSITIONS = re.compile(r"(^|\.)(wpe|embed_positions|position_embeddings?)\.")
HEADS = re.compile(r"(^|\.)(score|classifier|pre_classifier|classification_head|pooler|lm_head|embed_out)\.")


def load(
    model: Model,
    *,
    path: str | None = None,
    seed: int = 0,
    device: str = "cpu",
    precision: str = "auto",
    max_tokens: int = 512,
    trust_remote_code: bool = False,
) -> Loaded:
    """The model, ready to train: cut to model.layers; only the parameters that model.trainable names need a gradient.

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
    hub = {"revision": model.revision if path is None else None, "trust_remote_code": trust_remote_code}
    with name_damage(source):
        module, tokenizer = read(model, source, seed, pick_dtype(precision, device), hub)
    loaded = Loaded(module.to(device), tokenizer, model, window.limit_tokens(module.config, max_tokens))
    chat.check(loaded, source)
    if KINDS[model.kind].writes:
        loaded = shortcuts.prepare(loaded, source)
    return dataclasses.replace(loaded, module=freeze(module, model, seed))


def load_folder(folder: str | Path, *, device: str = "cpu", precision: str = "auto") -> Loaded:
    """The model that `save` wrote, ready to predict; the folder holds all that is needed."""
    model, marks = read_model(folder)
    return load_saved(model, folder, device=device, precision=precision, max_tokens=marks["max_tokens"])


def load_saved(model: Model, folder: str | Path, *, device: str, precision: str, max_tokens: int) -> Loaded:
    """`model` from a folder whose weights are already cut and have their adapters merged."""
    model = dataclasses.replace(model, layers=None, trainable="all")
    return load(model, path=str(folder), device=device, precision=precision, max_tokens=max_tokens)


def save(loaded: Loaded, folder: str | Path, *, state: dict[str, torch.Tensor] | None = None) -> None:
    """Write a folder for `load_folder`: safetensors (adapters merged), tokenizer and w2s.json.

    `state`: weights to write instead of the module's own, by the same names (DeepSpeed's, or the best look's).
    """
    state = internals.merged(loaded.module, loaded.module.state_dict() if state is None else state)
    loaded.module.save_pretrained(folder, state_dict=state)
    loaded.tokenizer.save_pretrained(folder)
    write_marks(folder, {"model": describe(loaded.model), "max_tokens": loaded.max_tokens})


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


def read(model: Model, source: str, seed: int, dtype: torch.dtype, hub: dict[str, Any]) -> tuple[nn.Module, Any]:
    """Module and tokenizer, read by transformers with the options `hub` and our changes to the configuration."""
    import transformers

    kind = KINDS[model.kind]
    config = transformers.AutoConfig.from_pretrained(source, **hub)
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


def freeze(module: nn.Module, model: Model, seed: int) -> nn.Module:
    """Let only the parameters that model.trainable names, and any classification head, require a gradient."""
    output = module.get_output_embeddings()
    layers = [layer for layer in (module.get_input_embeddings(), output) if layer is not None]
    embeddings = {id(parameter) for layer in layers for parameter in layer.parameters()}
    if model.trainable == "lora":
        add_adapters(module, model.lora_rank, seed)
    kind = KINDS[model.kind]
    for name, parameter in module.named_parameters():
        head = kind.head and bool(HEADS.search(name))
        trained = {
            "all": True,
            "body": id(parameter) not in embeddings and not POSITIONS.search(name),
            "attention": bool(ATTENTION.search(name) or POSITIONS.search(name)),
            "head": kind.writes and parameter is output.weight,
            "lora": internals.is_trained(name),
        }
        parameter.requires_grad_(head or trained[model.trainable])
    if not any(parameter.requires_grad for parameter in module.parameters()):
        name = getattr(module.config, "model_type", "this")
        raise BadInput(f"model.trainable: {model.trainable!r} leaves nothing to train in a {name} model ({model.kind})")
    return module


def add_adapters(module: nn.Module, rank: int, seed: int) -> None:
    """Low-rank adapters (Hu et al. 2021) beside every linear layer of the body, inside the module itself."""
    import peft

    body = module.base_model
    prefix = "" if body is module else module.base_model_prefix + "."
    targets = {prefix + name: layer for name, layer in body.named_modules() if internals.is_linear(layer)}
    if not targets:
        raise BadInput("model.trainable: 'lora' finds no linear layer in this model")
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(targets))
    config.fan_in_fan_out = any(map(internals.is_turned, targets.values()))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(config, module)


def pick_dtype(precision: str, device: str) -> torch.dtype:
    if precision == "auto":
        precision = "bfloat16" if str(device).startswith("cuda") and torch.cuda.is_bf16_supported() else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
