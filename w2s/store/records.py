"""Every record that flows between stages, its file format, and `align`, the only join.

Letters in array names: N examples, K candidates per example (padded), R rounds or learners, V vocabulary.
Rows (`Example`, `Gold`, ...) are JSON Lines; array records (`Predictions`, `Weights`, `PseudoLabels`, ...) are `.npz`
files without pickles. Everything is keyed by example id, never by position.
"""

import dataclasses
import gzip
import hashlib
import json
import math
import os
import re
import typing
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from w2s.store.files import open_whole

Task = Literal["choice", "answer", "code"]
TASKS = ("choice", "answer", "code")


class BadInput(ValueError):
    """The user's input is wrong. The command line prints the message without a traceback and exits with status 2."""


@dataclass(frozen=True)
class Example:
    """A question without its answer. `meta` holds its public facts: level (a number), grade, split, subject..."""

    id: str
    source: str
    task: Task
    prompt: str
    choices: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "choices", tuple(self.choices))
        if self.task not in TASKS:
            raise BadInput(f"task: {self.task!r} given; allowed: {', '.join(TASKS)}")
        if not isinstance(self.prompt, str) or not self.prompt.strip():
            raise BadInput("prompt: it is empty")
        if self.task == "choice":
            if len(self.choices) < 2:
                raise BadInput(f"choices: {len(self.choices)} given; a choice question needs at least 2")
            if not all(isinstance(choice, str) and choice.strip() for choice in self.choices):
                raise BadInput("choices: each must be a non-empty text")


@dataclass(frozen=True)
class Gold:
    """The answer of one example: a choice's index (task choice), a text (answer) or a reference program (code).

    A program is judged by `tests`; neither they nor `answer` ever enter the process that runs the program.
    """

    id: str
    answer: int | str
    tests: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Predictions:
    """One opinion: a distribution over each example's candidates.

    Rows of probs_NK sum to 1 over the real candidates (mask_NK true) and are 0 elsewhere; where the model could not
    judge an example, abstained_N is true and the row uniform.
    """

    ids: np.ndarray
    probs_NK: np.ndarray
    mask_NK: np.ndarray
    abstained_N: np.ndarray
    by: str

    def __post_init__(self):
        if not (len(self.ids) == len(self.probs_NK) == len(self.mask_NK) == len(self.abstained_N)):
            raise ValueError(f"predictions by {self.by}: ids, probs, mask and abstained have different lengths")
        if not np.isfinite(self.probs_NK).all():
            raise ValueError(f"predictions by {self.by}: {int((~np.isfinite(self.probs_NK)).sum())} are not finite")
        if np.abs(self.probs_NK.sum(1) - 1).max(initial=0) > 1e-4 or self.probs_NK[~self.mask_NK].any():
            raise ValueError(f"predictions by {self.by}: a row does not sum to 1 over its candidates")


@dataclass(frozen=True)
class Weights:
    """The boosting loop's sample weights; they sum to 1. The only back edge of the graph."""

    ids: np.ndarray
    weight_N: np.ndarray


@dataclass(frozen=True)
class TokenWeights:
    """Sample weights of the supervised tokens, row after row: row `ids[n]` has the next length_N[n] of them.

    They sum to 1 over the set. A token is keyed by its row, its position there and `tokenizer` (a hash), and stands for
    characters start_T to end_T of the row's answer, so that the weights carry over to another tokenizer.
    """

    ids: np.ndarray
    length_N: np.ndarray
    start_T: np.ndarray
    end_T: np.ndarray
    weight_T: np.ndarray
    tokenizer: str

    def __post_init__(self):
        tokens = {int(np.sum(self.length_N)), len(self.start_T), len(self.end_T), len(self.weight_T)}
        if len(self.ids) != len(self.length_N) or len(tokens) > 1:
            raise ValueError("token weights: ids and lengths, or lengths and tokens, do not fit together")


@dataclass(frozen=True)
class TokenRanks:
    """How a model ranks the right tokens of written answers, each given the right tokens before it.

    Tokens stand row after row, as in TokenWeights. above_T counts the tokens of the vocabulary that the model ranks
    above the right one, tied_T those level with it, itself included; logp_T is its log-probability (<= 0).
    """

    ids: np.ndarray
    length_N: np.ndarray
    start_T: np.ndarray
    end_T: np.ndarray
    above_T: np.ndarray
    tied_T: np.ndarray
    logp_T: np.ndarray
    vocabulary: int
    tokenizer: str


