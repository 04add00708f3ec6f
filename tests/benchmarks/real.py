"""What the benchmarks on SmolLM2-135M-Instruct share: the model, real questions, and a peer's best settings.

The environment variable W2S_REAL_MODELS names the folder that `python -m tests.real_models DIR` fills, or one with the
same model as a folder of safetensors. Without it a Llama of the same shapes with random weights and a small tokenizer
stands in; narrower with `--width`, to try a program out: the figures then mean nothing. `--source NAME --root DIR`
takes the test questions of a source with choices from the data.root DIR; without them questions are made up. The JSON
line names both, and the precision.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import logging
import os
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.benchmarks.scoring import make_model, make_questions, timed
from w2s.config.fields import Model
from w2s.data import sources
from w2s.models import batches, load
from w2s.models.world import has_bfloat16
from w2s.store.records import Example

PRECISION = "bfloat16" if has_bfloat16() else "float32"
"""What train.precision `auto` takes on this machine, and what both sides of a comparison compute in."""

NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
SHAPES = {
    "vocab_size": 49_152, "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9,
    "num_key_value_heads": 3, "intermediate_size": 1536, "max_position_embeddings": 8192,
}  # fmt: skip


@dataclass(frozen=True)
class Real:
    """The model as a folder of safetensors, what its weights are, and its .gguf file where there is one."""

    folder: Path
    weights: str
    gguf: Path | None

    def load(self, precision: str = PRECISION, **options: Any) -> load.Loaded:
        model = Model(path=str(self.folder), prompt={"name": "qa"}, **options)
        return load.load(model, precision=precision, max_tokens=1024)


def arguments(**defaults: int) -> argparse.Namespace:
    """The numbers of `defaults` as options, with --threads, --width, --source and --root."""
    parser = argparse.ArgumentParser()
    for name, value in (defaults | {"threads": os.cpu_count() or 1, "width": SHAPES["hidden_size"]}).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--source", default="sciq")
    parser.add_argument("--root", type=Path, help="a data.root that holds the source; none: made-up questions")
    found = parser.parse_args()
    torch.set_num_threads(found.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    return found


def questions(asked: argparse.Namespace, count: int) -> list[Example]:
    """Questions with 4 choices; made-up ones are about as long as SciQ's."""
    if asked.root is None:
        return make_questions(count, prompt=(7, 25), answer=(1, 4))
    examples, _ = getattr(sources, asked.source)(asked.root, split="test")
    return [example for example in examples if len(example.choices) == 4][:count]


def prompts(loaded: load.Loaded, examples: Sequence[Example]) -> list[str]:
    """The examples' prompts in the model's words."""
    return [words.prompt for words in batches.worded(loaded, examples)]


