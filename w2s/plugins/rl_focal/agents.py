"""The agents of RL-Focal and their central critic: three small networks, and how they learn (supervised, then MAPPO).

A network is a list of arrays: hidden weights and biases, output weights and biases. `forward` takes NumPy arrays and
torch tensors alike, so that training and use cannot diverge; torch is needed only for training and is imported where
it is used. Letters: B decisions, T steps, E parallel episodes, K candidates, M members, F features.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

RATES = {"decider": 1e-3, "fusion": 3e-4, "critic": 1e-3}  # lower for the Fusion, which is already trained
FAR = -1e9  # the score of padding: finite, so that no gradient is NaN


@dataclass(frozen=True)
class Rollout:
    """What the agents saw and did in B decisions. old_*: log-probabilities under the policy that acted."""

    state_BF: np.ndarray
    bits_BM: np.ndarray
    old_decider_B: np.ndarray
    evidence_BKF: np.ndarray
    mask_BK: np.ndarray
    answer_B: np.ndarray
    old_fusion_B: np.ndarray
    critic_BF: np.ndarray
    advantage_B: np.ndarray
    return_B: np.ndarray


class Agents:
    """Decider, Fusion and critic: NumPy arrays that share their memory with torch tensors, and Adam's moments."""

    def __init__(self, rng: np.random.Generator, sizes: dict[str, tuple[int, int]], *, hidden: int):
        import torch

        self.networks = {name: network(rng, inputs, hidden, outputs) for name, (inputs, outputs) in sizes.items()}
        self.tensors = {
            name: [torch.from_numpy(array).requires_grad_() for array in layers]
            for name, layers in self.networks.items()
        }
        self.moments = {
            name: [(np.zeros_like(array), np.zeros_like(array)) for array in layers]
            for name, layers in self.networks.items()
        }
        self.steps = dict.fromkeys(sizes, 0)

    def forget_moments(self) -> None:
        """Reset Adam: the gradients of supervised learning say nothing about the size of later ones."""
        for first, second in (pair for moments in self.moments.values() for pair in moments):
            first[:], second[:] = 0, 0
        self.steps = dict.fromkeys(self.steps, 0)

    def step(self, loss: Any, rates: dict[str, float]) -> None:
        """One step of the networks in `rates` down a loss: Adam (Kingma and Ba 2015), weights decaying by 1% · rate.

        Written out, because importing torch's own takes five seconds. Gradients are clipped to norm 0.5.
        """
        import torch

        slopes = iter(torch.autograd.grad(loss, [tensor for name in rates for tensor in self.tensors[name]]))
        for name, rate in rates.items():
            found = [next(slopes).numpy() for _ in self.networks[name]]
            cut = min(1.0, 0.5 / max(np.sqrt(sum(float((slope**2).sum()) for slope in found)), 1e-12))
            self.steps[name] += 1
            scale = rate * np.sqrt(1 - 0.999 ** self.steps[name]) / (1 - 0.9 ** self.steps[name])
            for array, slope, (first, second) in zip(self.networks[name], found, self.moments[name], strict=True):
                first += 0.1 * (cut * slope - first)
                second += 0.001 * ((cut * slope) ** 2 - second)
                array -= np.float32(scale) * first / (np.sqrt(second) + 1e-8) + np.float32(0.01 * rate) * array


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: as fast as two for networks this small, far faster on a busy machine, and reproducible."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def network(rng: np.random.Generator, inputs: int, hidden: int, outputs: int) -> list[np.ndarray]:
    """A network with one hidden layer of rectified units (He et al. 2015); its first outputs are near 0."""
    shapes = [(inputs, hidden), (hidden,), (hidden, outputs), (outputs,)]
    scales = [np.sqrt(2 / inputs), 0.0, 0.1 / np.sqrt(hidden), 0.0]
    return [
        (rng.standard_normal(shape) * scale).astype(np.float32) for shape, scale in zip(shapes, scales, strict=True)
    ]


def forward(layers: list[Any], inputs: Any) -> Any:
    """(..., inputs) -> (..., outputs), for arrays and for tensors."""
    weight, bias, out_weight, out_bias = layers
    return (inputs @ weight + bias).clip(min=0) @ out_weight + out_bias


def gae(reward_TE: np.ndarray, value_SE: np.ndarray, *, discount: float, trace: float) -> np.ndarray:
    """advantage_TE: generalised advantage estimates (Schulman et al. 2016, equation 16) of E episodes that are cut off.

    value_SE: the critic's values of the T states and of the state that follows, S = T + 1.
    A_t = d_t + discount · trace · A_(t+1), with d_t = r_t + discount · V_(t+1) - V_t.
    """
    surprise_TE = reward_TE + discount * value_SE[1:] - value_SE[:-1]
    advantage_TE, last_E = np.zeros_like(surprise_TE), np.zeros_like(surprise_TE[0])
    for at in range(len(surprise_TE) - 1, -1, -1):
        last_E = advantage_TE[at] = surprise_TE[at] + discount * trace * last_E
    return advantage_TE


