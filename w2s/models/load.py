"""Models in and out: a hub name, a folder or a saved learner becomes a module whose candidates can be scored."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from w2s.config.fields import Model
from w2s.models import builtin, folders, internals, score
from w2s.store.hidden import hide_values
from w2s.store.log import say
from w2s.store.records import BadInput

if TYPE_CHECKING:
    from w2s.models.adapters import Adapter

ADAPTER, SIDES = "adapter.safetensors", ("down", "up")
ATTENTION = re.compile(r"(^|\.)(attn|attention|self_attn|self_attention)\.")
POSITIONS = re.compile(r"(^|\.)(wpe|embed_positions|position_embeddings?)\.")
HEADS = re.compile(r"(^|\.)(score|classifier|pre_classifier|classification_head|pooler|lm_head|embed_out)\.")


@dataclass(frozen=True)
class Loaded:
    """A module that is ready to score, its tokenizer and how it was made.

    `head_alone` and `shares_prompt` say which shortcuts of `score` leave this architecture's log-likelihoods unchanged.
    """

    module: nn.Module
    tokenizer: Any
    model: Model
    max_tokens: int = 512
    head_alone: bool = True
    shares_prompt: bool = True
    cuts: dict[str, tuple[bool, bool]] = field(default_factory=dict, compare=False)
    """By id: the examples that `batches.encode` had to cut (the prompt's beginning, a candidate's end)."""

    @property
    def pad_id(self) -> int:
        return self.tokenizer.pad_token_id or 0


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
    """The model, ready to train: cut to model.layers, and only what model.trainable names requires a gradient.

    `path` is read instead of model.path (a builtin: model's folder). Weights that the folder lacks, and all of them in
    a folder marked from_scratch, are drawn from `seed`. `max_tokens` is lowered to what the model can read. Dropout is
    off: what it drops would depend on micro-batches and processes, and a result must not. Anything that cannot be read
    is a BadInput; weights are read from safetensors alone.
    """
    if model.kind == "sklearn":
        raise BadInput("model.kind: 'sklearn' is not read from a folder; see models.pipelines")
    source = path or model.path
    if source.startswith("builtin:"):
        raise BadInput(f"model.path: {source!r} is made by a run before it is read; give its folder")
    revision = model.revision if path is None else None
    with readable(source):
        loaded = read(model, source, revision, seed, precision_of(precision, device), max_tokens, trust_remote_code)
    loaded.module.to(device)
    if model.kind == "lm":
        if not score.looks_back(loaded):
            kind = loaded.module.config.model_type
            raise BadInput(f"model.kind: 'lm' given, but {source} ({kind}) sees what follows; allowed: pair, towers")
        head_alone, shares_prompt = score.probe(loaded)
        loaded = dataclasses.replace(loaded, head_alone=head_alone, shares_prompt=shares_prompt)
        if not shares_prompt:
            kind = loaded.module.config.model_type
            say(f"{source}: a {kind} model cannot share the prompt between candidates; they are read one by one")
    return dataclasses.replace(loaded, module=freeze(loaded.module, model, seed))


def load_folder(folder: str | Path, *, device: str = "cpu", precision: str = "auto") -> Loaded:
    """The model that `save` wrote, ready to predict; the folder alone says what it is."""
    marks = read_marks(folder)
    if "model" not in marks:
        raise BadInput(f"{folder}: not a saved model: w2s.json with the key 'model' is missing")
    # Whatever was cut or adapted is so in the files already.
    model = dataclasses.replace(Model(**marks["model"]), layers=None, trainable="all")
    return load(model, path=str(folder), device=device, precision=precision, max_tokens=marks["max_tokens"])


def save(loaded: Loaded, folder: str | Path, *, state: dict[str, torch.Tensor] | None = None) -> None:
    """A folder that load_folder reads by itself: safetensors (adapters merged), tokenizer and w2s.json.

    `state` = the weights to write instead of the module's own (gathered by DeepSpeed, or the best look's), named alike.
    """
    folder = Path(folder)
    state = internals.merged(loaded.module, loaded.module.state_dict() if state is None else state)
    loaded.module.save_pretrained(folder, state_dict=state)
    loaded.tokenizer.save_pretrained(folder)
    marks = {"model": told(loaded.model), "max_tokens": loaded.max_tokens}
    (folder / "w2s.json").write_text(json.dumps(marks, indent=1) + "\n")


def told(model: Model) -> dict[str, Any]:
    """What a folder says of the model in it; where that came from may be nobody else's business."""
    return dataclasses.asdict(model) | hide_values({"path": model.path, "revision": model.revision})


