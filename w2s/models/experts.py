"""Dense models of one base as the experts of one sparse model: Llama and Mistral become Mixtral, Qwen3 Qwen3-MoE.

Every layer's MLP is an expert, and a new router sends each token to `active` of them; the rest of the network is the
learners' weighted mean or their base's (sparse upcycling: Komatsuzaki et al., arXiv 2212.05055; Branch-Train-MiX:
Sukhbaatar et al., 2403.07816). The gates of the chosen experts sum to 1, so copies of one model give that model.

Letters: E experts, L layers, N examples, S tokens of all rows, D width of a state, B examples of a batch, R rows.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from w2s.config.fields import Model
from w2s.models import batches, internals, load, routing, score
from w2s.models.folders import MARKS, read_marks
from w2s.models.kinds import KINDS
from w2s.models.records import Encoded, Loaded
from w2s.models.sparse import SPARSE, find_fault
from w2s.models.tokens import fingerprint
from w2s.store.log import say
from w2s.store.records import BadInput, Example

NOT_COPIED = ("model_type", "architectures", "transformers_version", "dtype")
NOT_COPIED += ("layer_types", "use_sliding_window", "mlp_bias")  # the sparse architectures do not know them
SAMPLE = 256
"""Examples on which a trained model's load is measured."""


@dataclass(frozen=True)
class Sizes:
    """How many experts a mixture has, how many of them a token sees, and the strength of the load-balancing loss."""

    experts: int
    active: int
    balance: float


def configure(config: Any, sizes: Sizes, source: str) -> Any:
    """The sparse architecture's configuration for a dense model's; BadInput if there is none that keeps its outputs."""
    if fault := find_fault(config.to_dict()):
        raise BadInput(f"{source}: {fault}")
    kind = SPARSE[config.model_type]
    if not 1 <= sizes.active <= sizes.experts:
        raise BadInput(f"active: {sizes.active} given; allowed: 1 to {sizes.experts}, the number of experts")
    kept = {name: value for name, value in config.to_dict().items() if name not in NOT_COPIED and name[0] != "_"}
    kept |= {"sliding_window": getattr(config, "sliding_window", None), "head_dim": head_dim(config)}
    kept |= {"num_experts_per_tok": sizes.active, "router_aux_loss_coef": sizes.balance}
    if kind == "mixtral":
        kept |= {"num_local_experts": sizes.experts}
    else:
        # Off by default, the gates of the chosen experts would not sum to 1.
        kept |= {
            "num_experts": sizes.experts,
            "norm_topk_prob": True,
            "moe_intermediate_size": config.intermediate_size,
        }
    return transformers.AutoConfig.for_model(kind, **kept)


