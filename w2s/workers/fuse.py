"""What models of any vocabulary expect next in given texts, on a student's vocabulary: the worker of job.Fuse.

Each teacher reads a question and its text in its own words and tokens. Its distribution counts for the student's next
token wherever tokens of both start at the same byte of the text; the end of the text is such a place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from w2s.boosting.tokens import gathered
from w2s.fusion.projection import move, project, spell
from w2s.fusion.targets import COMBINATIONS, keep_most, mix, shared_places
from w2s.models import batches, lm, load
from w2s.models.chat import find_end
from w2s.models.ranks import plan
from w2s.models.records import Encoded, Loaded
from w2s.models.tokens import fingerprint
from w2s.models.world import World
from w2s.store.records import BadInput, Example, TokenTargets, read_arrays, write_arrays
from w2s.workers.examples import count_cuts, read_sets
from w2s.workers.job import Fuse
from w2s.workers.parts import Chunk, drop_parts, make_parts

LEAST_SHARE = 1e-12


class Reader(NamedTuple):
    """A model, and the texts of some examples as it reads them."""

    loaded: Loaded
    encoded: list[Encoded]
    starts: list[np.ndarray | None]
    """For each example where its tokens start, in bytes of its text; None if that is blank, was cut or is not its
    tokens'."""


def run(folder: Path, job: Fuse, world: World) -> dict[str, Any]:
    """Do the job in `folder`; returns the summary for done.json.

    tokens: the student's · shared: those with a target · untargeted: texts without any, as they are blank or the
    student does not read them whole · unread: for each teacher, the other texts that it does not read whole.
    """
    sets = read_sets(folder, {"texts": job.examples})
    teachers = [load.load_folder(folder / path, device=world.device) for path in job.models]
    train = job.student.learner.train
    student = load.load(job.student.learner.model, path=job.student.path, max_tokens=train.max_tokens)
    for loaded in (*teachers, student):
        if loaded.model.kind != "lm":
            raise BadInput(
                f"model.kind: {loaded.model.kind!r} given; allowed: lm (only a language model has next tokens)"
            )
    fusion = Fusion(teachers, student, job)
    parts = make_parts(folder, sets, world, fusion.make)["texts"]
    examples = sets["texts"]
    cut = count_cuts(student, sets, "the student", world)
    if world.rank:
        return {}
    ids = np.array([example.id for example in examples])
    soft = gathered([read_arrays(part / "soft.npz", TokenTargets) for part in parts], ids)
    write_arrays(folder / "soft.npz", soft)
    unread = [json.loads(line)["unread"] for part in parts for line in (part / "read.jsonl").read_text().splitlines()]
    drop_parts(folder, world)
    heard_T = soft.prob_TJ.sum(1) > 0
    facts = {"tokens": len(heard_T), "shared": int(heard_T.sum()), "untargeted": int((soft.length_N == 0).sum())}
    return {"rows": len(examples), **facts, "unread": np.sum(unread, axis=0).tolist(), **cut}


