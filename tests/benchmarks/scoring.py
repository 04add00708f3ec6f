"""Scoring candidates: ours, which reads a question's prompt once, against lm-eval's `hf` backend.

    python -m tests.benchmarks.scoring [questions] [repeats]

The same random-weight Llama (23 million parameters), the same 4-choice questions with full-text answers and prompts of
100 tokens and more, everything from text to log-likelihoods, in turn. One JSON line; exit 1 where log-likelihoods
differ by more than 1e-4. Needs the extra `benchmarks`.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import statistics
import sys
import tempfile
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from w2s.config.fields import Model
from w2s.models import load, score
from w2s.prompts import PROMPTS, continuation
from w2s.store.records import Example

PEER_BATCH = 16
OUR_TOKENS = 4096


def make_questions(
    count: int, seed: int = 0, *, prompt: tuple[int, int] = (105, 170), answer: tuple[int, int] = (4, 11)
) -> list[Example]:
    """Made-up words: prompts of 105 to 169 of them (100 tokens and more), answers of 4 to 10; or of other lengths."""
    rng = np.random.default_rng(seed)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    words = ["".join(rng.choice(syllables, rng.integers(1, 4))) for _ in range(3000)]

    def text(low: int, high: int) -> str:
        return " ".join(rng.choice(words, rng.integers(low, high)))

    return [
        Example(str(at), "made up", "choice", text(*prompt) + "?", tuple(text(*answer) for _ in range(4)))
        for at in range(count)
    ]


def make_model(folder: Path, texts: list[str], **shapes: Any) -> None:
    """A Llama of 23 million parameters with a vocabulary of 32,000, or of other `shapes`; random weights.

    Its tokenizer is a byte-level BPE of 2,000 tokens that fits the texts.
    """
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["[PAD]", "[EOS]"]
    trainer = trainers.BpeTrainer(
        vocab_size=2000, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", eos_token="[EOS]")
    sizes = {"vocab_size": 32_000, "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6}
    sizes |= {"intermediate_size": 1024, "max_position_embeddings": 1024, **shapes}
    config = transformers.LlamaConfig(
        **sizes, tie_word_embeddings=True, pad_token_id=0, bos_token_id=None, eos_token_id=1
    )
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def ours(loaded: load.Loaded, examples: list[Example], **options: Any) -> np.ndarray:
    scores_NK = np.zeros((len(examples), 4))
    for index, part_NK in score.score_chunks(loaded, examples, **options):
        scores_NK[index] = part_NK
    return scores_NK


def theirs(peer, examples: list[Example], prompt: str = "plain") -> np.ndarray:
    from lm_eval.api.instance import Instance

    requests = [
        Instance("loglikelihood", {}, (PROMPTS[prompt](example), continuation(text)), at)
        for example in examples
        for at, text in enumerate(example.choices)
    ]
    return np.array([total for total, _ in peer.loglikelihood(requests, disable_tqdm=True)]).reshape(-1, 4)


def timed(work, *arguments) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    found = work(*arguments)
    return time.perf_counter() - start, found


def main(count: int = 40, repeats: int = 5) -> int:
    logging.disable(logging.WARNING)
    examples = make_questions(count)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        from lm_eval.models.huggingface import HFLM

        make_model(Path(folder), [text for example in examples for text in (example.prompt, *example.choices)])
        loaded = load.load(Model(path=folder), max_tokens=1024)
        peer = HFLM(
            pretrained=loaded.module, tokenizer=loaded.tokenizer, device="cpu", batch_size=PEER_BATCH, max_length=1024
        )
        assert loaded.shares_prompt
        assert min(len(row) for row in loaded.tokenizer([example.prompt for example in examples])["input_ids"]) >= 100
        ours(loaded, examples[:8], batch_tokens=OUR_TOKENS)
        theirs(peer, examples[:8])
        own = partial(ours, batch_tokens=OUR_TOKENS)
        pairs = [(timed(own, loaded, examples), timed(theirs, peer, examples)) for _ in range(repeats)]
    difference = max(float(np.abs(a - b).max()) for (_, a), (_, b) in pairs)
    our_s, peer_s = ([pair[side][0] for pair in pairs] for side in (0, 1))
    ratios = [b / a for a, b in zip(our_s, peer_s, strict=True)]
    line = {
        "name": "scoring",
        "ratio": round(statistics.median(ratios), 2),
        "peer": f"lm-eval {version('lm-eval')} hf backend, batch {PEER_BATCH}",
        "seconds": round(statistics.median(our_s), 3),
        "peer_seconds": round(statistics.median(peer_s), 3),
        "spread": [round(min(ratios), 2), round(max(ratios), 2)],
        "repeats": repeats,
        "questions": count,
        "largest_difference": difference,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(line))
    return int(difference > 1e-4)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
