"""Hidden states of one layer of a real model, against a plain forward pass of transformers.

    python -m tests.benchmarks.features_real [--questions N] [--layer N] [--repeats N] [--threads N]
                                             [--source NAME --root DIR]

From texts (a question and each of its 4 choices) to the last token's state. Ours: the body cut after the layer, rows of
similar length in batches of 2,048 tokens. The peer: the whole body with output_hidden_states, the best of several batch
sizes, in the given order and sorted by length. `last_layer` is the same for the last layer, where there is nothing to
cut. One JSON line; exit 1 where the directions of a state differ by a cosine below 0.99.
"""

import sys
from functools import partial

import numpy as np
import torch
import transformers

from tests.benchmarks import real
from w2s.models import batches
from w2s.models.load import Loaded
from w2s.models.rows import pad
from w2s.models.tokenizing import bare, front
from w2s.prompts import continuation

OUR_TOKENS = 2048
SIZES = (8, 32, 64)
LOWEST_COSINE = 0.99


def ours(loaded: Loaded, texts: list[str]) -> np.ndarray:
    """states_RD of the last token, after the final norm."""
    rows = [[*front(loaded.tokenizer), *row] for row in bare(loaded.tokenizer, texts)]
    states_RD = np.empty((len(rows), loaded.module.config.hidden_size), dtype=np.float32)
    for chunk in batches.plan_chunks([len(row) for row in rows], OUR_TOKENS):
        length_B = np.array([len(rows[at]) for at in chunk])
        tokens_BT = torch.from_numpy(pad([np.array(rows[at]) for at in chunk], length_B, loaded.pad_id))
        mask_BT = (torch.arange(tokens_BT.shape[1]) < torch.from_numpy(length_B)[:, None]).long()
        hidden_BTD = loaded.module(input_ids=tokens_BT, attention_mask=mask_BT, use_cache=False).last_hidden_state
        states_RD[chunk] = hidden_BTD[torch.arange(len(chunk)), length_B - 1].float().numpy()
    return states_RD


def theirs(loaded: Loaded, texts: list[str], layer: int, size: int, *, by_length: bool) -> np.ndarray:
    """hidden_states[layer] of the last token, after the final norm as ours."""
    order = sorted(range(len(texts)), key=lambda at: -len(texts[at])) if by_length else list(range(len(texts)))
    module, states_RD = loaded.module, np.empty((len(texts), loaded.module.config.hidden_size), dtype=np.float32)
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        inputs = loaded.tokenizer([texts[at] for at in chosen], padding=True, padding_side="right", return_tensors="pt")
        inputs.pop("token_type_ids", None)
        hidden = module(**inputs, output_hidden_states=True, use_cache=False).hidden_states
        last_BD = hidden[layer][torch.arange(len(chosen)), inputs["attention_mask"].sum(1) - 1]
        states_RD[chosen] = (last_BD if layer == len(hidden) - 1 else module.norm(last_BD)).float().numpy()
    return states_RD


def compare(cut: Loaded, whole: Loaded, texts: list[str], repeats: int) -> tuple[dict, float]:
    """What was found at the last layer of `cut`, and the lowest cosine of two states."""
    layer = cut.module.config.num_hidden_layers
    ways = [(size, by_length) for size in SIZES for by_length in (False, True)]
    peers = {
        f"batch {size}{', by length' * by_length}": partial(theirs, whole, texts, layer, size, by_length=by_length)
        for size, by_length in ways
    }
    with torch.inference_mode():
        found = real.compare(partial(ours, cut, texts), peers, repeats)
    tokens = sum(map(len, bare(cut.tokenizer, texts)))
    a, b = found.made, found.peer_made
    cosine_R = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    body, _ = real.count_weights(cut.module)
    told = found.told() | {
        "states_per_second": round(len(texts) / min(found.seconds), 1),
        "tokens_per_second": round(tokens / min(found.seconds)),
        "gflop_per_second": 2 * body * tokens / min(found.seconds) / 1e9,
    }
    return told, float(cosine_R.min())


def main() -> int:
    asked = real.arguments(questions=96, layer=18, repeats=3)
    examples = real.questions(asked, asked.questions)
    with real.smollm(examples, asked.width) as model:
        cut, whole = (model.load(kind="towers", layers=layers) for layers in (asked.layer, None))
        texts = [
            prompt + continuation(text)
            for prompt, example in zip(real.prompts(whole, examples), examples, strict=True)
            for text in example.choices
        ]
        at_layer, at_last = (compare(loaded, whole, texts, asked.repeats) for loaded in (cut, whole))
    fastest, lowest = real.peak(), min(at_layer[1], at_last[1])
    for told, _ in (at_layer, at_last):
        told["share_of_peak"] = round(1e9 * told.pop("gflop_per_second") / fastest, 3)
    real.report(
        "features_real", model, asked, peer=f"transformers {transformers.__version__} forward pass", goal=1.2,
        **at_layer[0], layer=asked.layer, last_layer=at_last[0], states=len(texts),
        peak_gflops=round(fastest / 1e9), lowest_cosine=round(lowest, 5),
    )  # fmt: skip
    return int(lowest < LOWEST_COSINE)


if __name__ == "__main__":
    sys.exit(main())
