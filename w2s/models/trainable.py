"""Which parameters of a model learn, and where its layers are."""

import re

import torch
from torch import nn

from w2s.config.fields import Model
from w2s.models import backends, internals
from w2s.models.kinds import KINDS
from w2s.store.records import BadInput

ATTENTION = re.compile(r"(^|\.)(attn|attention|self_attn|self_attention)\.")
POSITIONS = re.compile(r"(^|\.)(wpe|embed_positions|position_embeddings?)\.")
HEADS = re.compile(rf"(^|\.)({'|'.join(backends.HEADS)})\.")
NORM = re.compile(r"(?!.*emb)\w*(norm|ln_f)\.")
"""The norm after the layers, beside them."""


def freeze(module: nn.Module, model: Model, seed: int) -> nn.Module:
    """Let only the parameters that model.trainable names, and any classification head, require a gradient."""
    output = module.get_output_embeddings()
    layers = [layer for layer in (module.get_input_embeddings(), output) if layer is not None]
    embeddings = {id(parameter) for layer in layers for parameter in layer.parameters()}
    if model.trainable == "lora":
        add_adapters(module, model, seed)
    top = top_names(module, model) if model.trainable == "top" else ()
    kind = KINDS[model.kind]
    for name, parameter in module.named_parameters():
        head = kind.head and bool(HEADS.search(name))
        trained = {
            "all": True,
            "body": id(parameter) not in embeddings and not POSITIONS.search(name),
            "attention": bool(ATTENTION.search(name) or POSITIONS.search(name)),
            "top": name in top,
            "head": kind.writes and parameter is output.weight,
            "lora": internals.is_trained(name),
        }
        # Quantised weights are whole numbers, which have no gradient.
        parameter.requires_grad_(parameter.is_floating_point() and (head or trained[model.trainable]))
    if not any(parameter.requires_grad for parameter in module.parameters()):
        name = getattr(module.config, "model_type", "this")
        raise BadInput(f"model.trainable: {model.trainable!r} leaves nothing to train in a {name} model ({model.kind})")
    return module


def find_layers(module: nn.Module) -> tuple[str, int] | None:
    """Path of the list of a model's layers, and their number; None if it is not found."""
    base, count = module.base_model, module.config.get_text_config().num_hidden_layers
    lists = [(p, m) for p, m in base.named_modules() if isinstance(m, nn.ModuleList) and len(m) > 0]
    paths = [p for p, layers in lists if len(layers) == count and len({type(layer) for layer in layers}) == 1]
    # The layers are the outermost list of that length: a layer may have as many parts.
    paths = [path for path in paths if not any(path.startswith(other + ".") for other in paths)]
    if len(paths) != 1:
        return None
    return (paths[0] if base is module else f"{module.base_model_prefix}.{paths[0]}"), count


def top_names(module: nn.Module, model: Model) -> set[str]:
    """Names of the parameters of the last model.top layers and of the norm after them."""
    found = find_layers(module)
    if found is None:
        kind = module.config.model_type
        raise BadInput(f"model.trainable: 'top' given; the layers of a {kind} model are not found; allowed: all, lora")
    path, count = found
    if model.top > count:
        raise BadInput(f"model.top: {model.top} given; allowed: at most {count}, as {model.path} has")
    beside = path.rpartition(".")[0] + "." if "." in path else ""
    own = tuple(f"{path}.{at}." for at in range(count - model.top, count))
    names = {name for name, _ in module.named_parameters()}
    norms = {name for name in names if name.startswith(beside) and NORM.match(name.removeprefix(beside))}
    return norms | {name for name in names if name.startswith(own)}


def add_adapters(module: nn.Module, model: Model, seed: int) -> None:
    """Low-rank adapters (Hu et al. 2021) beside the linear layers of the body, inside the module itself.

    All of them, or those whose path ends in one of model.lora_targets.
    """
    import peft

    body = module.base_model
    prefix = "" if body is module else module.base_model_prefix + "."
    linear = {name: layer for name, layer in body.named_modules() if is_adaptable(layer)}
    targets = {prefix + name: layer for name, layer in linear.items()}
    if model.lora_targets is None and internals.routers(module):
        known = ", ".join(dict.fromkeys(path.rpartition(".")[2] for path in targets))
        words = f"null given for a mixture of experts; allowed: some of {known}"
        raise BadInput(f"model.lora_targets: {words} (adapters leave out the experts and their routers)")
    if not targets:
        raise BadInput("model.trainable: 'lora' finds no linear layer in this model")
    if model.lora_targets is not None:
        targets = chosen(targets, model.lora_targets)
    config = peft.LoraConfig(r=model.lora_rank, lora_alpha=2 * model.lora_rank, target_modules=list(targets))
    config.fan_in_fan_out = any(map(internals.is_turned, targets.values()))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(config, module)


def is_adaptable(layer: nn.Module) -> bool:
    return internals.is_linear(layer) or (isinstance(layer, nn.Linear) and internals.is_quantised(layer))


def chosen(layers: dict[str, nn.Module], ends: list[str]) -> dict[str, nn.Module]:
    """The layers whose path ends in one of `ends`, a whole name or several with dots; BadInput if one fits none."""

    def fits(path: str, end: str) -> bool:
        return path == end or path.endswith("." + end)

    for end in ends:
        if not any(fits(path, end) for path in layers):
            known = ", ".join(dict.fromkeys(path.rpartition(".")[2] for path in layers))
            raise BadInput(f"model.lora_targets: {end!r} given; this model's linear layers are: {known}")
    return {path: layer for path, layer in layers.items() if any(fits(path, end) for end in ends)}
