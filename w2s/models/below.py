"""What is below the layers that learn, computed once: the states that enter them, for every row that a fit reads.

Where model.trainable is top, the lower layers say the same about a row in every epoch. A trial on rows of the fit shows
whether states can enter in the middle of this architecture.

Letters: B examples, R rows of tokens, T tokens of a row, S tokens of all rows, D width of a state.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from w2s.config.fields import Train
from w2s.models import batches, encoders, lm, shortcuts
from w2s.models.internals import copied, named_facts
from w2s.models.kinds import KINDS
from w2s.models.records import Batch, Encoded, Loaded
from w2s.models.rows import within
from w2s.models.trainable import find_layers
from w2s.models.world import World
from w2s.store.log import progress, say

IN_MEMORY = 2**30
"""Most bytes of states that are kept in memory; more, or those of several processes, are in a file."""
FOLDER = "below"


class Passing(nn.Module):
    """In a layer's place: gives on the states that come in, or the next of `queue` instead; `seen` came in last."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.__dict__.update(named_facts(layer))
        self.queue: list[Tensor] = []
        self.seen: Tensor | None = None

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        self.seen = x
        return self.queue.pop(0).to(x) if self.queue else x


class Halves:
    """A scorer (`score.Scorer` or `members.Members`) cut in two above its first `count` layers, around its weights.

    `upper` scores a batch like the whole one, from the states put in by `feed`.
    """

    def __init__(self, scorer: nn.Module, path: str, layers: int, count: int):
        self.loaded: Loaded = scorer.loaded
        modules = [self.loaded.module.get_submodule(f"{path}.{at}") for at in range(layers)]
        stand_ins = {f"{path}.{at}": Passing(module) for at, module in enumerate(modules)}
        places = list(stand_ins)
        self.tap, self.door = stand_ins[places[count]], stand_ins[places[count - 1]]
        self.lower = copied(self.loaded.module, {place: stand_ins[place] for place in places[count:]}).eval()
        self.upper = scorer.around(copied(scorer.module, {place: stand_ins[place] for place in places[:count]}))

    def states(self, batch: Batch) -> Iterator[Tensor]:
        """The states_RTD that enter the upper half, for each of the batch's inputs; without gradient."""
        writes = KINDS[self.loaded.model.kind].writes
        more = {"use_cache": False} if writes or encoders.scores_last_token(self.loaded.module) else {}
        for inputs in batch.inputs:
            inputs = lm.attending(self.loaded, inputs) if writes else inputs
            with torch.no_grad():
                self.lower.base_model(**inputs, **more)
            yield self.tap.seen

    def feed(self, states: Sequence[Tensor]) -> None:
        """Let `upper` go on from these states_RTD, one for each of the next batch's inputs."""
        self.door.queue[:] = states

    def keep_scores(self, scorer: nn.Module, batch: Batch) -> bool:
        """Whether `upper` scores the batch as the whole scorer does."""

        def halves() -> Tensor:
            self.feed(list(self.states(batch)))
            return self.upper(batch)

        whole, parts = shortcuts.attempt(lambda: scorer(batch)), shortcuts.attempt(halves)
        return shortcuts.same(self.loaded, whole, parts)


