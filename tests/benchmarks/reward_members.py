"""What the members of a reward ensemble cost, in times of one model: M heads, and adapters in the last L layers.

    python -m tests.benchmarks.reward_members [pairs] [repeats]

An encoder of the size of all-MiniLM-L6-v2 (6 layers, 384 wide, 22.7 million parameters, random weights), pairs of
made-up texts of 80 to 240 tokens a row, one thread (its CPU seconds), everything from text to rewards, in turn. The
arithmetic of adapters is (n - L + M·L) / n. One JSON line; exit 1 where a member's rewards differ from those of its
merged model by more than 1e-4, where 8 heads take more than 1.15 times one model, or adapters more than 1.2 times the
arithmetic.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from tests.models import apart
from w2s.config.fields import Model
from w2s.models import load, members, score
from w2s.store.records import Example

MEMBERS, LAYERS = 8, 6
VOCABULARY = 30522
BATCH_TOKENS = 4096


def make_pairs(count: int, seed: int = 0) -> list[Example]:
    """Prompts of 20 to 60 words, two answers of 57 to 177 each: rows of 80 to 240 tokens."""
    rng = np.random.default_rng(seed)

    def text(low: int, high: int) -> str:
        return " ".join(f"w{number}" for number in rng.integers(VOCABULARY - 4, size=rng.integers(low, high)))

    return [Example(str(at), "made up", "choice", text(20, 61), (text(57, 177), text(57, 177))) for at in range(count)]


def make_model(folder: Path) -> None:
    """BERT of the size of all-MiniLM-L6-v2; every word is a token."""
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    words = {word: at for at, word in enumerate([*special, *(f"w{at}" for at in range(VOCABULARY - 4))])}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=384, num_hidden_layers=LAYERS, num_attention_heads=12, intermediate_size=1536
    )
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
    ).save_pretrained(folder)


def one_model(loaded: load.Loaded, pairs: list[Example]) -> np.ndarray:
    scores_NK = np.zeros((len(pairs), 2))
    for index, part_NK in score.score_chunks(loaded, pairs, batch_tokens=BATCH_TOKENS):
        scores_NK[index] = part_NK
    return scores_NK


def ensemble(one: members.Members, pairs: list[Example]) -> np.ndarray:
    scores_MNK = np.zeros((one.ensemble.members, len(pairs), 2))
    for index, part_MNK in members.rewards(one, pairs, batch_tokens=BATCH_TOKENS):
        scores_MNK[:, index] = part_MNK
    return scores_MNK


def open_all(folder: Path) -> dict[str, members.Members]:
    """Heads, and adapters in the last layer and the last two, whose updates do something."""
    kinds = {"heads": members.Ensemble("heads", MEMBERS)}
    kinds |= {f"adapters_{last}": members.Ensemble("adapters", MEMBERS, layers=last) for last in (1, 2)}
    made = {}
    for name, kind in kinds.items():
        made[name] = members.join(load.load(Model(path=str(folder), kind="pair")), kind)
        with torch.no_grad():
            for lows in made[name].stacks():
                for low in lows:
                    low.up_RO.normal_(0, 0.02)
    return made


def main() -> None:
    pairs, repeats = (int(sys.argv[at]) if len(sys.argv) > at else default for at, default in ((1, 12), (2, 7)))
    torch.set_num_threads(1)
    examples, seconds = make_pairs(pairs), {}
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder))
        plain, made = load.load(Model(path=folder, kind="pair")), open_all(Path(folder))
    calls = {"one": lambda: one_model(plain, examples)}
    calls |= {name: lambda one=one: ensemble(one, examples) for name, one in made.items()}
    found = {name: call() for name, call in calls.items()}  # and warm
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.process_time()
            call()
            seconds.setdefault(name, []).append(time.process_time() - start)
    middle = {name: statistics.median(taken) for name, taken in seconds.items()}
    arithmetic = {f"adapters_{last}": (LAYERS - last + MEMBERS * last) / LAYERS for last in (1, 2)}
    off = max(
        float(np.abs(found[name][at] - one_model(apart.alone(one, at), examples)).max())
        for name, one in made.items()
        for at in (0, MEMBERS - 1)
    )
    times = {name: middle[name] / middle["one"] for name in made}
    over = {name: times[name] / wanted for name, wanted in arithmetic.items()}
    told = {
        "benchmark": "reward_members",
        "members": MEMBERS,
        "rows": 2 * pairs,
        "repeats": repeats,
        "seconds": {name: round(value, 3) for name, value in middle.items()},
        "times_one_model": {name: round(value, 3) for name, value in times.items()},
        "times_arithmetic": {name: round(value, 3) for name, value in over.items()},
        "largest_difference": off,
    }
    print(json.dumps(told))
    sys.exit(1 if off > 1e-4 or times["heads"] > 1.15 or max(over.values()) > 1.2 else 0)


if __name__ == "__main__":
    main()
