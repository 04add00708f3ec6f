"""Tiny models with random weights for the tests, written as folders like any Hugging Face model."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from w2s.config.fields import Model
from w2s.models.load import Loaded, load
from w2s.store.records import Example, example_id

TEXT = (
    "Which gas do plants take in from the air? carbon dioxide oxygen nitrogen. What pulls a falling stone down? "
    "gravity friction heat. The moon turns around the earth in a month, and the earth around the sun in one year. "
)
QUESTIONS = [
    ("Which gas do plants take in?", ("carbon dioxide", "oxygen", "pure nitrogen from the air")),
    ("What pulls a falling stone down to the earth?", ("gravity", "the moon", "friction and heat", "air")),
    ("What turns around the sun in one year? Think of where you stand.", ("the earth", "a stone")),
]
SMALL = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SMALL, intermediate_size=48, num_key_value_heads=1, pad_token_id=0),
    "mistral": lambda: transformers.MistralConfig(
        **SMALL, intermediate_size=48, num_key_value_heads=1, head_dim=24, sliding_window=None, rms_norm_eps=1e-5
    ),
    "qwen3": lambda: transformers.Qwen3Config(
        **SMALL, intermediate_size=48, num_key_value_heads=1, head_dim=24, tie_word_embeddings=True
    ),
    "qwen2": lambda: transformers.Qwen2Config(**SMALL, intermediate_size=48, num_key_value_heads=1, pad_token_id=0),
    "gpt2": lambda: transformers.GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=2, n_positions=128),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**SMALL, intermediate_size=48, max_position_embeddings=128),
    "gemma2": lambda: transformers.Gemma2Config(
        **SMALL, intermediate_size=48, head_dim=16, num_key_value_heads=1, final_logit_softcapping=3.0, sliding_window=8
    ),
    "gemma3_text": lambda: transformers.Gemma3TextConfig(
        **SMALL, intermediate_size=48, head_dim=16, num_key_value_heads=1, sliding_window=512, pad_token_id=0
    ),
    "bloom": lambda: transformers.BloomConfig(vocab_size=300, hidden_size=32, n_layer=2, n_head=2),
    "bert": lambda: transformers.BertConfig(**SMALL, intermediate_size=48, max_position_embeddings=128),
}


def examples() -> list[Example]:
    return [Example(example_id("t", q, c), "t", "choice", q, c) for q, c in QUESTIONS]


def tokenizer(*, pairs: bool = False) -> transformers.PreTrainedTokenizerFast:
    """Byte-level BPE; with `pairs` it frames a text as [CLS] a [SEP] b [SEP]."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["[PAD]", "[CLS]", "[SEP]"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator([TEXT], trainer)
    if not pairs:
        return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", eos_token="[SEP]")
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )


def write(architecture: str, folder: Path) -> Path:
    """A model of `architecture` (a key of CONFIGS), weights large enough that its scores differ, and a tokenizer."""
    config = CONFIGS[architecture]()
    with torch.random.fork_rng():
        torch.manual_seed(7)
        if architecture == "bert":
            module = transformers.AutoModel.from_config(config)
        else:
            module = transformers.AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(4)
    module.save_pretrained(folder)
    tokenizer(pairs=architecture == "bert").save_pretrained(folder)
    return folder


def read(folder: Path, **options) -> Loaded:
    """The folder as a Loaded; options of Model and of load together."""
    fields = {name: options.pop(name) for name in list(options) if name in Model.__dataclass_fields__}
    return load(Model(path=str(folder), **fields), **options)
