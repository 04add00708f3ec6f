"""What two merging methods know of a learner, from questions without answers: which weights matter to its opinions
(`fisher`), and what its linear layers read (`regmean`). Both are by the names of the tensors in its file.

Letters: B rows of a batch, T tokens, K candidates, I inputs of a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from w2s.models import batches, score
from w2s.models.records import Loaded
from w2s.models.tokenizing import encode_prompts
from w2s.store.records import BadInput, Example

Statistics = dict[str, Tensor]


def fisher(loaded: Loaded, examples: Sequence[Example], seed: int) -> Statistics:
    """The mean over the questions of the squared gradient of log p(y | question), where y is drawn from the model
    itself (Matena and Raffel, arXiv 2111.09832): a candidate of a question with choices, else the next token at each
    place of the prompt."""
    found = {name: torch.zeros_like(value) for name, value in loaded.module.named_parameters()}
    generator = torch.Generator().manual_seed(seed)
    loaded.module.eval().requires_grad_(True)
    for example in examples:
        loaded.module.zero_grad()
        log_likelihood(loaded, example, generator).backward()
        for name, value in loaded.module.named_parameters():
            if value.grad is not None:
                found[name] += value.grad.square() / len(examples)
    return found


def log_likelihood(loaded: Loaded, example: Example, generator: torch.Generator) -> Tensor:
    """The log-probability of an answer drawn from the model."""
    if example.task == "choice":
        logp_BV = score.scores(loaded, batches.collate(loaded, batches.encode(loaded, [example]))).log_softmax(-1)
    else:
        logp_BV = loaded.module(input_ids=read_prompt(loaded, example)).logits[0].log_softmax(-1)
    drawn_B1 = torch.multinomial(logp_BV.detach().exp(), 1, generator=generator)
    return logp_BV.gather(1, drawn_B1).sum()


def grams(loaded: Loaded, examples: Sequence[Example], seed: int) -> Statistics:
    """For each linear layer X'X / n of its inputs X on the questions' prompts (Jin et al., arXiv 2212.09849)."""
    found: Statistics = {}
    counts: dict[str, int] = {}

    def note(name: str) -> Callable:
        def hook(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x_TI = inputs[0].detach().flatten(0, -2).float()
            found[name] = found.get(name, 0) + x_TI.T @ x_TI
            counts[name] = counts.get(name, 0) + len(x_TI)

        return hook

    layers = [(name, layer) for name, layer in loaded.module.named_modules() if type(layer) is nn.Linear]
    hooks = [layer.register_forward_pre_hook(note(f"{name}.weight")) for name, layer in layers]
    try:
        with torch.inference_mode():
            for example in examples:
                loaded.module.eval()(input_ids=read_prompt(loaded, example))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: total / counts[name] for name, total in found.items()}


def read_prompt(loaded: Loaded, example: Example) -> Tensor:
    """input_ids_1T of the question in the model's words."""
    (words,) = batches.worded(loaded, [example])
    (row,) = encode_prompts(loaded, [words.prompt])
    return torch.tensor([row[-loaded.max_tokens :]])


STATISTICS = {"fisher": fisher, "regmean": grams}
"""Merging method -> what it needs to know."""


def find_statistics(method: str, loaded: Loaded, examples: Sequence[Example], seed: int) -> Statistics:
    """The statistics for a method in STATISTICS; BadInput where they are not finite."""
    found = STATISTICS[method](loaded, examples, seed)
    if wrong := [name for name, value in found.items() if not torch.isfinite(value).all()]:
        raise BadInput(f"{wrong[0]}: its statistics for {method} are not finite")
    return found
