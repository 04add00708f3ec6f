"""One model's next-token distribution on the vocabulary of another: each token goes to the longest beginning of its
text that the other vocabulary has.

Whole strings are rarely common to two vocabularies; first bytes nearly always are. Letters: T teacher's vocabulary,
S student's, B positions.
"""

import functools
import json
from typing import Any

import numpy as np

from w2s.store.records import BadInput

NOWHERE = -1
MARK = "\u2581"  # SentencePiece's space


@functools.lru_cache(1)
def byte_alphabet() -> dict[str, int]:
    """The character that stands for each byte in a byte-level vocabulary (GPT-2's table, which many models share)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + at): byte for at, byte in enumerate(others)}


def style_of(tokenizer: Any) -> str:
    """How a tokenizer's vocabulary spells text: bytes (byte-level), pieces (SentencePiece) or words (whole words).

    BadInput for any other, and for a tokenizer that is not fast.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise BadInput(f"{type(tokenizer).__name__}: its tokens' text is not known (not a fast tokenizer)")
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    told = json.dumps([parts.get("pre_tokenizer"), parts.get("decoder"), parts.get("normalizer")], ensure_ascii=False)
    if "ByteLevel" in told:
        return "bytes"
    if MARK in told or "Metaspace" in told:
        return "pieces"
    if parts["model"].get("type") == "WordLevel":
        return "words"
    raise BadInput(f"{type(tokenizer).__name__}: its vocabulary is neither byte-level, nor of pieces, nor of words")


def spell(tokenizer: Any) -> list[bytes | None]:
    """The bytes of each token of the vocabulary, by id; None for special tokens and unused ids.

    A word of a vocabulary of words is spelled with the space before it.
    """
    style, special = style_of(tokenizer), set(tokenizer.all_special_ids)
    special |= {at for at, token in tokenizer.added_tokens_decoder.items() if token.special}
    spelled: list[bytes | None] = [None] * len(tokenizer)
    for token, at in tokenizer.get_vocab().items():
        if at not in special:
            spelled[at] = spell_token(token, style)
    return spelled


def spell_token(token: str, style: str) -> bytes | None:
    if style == "words":
        return f" {token}".encode()
    if style == "pieces":
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return bytes([int(token[3:5], 16)])
        return token.replace(MARK, " ").encode()
    known = byte_alphabet()
    return bytes(known[c] for c in token) if all(c in known for c in token) else token.encode()


def project(teacher: Any, student: Any, ends: tuple[int | None, int | None] = (None, None)) -> np.ndarray:
    """map_T: for each of the teacher's tokens the student's that its probability goes to, or NOWHERE.

    ends: the tokens that end an answer, the teacher's and the student's. The same vocabulary is mapped token by token.
    BadInput where the student has whole words and the teacher does not: the beginning of a word is no word.
    """
    size = max(len(teacher), *teacher.get_vocab().values()) if len(teacher) else 0
    if teacher.get_vocab() == student.get_vocab():
        return np.arange(size, dtype=np.int64)
    words = (style_of(teacher) == "words", style_of(student) == "words")
    if words == (False, True):
        raise BadInput(
            "fusion: the student's vocabulary is of whole words, and the teacher's is not; allowed: the reverse"
        )
    ids: dict[bytes, int] = {}
    for at, text in enumerate(spell(student)):
        if text:  # of tokens with the same text the first, but a piece before a byte of its own
            ids.setdefault(text, at)
    longest = max(map(len, ids), default=0)
    map_T = np.full(size, NOWHERE, dtype=np.int64)
    for at, text in enumerate(spell(teacher)):
        if text is None:
            continue
        shortest = len(text) if words[0] and words[1] else 1
        for length in range(min(len(text), longest), shortest - 1, -1):
            if (found := ids.get(text[:length])) is not None:
                map_T[at] = found
                break
    if None not in ends:
        map_T[ends[0]] = ends[1]
    return map_T


def move(probs_BT: np.ndarray, map_T: np.ndarray, size: int) -> np.ndarray:
    """probs_BS: the teacher's probabilities on the student's vocabulary of `size` tokens.

    A row sums to what has a place there. Columns beyond the map (of a padded head) have none.
    """
    map_T = map_T[: probs_BT.shape[1]]
    if len(map_T) <= size and np.array_equal(map_T, np.arange(len(map_T))):
        return np.pad(probs_BT[:, : len(map_T)], ((0, 0), (0, size - len(map_T))))
    placed_T = np.flatnonzero(map_T != NOWHERE)
    target_T = map_T[placed_T]
    return np.stack([np.bincount(target_T, weights=row[placed_T], minlength=size) for row in probs_BT])