@dataclass(frozen=True)
class TokenTargets:
    """Soft targets for written answers: the most probable next tokens at each token of a committee's own text.

    Tokens stand row after row, as in TokenWeights. token_TJ are ids of the tokenizer, prob_TJ (float16) their falling
    probabilities; the remainder to 1 is the rest of the vocabulary, pooled. A token with zeros alone has no target.
    """

    ids: np.ndarray
    length_N: np.ndarray
    token_TJ: np.ndarray
    prob_TJ: np.ndarray
    tokenizer: str


@dataclass(frozen=True)
class Rewards:
    """The scores of M reward models for each candidate: scores_MNK, any real numbers, nan for padding."""

    ids: np.ndarray
    scores_MNK: np.ndarray
    models: np.ndarray


@dataclass(frozen=True)
class Round:
    """The result of one boosting round. `stop` is why no further round follows, or None."""

    index: int
    learner: str
    error: float
    alpha: float
    effective_share: float
    stop: str | None = None


@dataclass(frozen=True)
class PseudoLabels:
    """Training targets: a distribution over the candidates and a weight (0 = dropped, see why_N)."""

    ids: np.ndarray
    target_NK: np.ndarray
    weight_N: np.ndarray
    why_N: np.ndarray

    @property
    def why_none(self) -> str | None:
        """Why no label is left to train on; None if one is."""
        ((words, count),) = Counter(self.why_N.tolist()).most_common(1) or [("there were none", 0)]
        return None if self.weight_N.any() else f"every label was dropped ({count} of {len(self.ids)}: {words})"


@dataclass(frozen=True)
class Outcome:
    """One model's answer to one example of a suite. `correct` is None where it could not be judged (see status)."""

    id: str
    suite: str
    model: str
    text: str
    correct: bool | None
    status: str = "judged"
    seconds: float = 0.0


@dataclass(frozen=True)
class Metric:
    """One number of the report. `value` is None where it is undefined, and `reason` says why."""

    suite: str
    model: str
    name: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    seeds: tuple[int, ...]
    reason: str | None = None


Row = TypeVar("Row", Example, Gold, Round, Outcome, Metric)
Arrays = TypeVar("Arrays", Predictions, Weights, TokenWeights, TokenRanks, TokenTargets, Rewards, PseudoLabels)


def example_id(source: str, prompt: str, choices: Sequence[str] = ()) -> str:
    """16 hex digits that name a question wherever it occurs."""
    return hash_texts(source, prompt, *choices)


