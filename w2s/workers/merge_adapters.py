"""LoRA adapters of one base as one adapter, in the folders that peft writes.

An adapter adds s B A to a layer (s = alpha / r, or alpha / sqrt(r) for rsLoRA). The weighted sum of several is the
adapter with their A one above the other and their weighted B side by side, exactly; adding the A and the B themselves
would be another model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from w2s.models.load import read_tensors, write_tensors
from w2s.store.files import write_json
from w2s.store.records import BadInput

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PLAIN = {
    "use_dora": (False, None), "lora_bias": (False, None), "bias": ("none", None), "modules_to_save": (None, []),
    "rank_pattern": ({}, None), "alpha_pattern": ({}, None), "layer_replication": (None, []), "peft_type": ("LORA",),
    "use_qalora": (False, None), "trainable_token_indices": (None, []), "target_parameters": (None, []),
}  # fmt: skip
"""What an adapter's config must say for it to be s B A and nothing else."""


def is_adapter(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def merge_adapters(
    folders: Sequence[Path], weight_R: Sequence[float], scale: float, rank: int | None, out: Path
) -> None:
    """Write the adapter scale * sum_r w_r s_r B_r A_r into the folder `out`.

    rank: None: exact, of the sum of the ranks; else the best of that rank (Eckart and Young), by SVD.
    """
    configs, adapters = zip(*map(read_adapter, folders), strict=True)
    for folder, config in zip(folders, configs, strict=True):
        if config["base_model_name_or_path"] != configs[0]["base_model_name_or_path"]:
            bases = f"{config['base_model_name_or_path']!r}; {folders[0]} has {configs[0]['base_model_name_or_path']!r}"
            raise BadInput(f"{folder}: its base is {bases}; allowed: adapters of one base")
    shares = [scale * w * scaling_of(config) for w, config in zip(weight_R, configs, strict=True)]
    made: dict[str, Tensor] = {}
    for layer in sorted({layer for adapter in adapters for layer in adapter}):
        downs, ups = zip(
            *(find_part(a, layer, c["r"], adapters) for a, c in zip(adapters, configs, strict=True)), strict=True
        )
        down_KI = torch.cat(downs)
        up_OK = torch.cat([share * up for share, up in zip(shares, ups, strict=True)], 1)
        if rank is not None:
            down_KI, up_OK = shorten(down_KI, up_OK, rank)
        made[f"{layer}.lora_A.weight"], made[f"{layer}.lora_B.weight"] = down_KI, up_OK
    size = rank or sum(config["r"] for config in configs)
    targets = sorted({name for config in configs for name in config.get("target_modules") or []})
    config = configs[0] | {"r": size, "lora_alpha": size, "use_rslora": False, "target_modules": targets}
    out.mkdir(parents=True, exist_ok=True)
    write_tensors(out / WEIGHTS, made)
    write_json(out / CONFIG, config)


def read_adapter(folder: Path) -> tuple[dict[str, Any], dict[str, tuple[Tensor, Tensor]]]:
    """An adapter's config, and layer -> (A, B) in float32; BadInput for one that is more than A and B."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder / CONFIG}: not readable: {error}") from None
    for key, allowed in PLAIN.items():
        if key in config and config[key] not in allowed:
            raise BadInput(f"{folder / CONFIG}: {key}: {config[key]!r} given; allowed: {allowed[0]!r} (plain LoRA)")
    parts = read_tensors(folder / WEIGHTS)
    layers = sorted({name.rsplit(".lora_", 1)[0] for name in parts})
    if wrong := sorted(n for n in parts if not n.endswith((".lora_A.weight", ".lora_B.weight"))):
        raise BadInput(f"{folder / WEIGHTS}: {wrong[0]}: allowed: lora_A and lora_B of linear layers")
    try:
        pairs = {at: tuple(parts[f"{at}.lora_{side}.weight"].float() for side in "AB") for at in layers}
    except KeyError as error:
        raise BadInput(f"{folder / WEIGHTS}: {error.args[0]}: missing") from None
    return config, pairs


def scaling_of(config: dict[str, Any]) -> float:
    return config["lora_alpha"] / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"])


def find_part(adapter: dict, layer: str, rank: int, adapters: Sequence[dict]) -> tuple[Tensor, Tensor]:
    """A learner's A and B of a layer; zeros where it has none."""
    if layer in adapter:
        return adapter[layer]
    down_KI, up_OK = next(one[layer] for one in adapters if layer in one)
    return down_KI.new_zeros(rank, down_KI.shape[1]), up_OK.new_zeros(up_OK.shape[0], rank)


def shorten(down_KI: Tensor, up_OK: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A and B of the given rank whose product is nearest to B A."""
    left_OK, small_KK = torch.linalg.qr(up_OK.double())
    right_IK, other_KK = torch.linalg.qr(down_KI.double().T)
    u_KJ, s_J, vt_JK = torch.linalg.svd(small_KK @ other_KK.T, full_matrices=False)
    root_J = s_J[:rank].sqrt()
    down, up = (root_J[:, None] * vt_JK[:rank]) @ right_IK.T, left_OK @ (u_KJ[:, :rank] * root_J)
    missing = rank - len(root_J)
    down, up = (torch.nn.functional.pad(part, pad) for part, pad in ((down, (0, 0, 0, missing)), (up, (0, missing))))
    return down.float(), up.float()
