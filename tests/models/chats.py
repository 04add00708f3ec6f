"""Tiny models with chat templates, and log-likelihoods by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
import transformers
from tokenizers.processors import TemplateProcessing

from tests.models import tiny
from w2s.models.records import Loaded

TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
MARKS = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]


def tokenizer(
    *, template: str | None = TEMPLATE, writes: bool = False, adds: bool = False
) -> transformers.PreTrainedTokenizerFast:
    """tiny's, with <s> as BOS: `writes`: the template writes it; `adds`: the tokenizer puts it before a text."""
    made = tiny.tokenizer()
    made.add_special_tokens({"bos_token": "<s>", "additional_special_tokens": MARKS})
    if adds:
        mark = ("<s>", made.bos_token_id)
        made.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[mark])
    made.chat_template = template and ("{{ bos_token }}" if writes else "") + template
    return made


def read(folder: Path, *, template: str | None = TEMPLATE, writes=False, adds=False, **options) -> Loaded:
    """The model of a folder of tiny.write, with a chat tokenizer."""
    words = {name: options.pop(name) for name in ("prompt", "shots") if name in options}
    loaded = tiny.read(folder, **options)
    made = tokenizer(template=template, writes=writes, adds=adds)
    loaded.module.resize_token_embeddings(len(made), mean_resizing=False)
    return dataclasses.replace(loaded, tokenizer=made, model=dataclasses.replace(loaded.model, **words))


def write(architecture: str, folder: Path) -> Path:
    """A folder with a chat tokenizer, for jobs and runs."""
    loaded = read(tiny.write(architecture, folder), adds=architecture == "gemma3_text")
    loaded.module.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


def log_likelihood(module: torch.nn.Module, start: list[int], tokens: list[int]) -> torch.Tensor:
    """Of `tokens` after `start`, by one plain forward pass of transformers."""
    logits = module(input_ids=torch.tensor([start + tokens])).logits[0].float().log_softmax(-1)
    return sum(logits[len(start) - 1 + at, token] for at, token in enumerate(tokens))
