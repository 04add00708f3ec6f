"""8 LoRA learners of a real model that write together: one shared forward pass, against peft.

    python -m tests.benchmarks.committee_lora_real [--questions N] [--tokens N] [--repeats N] [--threads N]
                                                   [--source NAME --root DIR]

Greedy texts of the mean of the learners' distributions, for one prompt and for N together. The peer is the faster of
peft's two ways: `set_adapter` and a forward pass per learner and token, or one pass with `adapter_names` (a mixed
batch); each learner has its cache. Adapters as in `committee_decoding`, their weights in `real.PRECISION` on both
sides. One JSON line; exit 1 where a text differs other than by a choice between tokens whose mixed log-probabilities
are within TIE (0.5).
"""

import copy
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version

import peft
import torch
from torch import Tensor

from tests.benchmarks import real
from tests.benchmarks.committee_decoding import LEARNERS, RANK, make_adapter
from w2s.models import committee, generate
from w2s.models.adapters import share
from w2s.models.internals import Adapter, cache_name
from w2s.models.load import Loaded
from w2s.models.rows import pad_left, positions
from w2s.models.tokenizing import encode_prompts

TIE = 0.5
NAMES = [f"learner{at}" for at in range(LEARNERS)]


def make_peer(base: Loaded, adapters: Sequence[Adapter]) -> peft.PeftModel:
    """The base with all adapters as peft keeps them, in the base's precision."""
    config = peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    options = {"autocast_adapter_dtype": False}
    model = peft.get_peft_model(copy.deepcopy(base.module), config, NAMES[0], **options)
    for name in NAMES[1:]:
        model.add_adapter(name, config, **options)
    for name, adapter in zip(NAMES, adapters, strict=True):
        for path, (down_IR, up_RO) in adapter.items():
            layer = model.get_submodule(f"base_model.model.{path}")
            layer.lora_A[name].weight.data.copy_(down_IR.T)
            layer.lora_B[name].weight.data.copy_(up_RO.T)
    return model.eval()


class Reader:
    """peft's learners in the middle of a batch of texts."""

    def __init__(self, model: peft.PeftModel, *, mixed: bool):
        self.model, self.mixed, self.cache_name = model, mixed, cache_name(model.get_base_model())
        self.caches = dict.fromkeys(["all"] if mixed else NAMES)

    def read(self, fresh_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """logits_LBV of the next token."""
        position_BT = positions(mask_BT)[:, -fresh_BT.shape[1] :]
        inputs = {"input_ids": fresh_BT, "attention_mask": mask_BT, "position_ids": position_BT}
        if self.mixed:
            names = [name for name in NAMES for _ in fresh_BT]
            inputs = {name: value.repeat(LEARNERS, 1) for name, value in inputs.items()}
            return self.run("all", inputs, adapter_names=names).unflatten(0, (LEARNERS, -1))
        parts = []
        for name in NAMES:
            self.model.set_adapter(name)
            parts.append(self.run(name, inputs))
        return torch.stack(parts)

    def run(self, name: str, inputs: dict[str, Tensor], **options) -> Tensor:
        options |= {self.cache_name: self.caches[name], "use_cache": True, "logits_to_keep": 1}
        out = self.model(**inputs, **options)
        self.caches[name] = out[self.cache_name]
        return out.logits[:, -1]


def mix(logits_LBV: Tensor) -> Tensor:
    return logits_LBV.float().softmax(-1).mean(0)


def theirs(base: Loaded, model: peft.PeftModel, prompts: list[str], new: int, *, mixed: bool) -> list[list[int]]:
    reader, ends = Reader(model, mixed=mixed), torch.tensor(generate.end_marks(base), dtype=torch.long)
    fresh_BT, mask_BT = pad_left(encode_prompts(base, prompts), base.pad_id, base.module.device)
    open_B, made = torch.ones(len(prompts), dtype=torch.bool), [[] for _ in prompts]
    for _ in range(new):
        token_B = mix(reader.read(fresh_BT, mask_BT)).argmax(-1)
        open_B = open_B & ~torch.isin(token_B, ends)
        for at in open_B.nonzero()[:, 0].tolist():
            made[at].append(int(token_B[at]))
        if not open_B.any():
            break
        fresh_BT, mask_BT = token_B[:, None], torch.cat([mask_BT, open_B[:, None].to(mask_BT)], 1)
    return made


def ours(voices: list, prompts: list[str], new: int) -> list[list[int]]:
    parts = committee.decode(voices, prompts, [1.0] * LEARNERS, max_new_tokens=new)
    return [one.tokens for one in sorted((one for part in parts for one in part), key=lambda one: one.prompt)]


def main() -> int:
    asked, found, gaps = real.arguments(questions=16, tokens=24, repeats=3), {}, []
    examples = real.questions(asked, asked.questions)
    with real.smollm(examples, asked.width) as model, torch.inference_mode():
        base = model.load()
        base.module.eval()
        adapters = [make_adapter(base, seed) for seed in range(LEARNERS)]
        voices, peer = share(base, adapters), make_peer(base, adapters)

        def log_mixture(tokens: list[int]) -> Tensor:
            inputs = torch.tensor([tokens])
            return mix(Reader(peer, mixed=False).read(inputs, torch.ones_like(inputs)))[0].log()

        for size in dict.fromkeys((1, len(examples))):
            prompts = real.prompts(base, examples[:size])
            ways = {"set_adapter": False, "adapter_names": True}
            peers = {name: partial(theirs, base, peer, prompts, asked.tokens, mixed=way) for name, way in ways.items()}
            compared = real.compare(partial(ours, voices, prompts, asked.tokens), peers, asked.repeats)
            found[size] = compared
            rows, texts = encode_prompts(base, prompts), (compared.made, compared.peer_made)
            gaps.append(real.part_ways(log_mixture, rows, *texts, base.tokenizer.eos_token_id))
    body, head = real.count_weights(base.module)
    last, read = found[len(examples)], sum(map(len, encode_prompts(base, real.prompts(base, examples))))
    written = sum(map(len, last.made))
    operations = 2 * LEARNERS * (body * (read + written) + head * (written + len(examples)))
    fastest = real.peak()
    real.report(
        "committee_lora_real", model, asked, ratio=found[1].told()["ratio"], goal=4,
        peer=f"peft {version('peft')}, {LEARNERS} adapters",
        **{f"batch_{size}": one.told() for size, one in found.items()}, tokens_per_second=round(
            written / min(last.seconds), 1), peak_gflops=round(fastest / 1e9),
        share_of_peak=round(operations / min(last.seconds) / fastest, 3),
        texts_that_differ=[count for count, _ in gaps], largest_tie=max(gap for _, gap in gaps),
    )  # fmt: skip
    return int(max(gap for _, gap in gaps) > TIE)


if __name__ == "__main__":
    sys.exit(main())
