"""Scoring on a real model: questions with 4 choices to log-likelihoods, against lm-eval's `hf` backend.

    python -m tests.benchmarks.scoring_real [--questions N] [--repeats N] [--threads N] [--source NAME --root DIR]

Both sides score the same module (see `real`), from text to numbers, ours in the chunks of the product, the peer with
the best of several batch sizes. llama.cpp through xllamacpp is no peer here: its server returns probabilities of tokens
that it writes, not of given ones. One JSON line; exit 1 where a log-likelihood differs by more than TOLERANCE per token
(0.25, one or two steps of a logit in bfloat16), or on average by more than a fifth of that, or where the top choices
differ on more than 2% of the questions whose best two are further apart than TOLERANCE. Needs the extra `benchmarks`.
"""

import sys
from importlib.metadata import version

import numpy as np

from tests.benchmarks import real, scoring
from w2s.models import batches

TOLERANCE = 0.25
PEER_BATCHES = (1, 8, 32, 64)


def differences(ours_NK: np.ndarray, theirs_NK: np.ndarray, tokens_NK: np.ndarray) -> dict[str, float]:
    """Of log-likelihoods per token, and of top choices that are clear."""
    each_NK = np.abs(ours_NK - theirs_NK) / tokens_NK
    ordered_NK = np.sort(theirs_NK, axis=1)
    clear_N = ordered_NK[:, -1] - ordered_NK[:, -2] > TOLERANCE
    other_N = ours_NK.argmax(1) != theirs_NK.argmax(1)
    return {
        "largest_difference_per_token": round(float(each_NK.max()), 4),
        "mean_difference_per_token": round(float(each_NK.mean()), 4),
        "top_choices_that_differ": round(float(other_N.mean()), 4),
        "clear_ones_that_differ": round(float(other_N[clear_N].mean()) if clear_N.any() else 0.0, 4),
    }


def main() -> int:
    asked = real.arguments(questions=160, repeats=3)
    examples = real.questions(asked, asked.questions)
    with real.smollm(examples, asked.width) as model:
        from lm_eval.models.huggingface import HFLM

        loaded = model.load()
        assert loaded.shares_prompt
        assert loaded.head_alone
        options = {"pretrained": loaded.module, "tokenizer": loaded.tokenizer, "device": "cpu", "max_length": 1024}
        backends = {f"batch {size}": HFLM(**options, batch_size=size) for size in PEER_BATCHES}
        peers = {
            name: lambda backend=backend: scoring.theirs(backend, examples, "qa") for name, backend in backends.items()
        }
        found = real.compare(lambda: scoring.ours(loaded, examples), peers, asked.repeats)
        encoded = batches.encode(loaded, examples)
    rows = [row for example in encoded for row in example.rows]
    tokens_NK = np.array([np.bincount(row.owner_P, minlength=4) for row in rows])
    body, head = real.count_weights(loaded.module)
    # The head reads each state that predicts a token once.
    states = sum(len(row.token_T) - row.first for row in rows)
    operations = 2 * body * sum(len(row.token_T) for row in rows) + 2 * head * states
    apart, fastest = differences(found.made, found.peer_made, tokens_NK), real.peak()
    real.report(
        "scoring_real", model, asked, peer=f"lm-eval {version('lm-eval')} hf backend", goal=3, **found.told(),
        questions=len(examples), questions_per_second=round(len(examples) / min(found.seconds), 2),
        peak_gflops=round(fastest / 1e9), share_of_peak=round(operations / min(found.seconds) / fastest, 3), **apart,
    )  # fmt: skip
    close = apart["largest_difference_per_token"] <= TOLERANCE and apart["mean_difference_per_token"] <= TOLERANCE / 5
    return int(not close or apart["clear_ones_that_differ"] > 0.02)


if __name__ == "__main__":
    sys.exit(main())
