"""Greedy decoding on a real model, against transformers' generate and the server of llama.cpp.

    python -m tests.benchmarks.decode_real [--questions N] [--tokens N] [--repeats N] [--threads N]
                                           [--source NAME --root DIR]

Ours is a committee of one with the product's batches; generate gets the prompts longest first, as ours does, and the
best of several batch sizes and caches. llama.cpp (xllamacpp, where it is installed and the model is a .gguf file) reads
the file's quantised weights, so its texts are others: tokens per second are compared, without end marks. The package's
wheel leaves out AVX-512; a build of one's own is faster. One JSON line; exit 1 where a
text of ours differs from generate's other than by a choice between two tokens whose logits are within TIE (0.5: two to
four steps of a logit in bfloat16).
"""

import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch
import transformers

from tests.benchmarks import real
from tests.benchmarks.scoring import timed
from w2s.models import committee, generate
from w2s.models.load import Loaded
from w2s.models.rows import pad_left
from w2s.models.tokenizing import bare, encode_prompts

TIE = 0.5
PEER_SETTINGS = [(8, None), (16, None), (32, None), (64, None), (32, "static"), (64, "static")]
SLOTS = (4, 16)


def ours(loaded: Loaded, prompts: list[str], new: int) -> list[list[int]]:
    written = [one for part in committee.decode([loaded], prompts, [1.0], max_new_tokens=new) for one in part]
    return [one.tokens for one in sorted(written, key=lambda one: one.prompt)]


def theirs(loaded: Loaded, prompts: list[str], new: int, batch: int, cache: str | None) -> list[list[int]]:
    """Texts without end marks, in the order of the prompts."""
    rows, ends = encode_prompts(loaded, prompts), generate.end_marks(loaded)
    order, texts = sorted(range(len(rows)), key=lambda at: -len(rows[at])), {}
    options = {"do_sample": False, "pad_token_id": loaded.pad_id, "eos_token_id": ends or None}
    if cache:
        options["cache_implementation"] = cache
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        tokens_BT, mask_BT = pad_left([rows[at] for at in chosen], loaded.pad_id, loaded.module.device)
        out_BT = loaded.module.generate(input_ids=tokens_BT, attention_mask=mask_BT, max_new_tokens=new, **options)
        for at, row in zip(chosen, out_BT[:, tokens_BT.shape[1] :].tolist(), strict=True):
            texts[at] = row[: next((place for place, token in enumerate(row) if token in ends), len(row))]
    return [texts[at] for at in range(len(rows))]


def llama_cpp(loaded: Loaded, gguf: Path, prompts: list[str], new: int, threads: int) -> dict[str, float]:
    """Tokens per second of the server for each number of parallel slots."""
    import xllamacpp

    rates = {}
    for slots in SLOTS:
        settings = xllamacpp.CommonParams()
        settings.model.path, settings.n_parallel, settings.n_ctx, settings.verbosity = str(gguf), slots, 512 * slots, 0
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
        server = xllamacpp.Server(settings)
        request = {"prompt": prompts, "max_tokens": new, "temperature": 0, "cache_prompt": False}
        server.handle_completions(request | {"prompt": prompts[:slots], "max_tokens": 2})
        seconds, answer = timed(server.handle_completions, request)
        # Of several prompts, the answer counts the tokens of one.
        written = sum(map(len, bare(loaded.tokenizer, [choice["text"] for choice in answer["choices"]])))
        rates[f"{slots} slots"] = round(written / seconds, 1)
        del server
    return rates


def main() -> int:
    asked = real.arguments(questions=64, tokens=48, repeats=3)
    examples = real.questions(asked, asked.questions)
    with real.smollm(examples, asked.width) as model:
        loaded = model.load()
        loaded.module.eval()
        prompts = real.prompts(loaded, examples)
        peers = {
            f"batch {size}, {cache or 'dynamic'} cache": lambda s=size, c=cache: theirs(loaded, prompts, new, s, c)
            for size, cache in PEER_SETTINGS
            if size <= len(prompts)
        }
        new = asked.tokens
        with torch.inference_mode():
            found = real.compare(lambda: ours(loaded, prompts, new), peers, asked.repeats)
        rows, end = encode_prompts(loaded, prompts), loaded.tokenizer.eos_token_id
        differ, gap = real.part_ways(
            lambda tokens: loaded.module(torch.tensor([tokens])).logits[0, -1], rows, found.made, found.peer_made, end
        )
        has_server = bool(model.gguf and find_spec("xllamacpp"))
        server = llama_cpp(loaded, model.gguf, prompts, new, asked.threads) if has_server else {}
    written, read = sum(map(len, found.made)), sum(map(len, rows))
    rate = written / min(found.seconds)
    body, head = real.count_weights(loaded.module)
    operations, fastest = 2 * body * (written + read) + 2 * head * (written + len(prompts)), real.peak()
    if has_server:
        server |= {"ratio": round(rate / max(server.values()), 2), "weights": "as quantised in the file"}
    real.report(
        "decode_real", model, asked, peer=f"transformers {transformers.__version__} generate", goal=1.5,
        **found.told(), prompts=len(prompts), tokens=written, tokens_per_second=round(rate, 1),
        llama_cpp=server and {"version": version("xllamacpp"), **server}, peak_gflops=round(fastest / 1e9),
        share_of_peak=round(operations / min(found.seconds) / fastest, 3), texts_that_differ=differ, largest_tie=gap,
    )  # fmt: skip
    return int(gap > TIE)


if __name__ == "__main__":
    sys.exit(main())