def head_dim(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def assemble(
    sources: Sequence[str],
    weights: Sequence[float],
    sizes: Sizes,
    *,
    base: str | None = None,
    layers: int | None = None,
) -> Loaded:
    """The model whose experts are the models in the folders `sources` (or their first `layers` layers), its routers 0.

    Everything but the MLPs is their mean by `weights` (0 or more), or that of the model in the folder `base`. The sum
    is in float64, so that equal weights come out bit for bit. BadInput if a model's architecture has no experts, or the
    models differ in more than their weights.
    """
    shares = np.asarray(weights, dtype=float) / np.sum(weights)
    first = module = None
    rest: dict[str, Tensor] = {}
    for source in dict.fromkeys([*sources, *([base] if base else [])]):
        dense = open_dense(source, layers)
        if first is None:
            first, config = dense, configure(dense.module.config, sizes, source)
            auto = getattr(transformers, KINDS[dense.model.kind].auto)
            module = auto.from_config(config, dtype=dense.module.dtype).eval()
        compare(dense, first, source, sources[0])
        state = dense.module.state_dict()
        places = [at for at, path in enumerate(sources) if path == source]
        for at in places:
            set_expert(module, at, state)
        share = float(source == base) if base else float(sum(shares[at] for at in places))
        for name, value in state.items():
            if ".mlp." not in name and share:
                rest[name] = rest.get(name, 0) + share * value.double()
    module.generation_config = copy.deepcopy(first.module.generation_config)
    told = module.load_state_dict({name: value.to(first.module.dtype) for name, value in rest.items()}, strict=False)
    strange = [*told.unexpected_keys, *(name for name in told.missing_keys if ".mlp." not in name)]
    if strange:
        raise BadInput(f"{sources[0]}: the {module.config.model_type} model does not match it in {strange[0]}")
    for router in internals.routers(module):
        nn.init.zeros_(router.weight)
    return Loaded(module, first.tokenizer, first.model, first.max_tokens, first.precision)


def open_dense(source: str, layers: int | None = None) -> Loaded:
    """The model in a folder: one that w2s saved, or a causal language model, cut to its first layers."""
    if "model" in read_marks(source):
        return load.load_folder(source, precision="float32")
    return load.load(Model(path=source, layers=layers), path=source)


def compare(one: Loaded, first: Loaded, source: str, origin: str) -> None:
    """BadInput if two models cannot be experts of one: name the first thing in which they differ."""

    def facts(loaded: Loaded) -> Iterator[tuple[str, Any]]:
        yield "architecture", loaded.module.config.model_type
        yield "kind", loaded.model.kind
        yield "prompt", (loaded.model.prompt, loaded.model.shots)
        yield "tokenizer", fingerprint(loaded)
        for name, value in loaded.module.state_dict().items():
            yield f"the shape of {name}", tuple(value.shape)
        for name in ("rope_parameters", "rms_norm_eps", "hidden_act", "num_attention_heads", "tie_word_embeddings"):
            yield name, getattr(loaded.module.config, name, None)

    for (what, own), (_, others) in zip(facts(one), facts(first), strict=False):
        if own != others:
            raise BadInput(f"{source}: differs from {origin} in {what}; allowed: models of one base")


def set_expert(module: nn.Module, at: int, state: dict[str, Tensor]) -> None:
    """Copy a dense model's MLPs into the expert `at` of every layer."""
    for path, block in internals.expert_blocks(module):
        with torch.no_grad():
            gate, up, down = (state[f"{path}.{part}_proj.weight"] for part in ("gate", "up", "down"))
            block.experts.gate_up_proj[at] = torch.cat([gate, up])
            block.experts.down_proj[at] = down


# --- the routers -----------------------------------------------------------------------------------------------------


def scatter(module: nn.Module, seed: int, noise: float) -> None:
    """Draw the routers' rows from a normal distribution with standard deviation `noise`.

    A router of zeros is a tie, and a tie always goes to the same experts: the others would never be heard, and never
    learn. Little noise leaves the gates almost equal, but lets the choice depend on the token.
    """
    draw = torch.Generator().manual_seed(seed)
    for router in internals.routers(module):
        rows = torch.randn(router.weight.shape, generator=draw) * noise
        router.weight.data.copy_(rows.to(router.weight))


def direct(loaded: Loaded, examples: Sequence[Example], weight_EN: np.ndarray) -> float:
    """Turn each router towards what it sees of the examples that each expert is for; returns the largest condition
    number of a layer's rows.

    Row e is the mean of the router's own inputs (after attention and norm) over the tokens of the examples, weighted by
    weight_EN (rows sum to 1), scaled to length 1; padding does not count. The inputs are recorded while every token
    sees all experts alike. mergekit's `hidden` mode takes the layers' inputs instead, and padding with them.
    """
    routers = internals.routers(loaded.module)
    sums_LED = [torch.zeros(router.weight.shape, dtype=torch.float64) for router in routers]
    asked = [row if row.choices else replace(row, choices=("",)) for row in examples]  # then the prompt alone is read
    encoded, device = batches.encode(loaded, asked), loaded.module.device
    with routing.all_active(routers), torch.inference_mode():
        for chunk in batches.plan_chunks([row.tokens for row in encoded], batches.most_tokens(loaded)):
            batch = batches.collate(loaded, [encoded[at] for at in chunk])
            with routing.watch(routers) as seen:
                score.scores(loaded, batch)
            example_S, mask_S = routing.places(batch)
            mean_BS = torch.zeros(len(chunk), len(mask_S), device=device).scatter_(0, example_S[None], mask_S[None])
            mean_BS /= mean_BS.sum(1, keepdim=True)
            weight_EB = torch.from_numpy(weight_EN[:, chunk])
            for sums_ED, (input_SD, _) in zip(sums_LED, seen, strict=True):
                sums_ED += weight_EB @ (mean_BS @ input_SD.float()).double().cpu()
    for router, sums_ED in zip(routers, sums_LED, strict=True):
        router.weight.data.copy_(nn.functional.normalize(sums_ED, dim=1).to(router.weight))
    return max(condition(router.weight) for router in routers)


def condition(weight_ED: Tensor) -> float:
    """Largest over smallest singular value of a router's rows; infinite if they are dependent."""
    values = torch.linalg.svdvals(weight_ED.detach().double().cpu())
    return float(values[0] / values[-1]) if values[-1] > 1e-12 * values[0] else float("inf")


# --- their load ------------------------------------------------------------------------------------------------------


def measure(loaded: Loaded, encoded: Sequence[Encoded]) -> dict[str, Any]:
    """How the first SAMPLE examples load the experts; {} for a dense model.

    load: each expert's share of the choices, the mean over the layers; least: the smallest share in a layer; starved:
    in how many (layer, expert) pairs it is below 1/(4E); load_entropy: of a layer's shares, the mean over the layers;
    router_entropy: of a token's probabilities; both divided by ln E, so that 1 is even.
    """
    routers = internals.routers(loaded.module)
    if not routers:
        return {}
    encoded, active = encoded[:SAMPLE], loaded.module.config.num_experts_per_tok
    sums_LE, tokens, entropy = [0.0] * len(routers), 0.0, 0.0
    loaded.module.eval()
    for chunk in batches.plan_chunks([row.tokens for row in encoded], batches.most_tokens(loaded)):
        batch = batches.collate(loaded, [encoded[at] for at in chunk])
        with torch.inference_mode(), routing.watch(routers) as seen:
            score.scores(loaded, batch)
        mask_S = routing.places(batch)[1].bool()
        tokens += int(mask_S.sum())
        for at, (_, logits_SE) in enumerate(seen):
            probs_SE = logits_SE[mask_S].double().softmax(-1).cpu()
            chosen_SE = torch.zeros_like(probs_SE).scatter(-1, probs_SE.topk(active, -1).indices, 1.0)
            sums_LE[at] = sums_LE[at] + chosen_SE.sum(0)
            entropy += float(torch.special.entr(probs_SE).sum())
    load_LE = torch.stack(sums_LE) / (tokens * active)
    experts = load_LE.shape[1]
    even = np.log(experts) if experts > 1 else 1.0
    return {
        "experts": experts,
        "active": active,
        "load": [round(share, 4) for share in load_LE.mean(0).tolist()],
        "least": round(float(load_LE.min()), 4),
        "starved": int((load_LE < 1 / (4 * experts)).sum()),
        "load_entropy": round(float(torch.special.entr(load_LE).sum(1).mean() / even), 4),
        "router_entropy": round(float(entropy / (tokens * len(routers)) / even), 4),
    }


def say_unbalanced(module: nn.Module, source: str) -> None:
    """Say so if a model has a load-balancing loss, but not the parts that ours is computed from."""
    kind = getattr(module.config, "model_type", "")
    if getattr(module.config, "router_aux_loss_coef", 0) and not internals.routers(module):
        say(f"{source}: the routers of a {kind} model are not found; it is trained without its load-balancing loss")


def count_parameters(module: nn.Module) -> dict[str, int]:
    """parameters: of the whole model; active_parameters: those that one token passes through; dense_parameters: of the
    dense model with one of the experts and no router. Tied ones are counted once."""
    whole = sum(parameter.numel() for parameter in module.parameters())
    idle = sparse = 0
    for _, block in internals.expert_blocks(module):
        own = sum(parameter.numel() for parameter in block.experts.parameters())
        experts = block.gate.num_experts
        idle += own - own * block.gate.top_k // experts
        sparse += own - own // experts + block.gate.weight.numel()
    return {"parameters": whole, "active_parameters": whole - idle, "dense_parameters": whole - sparse}


def save(loaded: Loaded, folder: Path, source: str) -> None:
    """Write a folder like any of transformers'; w2s's notes are in it if they are in the learner's folder `source`."""
    load.save(loaded, folder)
    if "model" not in read_marks(source):
        (folder / MARKS).unlink()
