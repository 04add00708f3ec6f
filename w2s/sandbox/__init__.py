"""Run untrusted programs; the judge stays outside."""

from w2s.sandbox.compare import COMPARER, spelled
from w2s.sandbox.plain import NotPlain, Object, decode, encode
from w2s.sandbox.run import Program, Reply, coded, lends, open_program, run_program
from w2s.sandbox.tiers import LIBRARIES, Unsafe, describe, tier

__all__ = [
    "COMPARER",
    "LIBRARIES",
    "NotPlain",
    "Object",
    "Program",
    "Reply",
    "Unsafe",
    "coded",
    "decode",
    "describe",
    "encode",
    "lends",
    "open_program",
    "run_program",
    "spelled",
    "tier",
]