def save_adapter(folder: str | Path, adapter: Adapter) -> None:
    """What a LoRA learner adds to its base, as adapter.safetensors: "<layer>.down" (I, R) and "<layer>.up" (R, O)."""
    named = {f"{layer}.{side}": part for layer, pair in adapter.items() for side, part in zip(SIDES, pair, strict=True)}
    save_file({name: part.detach().cpu().contiguous() for name, part in named.items()}, Path(folder) / ADAPTER)


def read_adapter(folder: str | Path) -> Adapter:
    """The adapter that `save_adapter` wrote, for `adapters.share`; BadInput where there is none or it is damaged."""
    path = Path(folder) / ADAPTER
    try:
        parts = load_file(path)
        return {name[:-5]: (parts[name], parts[name[:-5] + ".up"]) for name in parts if name.endswith(".down")}
    except (OSError, KeyError, SafetensorError) as error:
        raise BadInput(f"{path}: not readable: {' '.join(str(error).split())[:300]}") from None


def read(model, source, revision, seed, dtype, max_tokens, trust_remote_code) -> Loaded:
    """Configuration, tokenizer and weights as transformers reads them, with our changes to the configuration."""
    import transformers

    quiet()
    where = {"revision": revision, "trust_remote_code": trust_remote_code}
    config = transformers.AutoConfig.from_pretrained(source, **where)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, **where)
    if not len(tokenizer):
        raise BadInput(f"{source}: there is no tokenizer with the model")
    for name, value in vars(config).items():
        if isinstance(value, float) and re.search("dropout|pdrop", name):
            setattr(config, name, 0.0)
    cut(config, model.layers, source)
    auto = {
        "lm": transformers.AutoModelForCausalLM,
        "pair": transformers.AutoModelForSequenceClassification,
        "towers": transformers.AutoModel,
    }[model.kind]
    if model.kind == "pair":
        config.num_labels = 1
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if read_marks(source).get("from_scratch"):
            module = builtin.draw(config, seed, model.kind).to(dtype)
        else:
            module = auto.from_pretrained(source, config=config, dtype=dtype, use_safetensors=True, **where)
    limit = min(max_tokens, getattr(config, "max_position_embeddings", None) or max_tokens)
    return Loaded(module, tokenizer, model, limit)


def quiet() -> None:
    """No progress bars or advice from transformers: a job's output is its own lines."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def cut(config, layers: int | None, source: str) -> None:
    """Ask for the first `layers` layers only; the weights of the others are then not read."""
    if layers is None:
        return
    if layers > config.num_hidden_layers:
        raise BadInput(f"model.layers: {layers} given; allowed: at most {config.num_hidden_layers}, as {source} has")
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]


def freeze(module: nn.Module, model: Model, seed: int) -> nn.Module:
    """Leave a gradient to what model.trainable names, and to a classification head whenever there is one."""
    embeddings = {
        id(p)
        for layer in (module.get_input_embeddings(), module.get_output_embeddings())
        for p in (layer.parameters() if layer is not None else ())
    }
    if model.trainable == "lora":
        add_adapters(module, model.lora_rank, seed)
    for name, parameter in module.named_parameters():
        head = bool(HEADS.search(name)) and model.kind == "pair"
        parameter.requires_grad_(
            {
                "all": True,
                "body": (id(parameter) not in embeddings and not POSITIONS.search(name)) or head,
                "attention": bool(ATTENTION.search(name) or POSITIONS.search(name)) or head,
                "head": head or (model.kind == "lm" and parameter is module.get_output_embeddings().weight),
                "lora": internals.is_trained(name) or head,
            }[model.trainable]
        )
    if not any(parameter.requires_grad for parameter in module.parameters()):
        kind = getattr(module.config, "model_type", "this model")
        raise BadInput(f"model.trainable: {model.trainable!r} leaves nothing to train in a {kind} model ({model.kind})")
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


def precision_of(precision: str, device: str) -> torch.dtype:
    if precision == "auto":
        precision = "bfloat16" if str(device).startswith("cuda") and torch.cuda.is_bf16_supported() else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]


def read_marks(folder: str | Path) -> dict:
    """What w2s wrote about a folder, or nothing."""
    file = Path(folder) / "w2s.json"
    return json.loads(file.read_text()) if file.is_file() else {}


@contextlib.contextmanager
def readable(source: str) -> Iterator[None]:
    """What goes wrong while transformers reads `source`, as one line."""
    if why := folders.absent(source):
        raise BadInput(f"model.path: {why}")
    try:
        yield
    except BadInput:
        raise
    except Exception as error:  # whatever a foreign folder makes a library stumble over
        text = " ".join(str(error).split())
        raise BadInput(f"model.path: {source}: not readable: {text[:300]}") from None
