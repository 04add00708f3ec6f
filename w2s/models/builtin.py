"""Tiny causal language models for the embedded world, so that the main job runs with nothing to download.

They are GPT-2s, the fastest architecture in transformers at this size, and a Llama, whose MLPs can become experts (see
`experts`). `make` writes an ordinary Hugging Face folder,
with random weights and a word-level tokenizer of the corpus.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from w2s.config.registry import did_you_mean
from w2s.models.folders import quiet, write_marks
from w2s.store.records import BadInput

if TYPE_CHECKING:
    from transformers import GPT2Config, LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast

SPECIAL = ("[pad]", "[unk]", "[eos]")
EMBEDDING_RANGE = 0.02
WORD = re.compile(r"\w+|[^\w\s]")
"""One token: a run of letters, digits and underscores, or one punctuation mark."""
KNOWN = re.compile("|".join([*map(re.escape, SPECIAL), WORD.pattern]))
BUILTIN = {
    # About 1,300 and 120,000 parameters with a vocabulary of 250.
    "weak": {"n_embd": 4, "n_layer": 1, "n_head": 1, "n_positions": 32, "initializer_range": 0.3},
    "strong": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 32, "initializer_range": EMBEDDING_RANGE},
    "strong_llama": {
        **{"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4},
        **{"max_position_embeddings": 32, "tie_word_embeddings": True},
    },
    # For written answers: about 4,100 and 118,000 parameters with a vocabulary of 230.
    "weak_writer": {"n_embd": 10, "n_layer": 1, "n_head": 2, "n_positions": 48, "initializer_range": 0.2},
    "strong_writer": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 48, "initializer_range": EMBEDDING_RANGE},
}


def configure(name: str, vocabulary: int) -> GPT2Config | LlamaConfig:
    from transformers import GPT2Config, LlamaConfig

    if find_architecture(name) == "llama":
        special = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": SPECIAL.index("[eos]")}
        return LlamaConfig(vocab_size=vocabulary, **BUILTIN[name], **special)
    return GPT2Config(
        vocab_size=vocabulary,
        **BUILTIN[name],
        # The same function as GPT-2's own "gelu_new", in one operation instead of eight.
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        # The tokenizer pads; a model that knows the pad token searches every batch for it.
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=SPECIAL.index("[eos]"),
    )


def find_architecture(name: str) -> str:
    """The model_type of the builtin model `name`."""
    return "llama" if "hidden_size" in BUILTIN[name] else "gpt2"


def make(name: str, words: Iterable[str], folder: str | Path, seed: int, *, from_scratch: bool = False) -> None:
    """Write the model `name` (a key of BUILTIN, also as builtin:NAME) with random weights and a tokenizer of `words`.

    `words` are the texts of a corpus or its vocabulary. `from_scratch` marks the folder so that `load` draws new
    weights from its own seed: learners that start from scratch then differ from each other.
    """
    quiet()
    name = name.removeprefix("builtin:")
    if name not in BUILTIN:
        known = ", ".join(f"builtin:{known}" for known in BUILTIN)
        near = did_you_mean(name, BUILTIN)
        raise BadInput(f"model.path: 'builtin:{name}' is not known{near}; it can be: {known}")
    tokenizer = word_tokenizer(words)
    config = configure(name, len(tokenizer))
    module = draw(config, seed)
    tokenizer.model_max_length = config.max_position_embeddings
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_marks(folder, {"builtin": name, "from_scratch": from_scratch})


def draw(config: GPT2Config | LlamaConfig, seed: int, name: str = "GPT2LMHeadModel") -> PreTrainedModel:
    """A model of the transformers class `name`, or a Llama that writes, with random weights. Small embeddings speed up
    learning if narrow."""
    import torch
    import transformers

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if config.model_type == "llama":
            return transformers.LlamaForCausalLM(config)
        module = getattr(transformers, name)(config)
    with torch.no_grad():
        for table in (module.base_model.wte, module.base_model.wpe):
            table.weight.mul_(EMBEDDING_RANGE / config.initializer_range)
    return module


def word_tokenizer(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """One token per word or punctuation mark, in alphabetical order: the same words give the same ids.

    A special token's name in a text is read as that token.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = sorted({word for text in words for word in KNOWN.findall(text)}.difference(SPECIAL))
    model = models.WordLevel({word: at for at, word in enumerate([*SPECIAL, *known])}, unk_token="[unk]")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORD.pattern), "removed", invert=True)
    pad, unknown, end = SPECIAL
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=pad, unk_token=unknown, eos_token=end)
