"""What the routers of a mixture of experts do while it runs, and the loss that keeps their choices balanced.

Letters: E experts, L layers, S tokens of all rows, D width of a state, B examples of a batch,
R rows, T tokens of a row.
"""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from w2s.models.records import Batch


@contextlib.contextmanager
def all_active(routers: Sequence[nn.Module]) -> Iterator[None]:
    """Meanwhile every expert sees every token, with equal gates."""
    before = [(router, router.top_k, router.weight.data) for router in routers]
    try:
        for router in routers:
            router.top_k, router.weight.data = router.num_experts, torch.zeros_like(router.weight)
        yield
    finally:
        for router, top_k, weight in before:
            router.top_k, router.weight.data = top_k, weight


@contextlib.contextmanager
def watch(routers: Sequence[nn.Module]) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """A list of (input_SD, logits_SE), one for each call of a router meanwhile."""
    seen: list[tuple[Tensor, Tensor]] = []

    def note(_: nn.Module, arguments: tuple, output: tuple) -> None:
        seen.append((arguments[0].reshape(-1, arguments[0].shape[-1]), output[0]))

    hooks = [router.register_forward_hook(note) for router in routers]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def places(batch: Batch) -> tuple[Tensor, Tensor]:
    """For each token of a batch's rows, padding included: its example, and 1.0 if it is real, else 0.0."""
    columns = batch.inputs[0]["input_ids"].shape[1]
    mask_RT = torch.arange(columns, device=batch.last_R.device) <= batch.last_R[:, None]
    return batch.example_R.repeat_interleave(columns), mask_RT.flatten().float()


def balance(logits_LSE: Sequence[Tensor], batch: Batch, active: int) -> Tensor:
    """loss_B, each example's load-balancing loss: E · sum_e f_e P_e, the mean over the layers; `active` if balanced.

    f: how many of an example's tokens chose each expert, as a share; P: the mean of the router's probabilities (Fedus
    et al., arXiv 2101.03961, eq. 4 to 6). Per example and not per batch, as DeepSeek-V3 has it (2412.19437, eq. 17 to
    20): micro-batches and processes then change nothing.
    """
    example_S, mask_S = places(batch)
    size = len(batch.mask_BK)
    tokens_B = mask_S.new_zeros(size).index_add(0, example_S, mask_S)[:, None]
    losses = []
    for logits_SE in logits_LSE:
        probs_SE = logits_SE.float().softmax(-1)
        chosen_SE = torch.zeros_like(probs_SE).scatter(-1, probs_SE.topk(active, -1).indices, 1.0)
        means = [
            torch.zeros(size, probs_SE.shape[1], device=mask_S.device).index_add(0, example_S, mask_S[:, None] * part)
            / tokens_B
            for part in (chosen_SE, probs_SE)
        ]
        losses.append(probs_SE.shape[1] * (means[0] * means[1]).sum(-1))
    return torch.stack(losses).mean(0)