class Fusion:
    """The targets of a student from its teachers' distributions."""

    def __init__(self, teachers: Sequence[Loaded], student: Loaded, job: Fuse):
        self.teachers, self.student, self.job = teachers, student, job
        self.weight_L = np.array(job.alphas, dtype=float)
        if len(self.weight_L) != len(teachers) or not self.weight_L.any() or (self.weight_L < 0).any():
            raise BadInput(f"alphas: {list(job.alphas)} given; allowed: one for each model, 0 or more, not all 0")
        self.size = len(student.tokenizer)
        end = find_end(student)
        self.maps = [project(one.tokenizer, student.tokenizer, (find_end(one), end)) for one in teachers]
        self.tokenizer = fingerprint(student)

    def make(self, examples: list[Example], skip: int) -> Iterator[Chunk]:
        """The targets of the examples, chunk by chunk (longest first)."""
        *heard, own = readers = [read(loaded, examples) for loaded in (*self.teachers, self.student)]
        widest = max(one.module.config.get_text_config().vocab_size for one in self.teachers)
        for chunk in plan(readers[0].encoded, widest, batches.most_tokens(self.teachers[0]))[skip:]:
            made = [self.target([pick(reader, at) for reader in readers], examples[at]) for at in chunk]
            ids = np.array([examples[at].id for at in chunk], dtype=str)
            length_N = np.array([len(token_TJ) for token_TJ, _ in made], dtype=np.int64)
            token_TJ, prob_TJ = (np.concatenate(column) for column in zip(*made, strict=True))
            targets = TokenTargets(ids, length_N, token_TJ.astype(np.int32), prob_TJ.astype(np.float16), self.tokenizer)
            unread = [[own.starts[at] is not None and one.starts[at] is None for one in heard] for at in chunk]
            yield len(chunk), {"soft.npz": targets, "read.jsonl": [{"unread": row} for row in unread]}

    def target(self, readers: Sequence[Reader], example: Example) -> tuple[np.ndarray, np.ndarray]:
        """token_SJ and prob_SJ of one example, zeros where no teacher has a say; empty if the student has no text."""
        *heard, own = readers
        top = min(self.job.top, self.size)
        if own.starts[0] is None:
            return np.zeros((0, top)), np.zeros((0, top))
        start_S, size = own.starts[0], max(1, len(example.choices[0].encode()))
        parts, places, nats_L = [], [], []
        for reader, map_T in zip(heard, self.maps, strict=True):
            if reader.starts[0] is None:
                parts.append(None)
                places.append(np.full(len(start_S), -1))
                nats_L.append(np.inf)
                continue
            at_S = shared_places(reader.starts[0], start_S)
            probs_PV = next_tokens(reader)
            token_P = reader.encoded[0].rows[0].token_P
            nats_L.append(-float(np.log(np.maximum(probs_PV[np.arange(len(token_P)), token_P], 1e-30)).sum()) / size)
            parts.append(move(probs_PV[at_S[at_S >= 0]], map_T, self.size))
            places.append(at_S)
        return self.combine(parts, np.array(places), np.array(nats_L), top)

    def combine(self, parts: list, at_LS: np.ndarray, nats_L: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        """The teachers together, at each of the student's tokens those who have a say there."""
        known_L = np.isfinite(nats_L)
        share_L = np.zeros(len(nats_L))
        token_SJ, prob_SJ = np.zeros((at_LS.shape[1], top)), np.zeros((at_LS.shape[1], top))
        if not known_L.any():
            return token_SJ, prob_SJ
        share_L[known_L] = COMBINATIONS[self.job.combination](self.weight_L[known_L], nats_L[known_L])
        row_LS = np.cumsum(at_LS >= 0, axis=1) - 1
        for at in range(at_LS.shape[1]):
            some = np.flatnonzero((at_LS[:, at] >= 0) & (share_L > LEAST_SHARE))
            if len(some):
                rows = [parts[one][row_LS[one, at]][None] for one in some]
                mixed = mix(rows, share_L[some] / share_L[some].sum(), mixture=self.job.mixture)
                token_SJ[at], prob_SJ[at] = (part[0] for part in keep_most(mixed, top))
        return token_SJ, prob_SJ


def read(loaded: Loaded, examples: list[Example]) -> Reader:
    """The texts as the model reads them."""
    loaded.module.eval()
    words, encoded = batches.worded(loaded, examples), batches.encode(loaded, examples)
    spelled, end = spell(loaded.tokenizer), find_end(loaded)
    starts = [
        find_starts(one.rows[0].token_P.tolist(), row.answers[0], spelled, end) if row.answers[0].strip() else None
        for one, row in zip(encoded, words, strict=True)
    ]
    return Reader(loaded, encoded, starts)


def pick(reader: Reader, at: int) -> Reader:
    return Reader(reader.loaded, [reader.encoded[at]], [reader.starts[at]])


def find_starts(tokens: list[int], text: str, spelled: Sequence[bytes | None], end: int | None) -> np.ndarray | None:
    """Where each token starts, in bytes of the text after the white space before it, which begins at a negative place;
    None unless the tokens, but for an end mark, are the whole text.

    A word is spelled with a space before it. Where the text lacks that space, only another word starts where it does,
    half a byte later; at the beginning of the text it stands at -1, as in a text with the space.
    """
    whole, at, starts = text.encode(), 0, []
    lead = len(whole) - len(text.lstrip().encode())
    for token in tokens:
        piece = b"" if token == end else spelled[token]
        if piece is None:
            return None
        place = at - lead
        if not whole.startswith(piece, at):
            at, piece = len(whole) - len(whole[at:].lstrip()), piece.removeprefix(b" ")
            if not piece or not whole.startswith(piece, at):
                return None
            place = at - lead + 0.5 if at else -1.0
        starts.append(place)
        at += len(piece)
    return np.array(starts, dtype=float) if at == len(whole) else None


def next_tokens(reader: Reader) -> np.ndarray:
    """probs_PV of the model before each token of its one example."""
    with torch.inference_mode():
        batch = batches.collate(reader.loaded, reader.encoded)
        return lm.token_logits(reader.loaded, batch).softmax(-1).cpu().numpy()
