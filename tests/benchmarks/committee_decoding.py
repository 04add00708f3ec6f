"""Token-mixture decoding: 8 LoRA adapters that share their base, against 8 separate models and against one learner.

    OMP_WAIT_POLICY=passive python -m tests.benchmarks.committee_decoding [threads] [repeats] [batch ...]

Random-weight Llama (29 million parameters, 25 of them in the layers), adapters of rank 8 beside every linear layer,
prompts of 24 tokens. Seconds per token are (time of 33 tokens - time of 1) / 32, so that reading the prompts is left
out; it is reported apart. The contenders take turns; medians over the repeats, ratios turn by turn. One learner is
transformers' generate on a model of its own; the separate models are mixed by the same code. Memory: growth of the
peak in a process of its own for each contender, at the first batch size. One JSON line; exit 1 where the logits of the
shared base and of the separate models differ by more than 1e-5 of the largest.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from w2s.config.fields import Model
from w2s.models import committee
from w2s.models.adapters import Adapter, share
from w2s.models.generate import Reader, Voice
from w2s.models.load import Loaded
from w2s.models.rows import pad_left
from w2s.models.tokenizing import encode_prompts

LEARNERS, RANK, PROMPT_TOKENS, NEW_TOKENS = 8, 8, 24, 33
CONTENDERS = ("one", "shared", "separate")


def make_model(seed: int = 0) -> Loaded:
    """Words w0 to w7999, one token each; no end mark, so that every text has its full length."""
    words = {f"w{at}": at for at in range(8000)}
    made = Tokenizer(models.WordLevel(words, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="w1", unk_token="w0")
    config = transformers.LlamaConfig(
        vocab_size=8000, hidden_size=512, num_hidden_layers=8, num_attention_heads=8, intermediate_size=1376,
        max_position_embeddings=512, tie_word_embeddings=True, pad_token_id=1, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(seed)
    module = transformers.AutoModelForCausalLM.from_config(config).eval()
    module.generation_config.eos_token_id = None
    return Loaded(module, tokenizer, Model())


def make_adapter(base: Loaded, seed: int) -> Adapter:
    """Updates a tenth as large as the weights: the learners differ and agree about as tuned models do."""
    random = torch.Generator().manual_seed(seed)
    adapter = {}
    for name, layer in base.module.model.named_modules():
        if isinstance(layer, torch.nn.Linear):
            down_IR = torch.randn(layer.in_features, RANK, generator=random) / RANK**0.5
            adapter[f"model.{name}"] = (down_IR, torch.randn(RANK, layer.out_features, generator=random) * 0.002)
    return adapter


def make_separate(seed: int) -> Loaded:
    """A learner as a model of its own, its adapter merged."""
    loaded = make_model()
    for name, (down_IR, up_RO) in make_adapter(loaded, seed).items():
        loaded.module.get_submodule(name).weight.data += (down_IR @ up_RO).T
    return loaded


def contender(name: str) -> list[Loaded | Voice]:
    if name == "shared":
        base = make_model()
        return share(base, (make_adapter(base, seed) for seed in range(LEARNERS)))
    return [make_separate(seed) for seed in range(1 if name == "one" else LEARNERS)]


def writer(name: str, learners: list, prompts: list[str]) -> Callable[[int], object]:
    if name == "one":
        module, (tokens_BT, mask_BT) = learners[0].module, prompt_tokens(learners[0], prompts)
        options = {"attention_mask": mask_BT, "do_sample": False, "pad_token_id": learners[0].pad_id}
        return lambda new: module.generate(input_ids=tokens_BT, max_new_tokens=new, **options)
    return lambda new: list(committee.decode(learners, prompts, [1.0] * LEARNERS, max_new_tokens=new))


def prompt_tokens(loaded: Loaded, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    return pad_left(encode_prompts(loaded, prompts), loaded.pad_id, loaded.module.device)


def make_prompts(count: int) -> list[str]:
    random = torch.Generator().manual_seed(1)
    tokens_BT = torch.randint(2, 8000, (count, PROMPT_TOKENS), generator=random)
    return [" ".join(f"w{token}" for token in row) for row in tokens_BT.tolist()]


def timed(write: Callable[[int], object], new: int) -> float:
    start = time.perf_counter()
    write(new)
    return time.perf_counter() - start


def seconds(made: dict[str, list], batch: int, repeats: int) -> dict:
    """Medians of seconds per token (of a whole batch) and per prompt reading, and ratios turn by turn."""
    writers = {name: writer(name, made[name], make_prompts(batch)) for name in CONTENDERS}
    for write in writers.values():
        write(2)
    token_s, prompt_s = ({name: [] for name in CONTENDERS} for _ in range(2))
    for turn in range(repeats):
        for name in CONTENDERS[turn % 3 :] + CONTENDERS[: turn % 3]:
            first = timed(writers[name], 1)
            token_s[name].append((timed(writers[name], NEW_TOKENS) - first) / (NEW_TOKENS - 1))
            prompt_s[name].append(first)

    def ratio(a: str, b: str) -> list[float]:
        ratios = sorted(x / y for x, y in zip(token_s[a], token_s[b], strict=True))
        return [round(one, 2) for one in (statistics.median(ratios), ratios[0], ratios[-1])]

    return {
        "token_ms": {name: round(1000 * statistics.median(found), 2) for name, found in token_s.items()},
        "prompts_ms": {name: round(1000 * statistics.median(found), 1) for name, found in prompt_s.items()},
        "shared_per_one": ratio("shared", "one"),
        "separate_per_shared": ratio("separate", "shared"),
    }


def difference(made: dict[str, list]) -> float:
    """Largest difference of a logit between shared and separate over five steps, per largest logit."""
    tokens_BT, mask_BT = pad_left([[5, 6, 7], [8, 9, 10, 11, 12]], 1, torch.device("cpu"))

    def heard(voices: list[Voice]) -> Iterator[torch.Tensor]:
        readers, mask, fresh = [Reader(voice) for voice in voices], mask_BT, tokens_BT
        for step in range(5):
            yield torch.cat([reader.read(fresh, mask) for reader in readers])
            fresh, mask = torch.full((2, 1), 20 + step), torch.nn.functional.pad(mask, (0, 1), value=1)

    with torch.inference_mode():
        pairs = list(zip(heard(made["shared"]), heard([Voice(one) for one in made["separate"]]), strict=True))
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def peak_mib(name: str, threads: int, batch: int) -> float:
    """Growth of the peak from before the models are made to after 33 tokens, in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, "--peak", name, str(threads), str(batch)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(name: str, threads: int, batch: int) -> None:
    torch.set_num_threads(threads)
    # What the first model of any size costs (imports, buffers of the BLAS) is not the models' memory.
    tiny = transformers.LlamaConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    module = transformers.AutoModelForCausalLM.from_config(tiny).eval()
    module.generate(input_ids=torch.ones(1, 2, dtype=torch.long), max_new_tokens=2, do_sample=False)
    before = peak()
    writer(name, contender(name), make_prompts(batch))(NEW_TOKENS)
    print(peak() - before)


def peak() -> float:
    """Most memory that this process has held, MiB; ru_maxrss would start from what the parent held."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def main(threads: int = 2, repeats: int = 7, *batches: int) -> int:
    torch.set_num_threads(threads)
    batches = batches or (1, 16)
    made = {name: contender(name) for name in CONTENDERS}
    module = made["separate"][0].module
    found = {
        f"batch_{batch}": seconds(made, batch, repeats if batch == 1 else max(3, repeats // 2)) for batch in batches
    }
    largest = difference(made)
    del made
    peaks = {name: round(peak_mib(name, threads, batches[0]), 1) for name in CONTENDERS}
    line = {
        "name": "committee_decoding",
        "ratio": found[f"batch_{batches[0]}"]["separate_per_shared"][0],
        "peer": f"{LEARNERS} separate models, batch {batches[0]}",
        **found,
        "memory_mib": peaks,
        "memory_shared_per_one": round(peaks["shared"] / peaks["one"], 2),
        "largest_difference": largest,
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "repeats": repeats,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(line))
    return int(largest > 1e-5)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        print_peak(sys.argv[2], *map(int, sys.argv[3:]))
    else:
        sys.exit(main(*map(int, sys.argv[1:])))