def hash_texts(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def candidate_mask(count_N: np.ndarray) -> np.ndarray:
    """count_N -> mask_NK, true for the real candidates."""
    return np.arange(int(count_N.max(initial=0))) < np.asarray(count_N)[:, None]


def align(record: Arrays, ids: np.ndarray) -> Arrays:
    """The rows of `record` in the order of `ids`; where the ids differ, the ValueError counts and names them."""
    kind, position, order = type(record).__name__, {key: at for at, key in enumerate(record.ids.tolist())}, list(ids)
    if len(position) < len(record.ids) or len(set(order)) < len(order):
        raise ValueError(f"{kind}: an id occurs twice")
    missing = [key for key in order if key not in position]
    extra = sorted(position.keys() - set(order))
    if missing or extra:
        first = ", ".join((missing or extra)[:3])
        raise ValueError(f"{kind}: {len(missing)} ids are missing and {len(extra)} are extra ({first})")
    return take(record, np.array([position[key] for key in order], dtype=int))


def take(record: Arrays, index_N: np.ndarray) -> Arrays:
    """The rows `index_N` (positions, or a mask) of an array record."""
    rows = {}
    for column in dataclasses.fields(record):
        if column.name not in ("by", "models"):
            value = getattr(record, column.name)
            rows[column.name] = value[:, index_N] if "_MN" in column.name else value[index_N]
    return dataclasses.replace(record, **rows)


def concatenate(parts: Sequence[Predictions]) -> Predictions:
    """Predictions on different rows as one record, named after the first; narrower ones are padded to the widest."""
    wide = max(part.probs_NK.shape[1] for part in parts)

    def join(name: str) -> np.ndarray:
        arrays = [getattr(part, name) for part in parts]
        return np.concatenate([np.pad(a, ((0, 0), (0, wide - a.shape[1]))) if a.ndim == 2 else a for a in arrays])

    return Predictions(join("ids"), join("probs_NK"), join("mask_NK"), join("abstained_N"), parts[0].by)


def write_rows(path: Path, rows: Iterable[Row]) -> int:
    """Write rows as JSON Lines; returns how many."""
    count = 0
    with open_whole(path) as file:
        for count, row in enumerate(rows, 1):  # noqa: B007
            file.write(json.dumps(dataclasses.asdict(row), ensure_ascii=False) + "\n")
    return count


def read_rows(path: Path, kind: type[Row]) -> list[Row]:
    """JSON Lines (also .gz) as records of `kind`; a row that does not fit is a BadInput that names file and line."""
    rows, number = [], 0
    opener = gzip.open if str(path).endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):  # noqa: B007
                if line.strip():
                    values = json.loads(line)
                    rows.append(kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}))
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise BadInput(f"{path}:{number}: {error}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"{path}: not readable: {getattr(error, 'strerror', None) or error}") from None
    return rows


def write_arrays(path: Path, record: Arrays) -> None:
    """Write an array record as .npz."""
    with open_whole(path, "wb") as file:
        np.savez(file, **{f.name: np.asarray(getattr(record, f.name)) for f in dataclasses.fields(record)})


def read_arrays(path: Path, kind: type[Arrays]) -> Arrays:
    """The record that `write_arrays` wrote; arrays of another type or shape are a BadInput."""
    arrays, types, sizes, values = load_arrays(path), typing.get_type_hints(kind), {}, {}
    try:
        for column in dataclasses.fields(kind):
            array = arrays[name := column.name]
            letters = {"ids": "N", "models": "M"}.get(name, re.sub(r"^.*?(_([A-Z]+))?$", r"\2", name))
            dtypes = "U" if types[name] is str or name in ("ids", "models", "why_N") else "biuf"
            if array.ndim != len(letters) or (array.size and array.dtype.kind not in dtypes):
                raise ValueError(f"{name}: {array.dtype} of shape {array.shape} does not belong to a {kind.__name__}")
            for letter, size in zip(letters, array.shape, strict=True):
                if sizes.setdefault(letter, size) != size:
                    raise ValueError(f"{name}: shape {array.shape}; {letter} is {sizes[letter]} elsewhere")
            values[name] = {str: str, int: int}.get(types[name], np.asarray)(array)
        return kind(**values)
    except KeyError as error:
        raise BadInput(f"{path}: {error.args[0]}: this array is missing; a {kind.__name__} is expected") from None
    except ValueError as error:
        raise BadInput(f"{path}: {error}") from None


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file that numpy.savez wrote; one that claims more than it holds is refused before it is read."""
    try:
        with zipfile.ZipFile(path) as file:
            if sum(entry.file_size for entry in file.infolist()) > os.path.getsize(path):
                raise ValueError("it is compressed, or claims more than it holds")
            headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            for entry in file.infolist():
                with file.open(entry) as stream:
                    shape, _, dtype = headers[np.lib.format.read_magic(stream)](stream)
                    if math.prod(shape) * dtype.itemsize != entry.file_size - stream.tell() or dtype.hasobject:
                        raise ValueError(f"{entry.filename}: {dtype} of shape {shape} is not what it holds")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, EOFError, ValueError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise BadInput(f"{path}: not readable: {getattr(error, 'strerror', None) or error}") from None


def softmax(scores_NK: np.ndarray, mask_NK: np.ndarray) -> np.ndarray:
    """Scores -> probs over the real candidates, in float64."""
    scores_NK = np.where(mask_NK, np.asarray(scores_NK, dtype=np.float64), -np.inf)
    scores_NK = np.exp(scores_NK - scores_NK.max(1, keepdims=True))
    return scores_NK / scores_NK.sum(1, keepdims=True)
