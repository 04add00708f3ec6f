"""A frozen model's hidden states: one vector for each candidate of each example, which probes are fitted on.

Prompt and candidate are read together, as by kind pair, and the state is what that kind's head would see: the output
of the last layer that model.layers keeps, after the model's final norm.

Letters: N examples, R candidates of all of them (rows), D width of the states.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from w2s.config.fields import Model
from w2s.models import load
from w2s.models.batches import note_cuts, plan_chunks, to_tensors, worded
from w2s.models.encoders import encode_pair, padded
from w2s.models.records import Loaded, Row, States
from w2s.models.rows import mean_states
from w2s.store.files import open_whole
from w2s.store.records import BadInput, Example, read_arrays, write_arrays

STATES, ROWS = "states.npy", "rows.npz"
CHUNK_TOKENS, BATCH_TOKENS = 16384, 2048
"""Tokens of the rows that are written together, and of those that are read together: small enough for a CPU's cache."""
LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Places:
    """Where each example's rows are in states.npy."""

    ids: np.ndarray
    count_N: np.ndarray


def load_body(model: Model, **options: Any) -> Loaded:
    """The model's body without a head; options of `load.load`."""
    loaded = load.load(dataclasses.replace(model, kind="towers", trainable="all"), **options)
    loaded.module.config.use_cache = False
    loaded.module.eval()
    return loaded


def make_states(loaded: Loaded, examples: Sequence[Example], *, skip: int = 0) -> Iterator[States]:
    """The states of the examples, chunk by chunk (longest first). The first `skip` chunks are left out.

    BadInput if a state is beyond float16, in which they are kept.
    """
    if not examples:
        return
    encoded = note_cuts(loaded, examples, encode_pair(loaded, worded(loaded, examples), examples))
    longest_N = [max(len(row.token_T) for row in one.rows) * one.count for one in encoded]
    for chunk in plan_chunks(longest_N, CHUNK_TOKENS)[skip:]:
        states_RD = read_rows(loaded, [row for at in chunk for row in encoded[at].rows])
        if not np.abs(states_RD).max() <= LARGEST:  # nan too
            which = f"{loaded.model.path} at layer {loaded.model.layers or 'last'}"
            raise BadInput(f"model.layers: the hidden states of {which} are not numbers, or beyond float16")
        ids, count_N = zip(*((examples[at].id, encoded[at].count) for at in chunk), strict=True)
        yield States(np.array(ids), np.array(count_N), states_RD.astype(np.float16))


def read_rows(loaded: Loaded, rows: Sequence[Row]) -> np.ndarray:
    """states_RD (float32) of rows of tokens."""
    device, states_RD = next(loaded.module.parameters()).device, None
    for batch in plan_chunks([len(row.token_T) for row in rows], BATCH_TOKENS):
        inputs = to_tensors(padded([rows[at] for at in batch], loaded.pad_id), device)
        with torch.inference_mode():
            hidden_RTD = loaded.module(**inputs).last_hidden_state.float()
            if loaded.model.pooling == "mean":
                pooled_RD = mean_states(hidden_RTD, inputs["attention_mask"])
            else:
                pooled_RD = hidden_RTD[torch.arange(len(batch)), inputs["attention_mask"].sum(1) - 1]
        if states_RD is None:
            states_RD = np.empty((len(rows), pooled_RD.shape[1]), dtype=np.float32)
        states_RD[batch] = pooled_RD.cpu().numpy()
    return states_RD


def join(parts: Sequence[States], ids: np.ndarray) -> States:
    """The parts as one record, in the order of `ids`."""
    place, count_N = {key: at for at, key in enumerate(ids.tolist())}, np.zeros(len(ids), dtype=int)
    at_parts = [np.array([place[key] for key in part.ids.tolist()]) for part in parts]
    for at, part in zip(at_parts, parts, strict=True):
        count_N[at] = part.count_N
    start_N = np.cumsum(count_N) - count_N
    states_RD = np.empty((int(count_N.sum()), parts[0].states_RD.shape[1]), dtype=np.float16)
    for at, part in zip(at_parts, parts, strict=True):
        states_RD[rows_of(start_N[at], part.count_N)] = part.states_RD
    return States(ids, count_N, states_RD)


# --- on disk ---------------------------------------------------------------------------------------------------------


def write_states(folder: Path, states: States) -> None:
    """Write the states into the folder, for `read_states`."""
    with open_whole(folder / STATES, "wb") as file:
        np.save(file, states.states_RD)
    write_arrays(folder / ROWS, Places(states.ids, states.count_N))


def read_states(folder: Path, examples: Sequence[Example]) -> States:
    """The examples' states, in their order; only these rows are read. BadInput if one is missing."""
    places = read_arrays(folder / ROWS, Places)
    place = {key: at for at, key in enumerate(places.ids.tolist())}
    count_N = np.array([len(example.choices) for example in examples], dtype=int)
    for example, count in zip(examples, count_N.tolist(), strict=True):
        if example.id not in place or places.count_N[place[example.id]] != count:
            raise BadInput(f"{folder}: the question {example.id} with {count} candidates is not among these states")
    index_N = np.array([place[example.id] for example in examples], dtype=int)
    start_N = (np.cumsum(places.count_N) - places.count_N)[index_N]
    try:
        states_RD = np.load(folder / STATES, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder / STATES}: not readable: {error}") from None
    return States(places.ids[index_N], count_N, states_RD[rows_of(start_N, count_N)])


def rows_of(start_N: np.ndarray, count_N: np.ndarray) -> np.ndarray:
    """The rows start, start + 1, ... of each example, one after the other."""
    first_N = np.cumsum(count_N) - count_N
    return np.repeat(start_N - first_N, count_N) + np.arange(count_N.sum())