def clipped_loss(log_B: Any, old_B: Any, advantage_B: Any, clip: float) -> tuple[Any, float]:
    """PPO's clipped surrogate loss (Schulman et al. 2017, equation 7) and the share of decisions beyond the clip."""
    import torch

    ratio_B = torch.exp(log_B - old_B)
    gain_B = torch.minimum(ratio_B * advantage_B, ratio_B.clamp(1 - clip, 1 + clip) * advantage_B)
    return -gain_B.mean(), float(((ratio_B - 1).abs() > clip).float().mean())


def log_bits(logit_BM: Any, bits_BM: Any) -> Any:
    """The log-probability of M independent yes-or-no decisions taken together, for tensors."""
    import torch

    return -torch.nn.functional.binary_cross_entropy_with_logits(logit_BM, bits_BM, reduction="none").sum(-1)


def log_candidates(score_BK: Any, mask_BK: Any) -> Any:
    """The log-probabilities of the candidates, for tensors."""
    return score_BK.masked_fill(~mask_BK, FAR).log_softmax(-1)


def learn_fusion(
    agents: Agents, evidence_BKF: np.ndarray, mask_BK: np.ndarray, gold_B: np.ndarray, rate: float
) -> float:
    """One supervised step of the Fusion towards the gold candidates; returns the mean log-loss."""
    import torch

    evidence, mask, gold = map(torch.from_numpy, (evidence_BKF, mask_BK, gold_B))
    log_BK = log_candidates(forward(agents.tensors["fusion"], evidence)[..., 0], mask)
    loss = -log_BK.gather(1, gold[:, None]).mean()
    agents.step(loss, {"fusion": rate})
    return float(loss.detach())


def learn_decider(agents: Agents, state_BF: np.ndarray, bits_BM: np.ndarray, rate: float) -> float:
    """One step in which the Decider imitates given decisions; returns the mean log-loss."""
    import torch

    logit_BM = forward(agents.tensors["decider"], torch.from_numpy(state_BF))
    loss = -log_bits(logit_BM, torch.from_numpy(bits_BM)).mean()
    agents.step(loss, {"decider": rate})
    return float(loss.detach())


def learn_together(
    agents: Agents,
    rollout: Rollout,
    reward: float,
    rng: np.random.Generator,
    *,
    epochs: int = 4,
    batch: int = 512,
    clip: float = 0.2,
    entropy: float = 0.003,
) -> dict[str, float]:
    """MAPPO (Yu et al. 2022) on one rollout: both agents by the clipped loss, the critic by squared error.

    The old log-probabilities stay those of the rollout through all epochs, so that the ratio leaves 1 after the first
    step. Returns `reward`, the share of decisions beyond the clip, by agent, and the critic's mean squared error.
    """
    import torch

    whole = {name: torch.from_numpy(array) for name, array in vars(rollout).items()}
    whole["advantage_B"] = (whole["advantage_B"] - whole["advantage_B"].mean()) / (whole["advantage_B"].std() + 1e-6)
    seen = []
    for _ in range(epochs):
        order_B = torch.from_numpy(rng.permutation(len(rollout.answer_B)))
        for rows in order_B.split(batch):
            part = {name: tensor[rows] for name, tensor in whole.items()}
            logit_BM = forward(agents.tensors["decider"], part["state_BF"])
            log_BK = log_candidates(forward(agents.tensors["fusion"], part["evidence_BKF"])[..., 0], part["mask_BK"])
            value_B = forward(agents.tensors["critic"], part["critic_BF"])[..., 0]
            picked_B = log_BK.gather(1, part["answer_B"][:, None])[:, 0]
            chosen_B = log_bits(logit_BM, part["bits_BM"])
            decider, beyond_decider = clipped_loss(chosen_B, part["old_decider_B"], part["advantage_B"], clip)
            fusion, beyond_fusion = clipped_loss(picked_B, part["old_fusion_B"], part["advantage_B"], clip)
            error = (value_B - part["return_B"]).square().mean()
            doubt = -(log_BK.exp() * log_BK).sum(-1).mean() - log_bits(logit_BM, logit_BM.sigmoid()).mean()
            agents.step(decider + fusion + 0.5 * error - entropy * doubt, RATES)
            seen.append((beyond_decider, beyond_fusion, float(error.detach())))
    names = ("clipped_decider", "clipped_fusion", "critic_error")
    return {"reward": reward} | dict(zip(names, np.mean(seen, 0).tolist(), strict=True))
