"""Rows of tokens continued step by step, with one cache per learner; the caller chooses each next token.

Letters: L learners, B rows, T tokens, S steps, V vocabulary, J most probable tokens, H heads, R rows of all learners.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from w2s.models.chat import find_end
from w2s.models.internals import cache_name, can_drop_rows, make_room
from w2s.models.records import Loaded
from w2s.models.rows import pad_left, positions

STILL_OPEN = 0.75
"""Rows that have ended leave the batch when at most this share of it is still open: leaving copies the caches."""


@dataclass(frozen=True)
class Voice:
    """A language model that stands for `count` learners: its rows are the first learner's batch, the second's, ..."""

    loaded: Loaded
    count: int = 1


@dataclass(frozen=True)
class Made:
    """The continuation of a row: S tokens, including the end mark, and the most probable tokens of each step."""

    tokens: list[int]
    logp_S: np.ndarray
    token_SJ: np.ndarray
    prob_SJ: np.ndarray


def write(
    voices: Sequence[Voice],
    rows: Sequence[Sequence[int]],
    luck_BS: np.ndarray,
    choose: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    *,
    limit_B: Sequence[int] | None = None,
    stop: Sequence[str] = (),
    top: int = 0,
) -> list[Made]:
    """Continue each row with what choose(logits_LBV, luck_B) -> (token_B, logp_BV) picks, to the end or a `stop` text.

    At most S tokens, and limit_B per row. logp_S are the log-probabilities of a row's own tokens in logp_BV;
    token_SJ, prob_SJ are the `top` most probable ones, in descending order.
    """
    first = voices[0].loaded
    device = first.module.device
    tokens_BT, mask_BT = pad_left(rows, first.pad_id, device)
    luck_BS = torch.from_numpy(luck_BS).to(device)
    limit_B = torch.full_like(tokens_BT[:, 0], luck_BS.shape[1]) if limit_B is None else tokens_BT.new_tensor(limit_B)
    readers, size = [Reader(voice) for voice in voices], vocabulary(voices)
    ends = torch.tensor(end_marks(first), dtype=torch.long, device=device)
    row_B, open_B = torch.arange(len(tokens_BT), device=device), torch.ones_like(tokens_BT[:, 0], dtype=torch.bool)
    made_BT, fresh_BT, steps = tokens_BT[:, :0], tokens_BT, []
    for step, luck_B in enumerate(luck_BS.T, 1):
        parts = [reader.read(fresh_BT, mask_BT) for reader in readers]
        logits_LBV = parts[0] if len(parts) == 1 else torch.cat([part[..., :size] for part in parts])
        token_B, logp_BV = choose(logits_LBV, luck_B[row_B])
        logp_B, most = logp_BV.gather(1, token_B[:, None])[:, 0], logp_BV.topk(min(top, logp_BV.shape[1]), -1)
        steps.append([part[open_B] for part in (row_B, token_B, logp_B, most.indices.int(), most.values.exp())])
        fresh_BT = token_B.where(open_B, first.pad_id)[:, None]
        made_BT = torch.cat([made_BT, fresh_BT], 1)
        open_B = open_B & ~torch.isin(token_B, ends) & (step < limit_B[row_B])
        if stop:
            open_B = open_B & ~holds(made_BT, open_B, stop, first.tokenizer)
        if not open_B.any():
            break
        if open_B.float().mean() <= STILL_OPEN and all(can_drop_rows(reader.cache) for reader in readers):
            for reader in readers:
                reader.keep(open_B)
            row_B, made_BT, fresh_BT, mask_BT, open_B = (
                part[open_B] for part in (row_B, made_BT, fresh_BT, mask_BT, open_B)
            )
        # A row that has ended reads no further, so that its position stays within the model's range.
        mask_BT = torch.cat([mask_BT, open_B[:, None].to(mask_BT)], 1)
    return gather(steps, len(rows))


def gather(steps: Sequence[Sequence[Tensor]], count: int) -> list[Made]:
    """The continuations of `count` rows from the columns row, token, logp, token_J and prob_J of every step's rows."""
    columns = [torch.cat(column).cpu().numpy() for column in zip(*steps, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    bounds = np.cumsum(np.bincount(columns[0], minlength=count))[:-1]
    parts = [np.split(column[order], bounds) for column in columns[1:]]
    return [Made(token_S.tolist(), *rest) for token_S, *rest in zip(*parts, strict=True)]


def end_marks(loaded: Loaded) -> list[int]:
    """The tokens that end a text: those of generate in transformers, the tokenizer's, and that of written answers."""
    settings = getattr(loaded.module, "generation_config", None) or loaded.module.config
    ends = settings.eos_token_id
    ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
    own = (loaded.tokenizer.eos_token_id, find_end(loaded))
    return [*ends, *(last for last in dict.fromkeys(own) if last is not None and last not in ends)]


def vocabulary(voices: Sequence[Voice]) -> int:
    """How many tokens the heads of all voices share; some are padded beyond the tokenizer, each by its own amount."""
    return min(voice.loaded.module.config.get_text_config().vocab_size for voice in voices)


class Reader:
    """A voice in the middle of a batch of texts: each of its learners has its own cache."""

    def __init__(self, voice: Voice):
        self.module, self.count = voice.loaded.module.eval(), voice.count
        known = inspect.signature(self.module.forward).parameters
        self.numbered = "position_ids" in known  # ALiBi reads positions from the mask
        self.last_alone = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
        self.cache_name, self.cache = cache_name(self.module), None

    def read(self, fresh_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """logits_LBV of the next token; `fresh_BT` are the tokens not read yet, the last columns of `mask_BT`."""
        inputs = {"input_ids": fresh_BT, "attention_mask": mask_BT}
        if self.numbered:
            inputs["position_ids"] = positions(mask_BT)[:, -fresh_BT.shape[1] :]
        inputs = {name: value.repeat(self.count, 1) for name, value in inputs.items()}
        inputs |= self.last_alone | {self.cache_name: self.cache}
        out = self.module(**inputs, use_cache=True)
        if self.cache is None:
            make_room(out[self.cache_name])
        self.cache = out[self.cache_name]
        return out.logits[:, -1].unflatten(0, (self.count, -1))

    def keep(self, open_B: Tensor) -> None:
        """Go on with these rows of the batch alone."""
        self.cache.batch_select_indices(open_B.repeat(self.count).nonzero()[:, 0])


def holds(made_BT: Tensor, open_B: Tensor, stop: Sequence[str], tokenizer: Any) -> Tensor:
    """Which of the open rows have just completed one of the `stop` texts.

    transformers' own stop_strings read the tokenizer's vocabulary and fail on tokenizers of whole words.
    """
    longest = max(map(len, stop)) + 4  # tokens that a stop text completed just now can reach back
    # Row by row: the result of batch_decode for no rows changes with transformers' releases.
    texts = [tokenizer.decode(row) for row in made_BT[open_B, -longest:]]
    complete = [any(end in text for end in stop) for text in texts]
    complete_B = torch.zeros_like(open_B)
    complete_B[open_B] = torch.tensor(complete, dtype=torch.bool, device=open_B.device)
    return complete_B


def cut(text: str, stop: Sequence[str]) -> str:
    """`text` up to the first `stop` text in it."""
    places = [at for at in (text.find(end) for end in stop if end) if at >= 0]
    return text[: min(places)] if places else text