@contextlib.contextmanager
def smollm(examples: Sequence[Example], width: int) -> Iterator[Real]:
    """SmolLM2-135M-Instruct, or its shapes (of this width) with random weights; nothing is printed meanwhile."""
    root = os.environ.get("W2S_REAL_MODELS")
    whole, file = (Path(root or "") / name for name in (NAME, f"{NAME}.gguf"))
    gguf = file if root and file.is_file() else None
    with tempfile.TemporaryDirectory() as made, contextlib.redirect_stdout(io.StringIO()):
        if root and (whole / "config.json").is_file():
            yield Real(whole, NAME, gguf)
        elif gguf:
            dequantise(file, Path(made))
            yield Real(Path(made), f"{NAME}, dequantised", gguf)
        elif root:
            raise SystemExit(f"{root} holds no {NAME}; `python -m tests.real_models {root}` makes it")
        else:
            texts = [text for example in examples for text in (example.prompt, *example.choices)]
            make_model(Path(made), texts, **SHAPES | {"hidden_size": width, "intermediate_size": 8 * width // 3})
            kind = "in the shapes" if width == SHAPES["hidden_size"] else "narrower than the layers"
            yield Real(Path(made), f"random, {kind} of {NAME}", None)


def dequantise(file: Path, folder: Path) -> None:
    """The weights of a .gguf file in float32, and its tokenizer, in a folder."""
    where = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    read = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    config = read.config
    del config.quantization_config  # transformers refuses to save what was read from a .gguf file
    module = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    module.load_state_dict(read.state_dict())
    module.tie_weights()
    module.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(**where).save_pretrained(folder)


# --- floating-point operations ----------------------------------------------------------------------------------------


def peak(size: int = 2048, tries: int = 5) -> float:
    """FLOP per second of a large matrix product in PRECISION, the best of `tries`."""
    a, b = (torch.randn(size, size, dtype=getattr(torch, PRECISION)) for _ in range(2))
    torch.mm(a, b)
    return 2 * size**3 / min(timed(torch.mm, a, b)[0] for _ in range(tries))


def count_weights(module: torch.nn.Module) -> tuple[int, int]:
    """Weights of the body's linear layers, which every token meets, and of the vocabulary head."""
    linear = [layer for layer in module.base_model.modules() if isinstance(layer, torch.nn.Linear)]
    output = module.get_output_embeddings()
    return sum(layer.weight.numel() for layer in linear), 0 if output is None else output.weight.numel()


# --- a peer at its best ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compared:
    """Our seconds and those of the peer's best setting turn by turn, what was tried, and what both made last."""

    best: str
    tried: dict[str, float]
    seconds: list[float]
    peer_seconds: list[float]
    made: Any
    peer_made: Any

    @property
    def ratios(self) -> list[float]:
        return [b / a for a, b in zip(self.seconds, self.peer_seconds, strict=True)]

    def told(self) -> dict[str, Any]:
        return {
            "ratio": round(statistics.median(self.ratios), 2),
            "spread": [round(min(self.ratios), 2), round(max(self.ratios), 2)],
            "seconds": round(statistics.median(self.seconds), 2),
            "peer_seconds": round(statistics.median(self.peer_seconds), 2),
            "peer_setting": self.best,
            "peer_tried": self.tried,
        }


def compare(
    ours: Callable[[], Any],
    peers: Mapping[str, Callable[[], Any]],
    repeats: int,
    clock: Callable[[Callable], tuple[float, Any]] = timed,
) -> Compared:
    """Ours once to warm up, each setting of the peer once (the first one twice), then turns of ours and the best.

    clock(work) -> its seconds and what it made.
    """
    clock(ours)
    clock(next(iter(peers.values())))
    tried = {name: round(clock(peer)[0], 2) for name, peer in peers.items()}
    best = min(tried, key=tried.get)
    turns = [(clock(ours), clock(peers[best])) for _ in range(repeats)]
    seconds, peer_seconds = ([turn[side][0] for turn in turns] for side in (0, 1))
    return Compared(best, tried, seconds, peer_seconds, turns[-1][0][1], turns[-1][1][1])


def part_ways(
    logits_after: Callable[[list[int]], torch.Tensor],
    prompts: Sequence[list[int]],
    texts: Sequence[list[int]],
    others: Sequence[list[int]],
    end: int | None,
) -> tuple[int, float]:
    """How many texts (in tokens, without the `end` mark) differ, and the largest difference of the logits of the tokens
    where they part.

    Two ways to compute in bfloat16 may choose differently between two tokens whose logits are nearly equal.
    logits_after(tokens) -> logits_V of the next one.
    """
    gaps = [0.0]
    for prompt, text, other in zip(prompts, texts, others, strict=True):
        pairs = enumerate(itertools.zip_longest(text, other, fillvalue=end))
        at, (a, b) = next(((at, pair) for at, pair in pairs if pair[0] != pair[1]), (0, (None, None)))
        if a is not None:
            with torch.inference_mode():
                logits_V = logits_after([*prompt, *text[:at]]).float()
            gaps.append(abs(float(logits_V[a] - logits_V[b])))
    return len(gaps) - 1, max(gaps)


def report(name: str, real: Real, asked: argparse.Namespace, **found: Any) -> None:
    questions_of = "made up" if asked.root is None else asked.source
    line = {"name": name, **found, "precision": PRECISION, "weights": real.weights, "questions_of": questions_of}
    print(json.dumps(line | {"repeats": asked.repeats, "threads": asked.threads}))