@dataclass(frozen=True)
class Below:
    """The states of the examples that a fit reads."""

    halves: Halves
    encoded: Sequence[Encoded]
    array_SD: np.ndarray
    """float32, or int16 that holds bfloat16, which NumPy lacks."""
    start_IN: np.ndarray
    """Where the rows of each example start, for each of a batch's inputs; -1: the fit does not read it."""

    @property
    def upper(self) -> nn.Module:
        return self.halves.upper

    @property
    def states_SD(self) -> Tensor:
        states_SD = torch.from_numpy(self.array_SD)
        return states_SD if self.array_SD.dtype == np.float32 else states_SD.view(torch.bfloat16)

    def feed(self, index_B: np.ndarray) -> None:
        """Let `upper` next score these examples, in this order."""
        self.halves.feed([self.states_SD[places_RT] for places_RT, _ in self.places(index_B)])

    def places(self, index_B: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        """For each of a batch's inputs, where its tokens' states are, and which of its tokens are real."""
        for number, start_N in enumerate(self.start_IN):
            length_R = np.concatenate([lengths(self.encoded[at], number) for at in index_B])
            count_B = [len(lengths(self.encoded[at], number)) for at in index_B]
            end_R = np.cumsum(length_R)
            first_B = np.concatenate([[0], np.cumsum(count_B)[:-1]])
            shift_B = start_N[index_B] - (end_R - length_R)[first_B]
            begin_R = end_R - length_R + np.repeat(shift_B, count_B)
            mask_RT = within(length_R, int(length_R.max()))
            place_RT = np.where(mask_RT, begin_R[:, None] + np.arange(mask_RT.shape[1]), begin_R[:, None])
            yield torch.from_numpy(place_RT), torch.from_numpy(mask_RT)


def lengths(example: Encoded, number: int) -> list[int]:
    """Tokens of the example's rows among a batch's inputs of this number: the second are the prompts of towers."""
    return [len(row.token_T) for row in ((example.prompt,) if number else example.rows)]


def compute(
    scorer: nn.Module,
    frozen: int,
    encoded: Sequence[Encoded],
    reads: Sequence[np.ndarray],
    train: Train,
    world: World,
    folder: Path,
) -> Below | None:
    """The states after the first `frozen` layers of all examples that `reads`, a fit's batches, name.

    None if that saves nothing, because no layer is frozen or no example comes up twice, or if a trial shows that the
    architecture does not allow it. The states are in the number format of training: in memory, or in `folder`/below, a
    file of all processes of this machine, where a killed job finds what it has computed.
    """
    used_N = np.unique(np.concatenate(reads))
    if frozen < 1 or sum(map(len, reads)) <= len(used_N):
        return None
    halves = Halves(scorer, *find_layers(scorer.loaded.module), frozen)
    few = batches.collate(scorer.loaded, [encoded[at] for at in used_N[:2]])
    if not halves.keep_scores(scorer, few):
        kind = scorer.loaded.module.config.model_type
        say(f"{scorer.loaded.model.path}: a {kind} model runs its frozen layers every time: states cannot enter above")
        return None
    start_IN, total = np.full((len(few.inputs), len(encoded)), -1), 0
    for number in range(len(few.inputs)):
        for at in used_N:
            start_IN[number, at] = total
            total += sum(lengths(encoded[at], number))
    low = train.precision == "bfloat16"
    dtype = np.dtype(np.int16 if low else np.float32)
    below = Below(
        halves, encoded, allocate((total, halves.tap.seen.shape[-1]), dtype, world, folder / FOLDER), start_IN
    )
    fill(below, used_N, low, world, folder / FOLDER)
    return below


def allocate(shape: tuple[int, int], dtype: np.dtype, world: World, folder: Path) -> np.ndarray:
    """Room for the states; a file that is already there keeps its content."""
    size = shape[0] * shape[1] * dtype.itemsize
    if world.size == 1 and size <= IN_MEMORY:
        return np.empty(shape, dtype)
    path = folder / f"states.{dtype.name}"
    if world.rank == 0 and not (path.exists() and path.stat().st_size == size):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        np.memmap(path, dtype, "w+", shape=shape).flush()
    world.barrier()
    return np.memmap(path, dtype, "r+", shape=shape)


def fill(below: Below, used_N: np.ndarray, low: bool, world: World, folder: Path) -> None:
    """Compute the states chunk by chunk, shared out over the processes; what `folder` notes as done is left out."""
    halves, encoded = below.halves, below.encoded
    length_N, most = [encoded[at].tokens for at in used_N], batches.most_tokens(halves.loaded)
    chunks = batches.plan_chunks(length_N, most)[world.rank :: world.size]
    note = folder / f"done.{world.rank}-of-{world.size}"
    done = json.loads(note.read_text()) if note.exists() else 0
    with progress(len(chunks), "states of the frozen layers", done=done) as advance:
        for at, chunk in enumerate(chunks[done:], done):
            index_B = used_N[chunk]
            batch = batches.collate(halves.loaded, [encoded[n] for n in index_B])
            with torch.autocast(world.device.type, torch.bfloat16, enabled=low):
                for (place_RT, mask_RT), states_RTD in zip(below.places(index_B), halves.states(batch), strict=True):
                    states_SD = states_RTD[mask_RT.to(states_RTD.device)].cpu()
                    below.states_SD[place_RT[mask_RT]] = states_SD.to(below.states_SD.dtype)
            if isinstance(below.array_SD, np.memmap):
                below.array_SD.flush()
                note.write_text(json.dumps(at + 1))
            advance()
    world.barrier()


def drop(folder: Path, world: World) -> None:
    """Delete the file of states, if there is one."""
    world.barrier()
    if world.rank == 0:
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
