"""Run untrusted programs; the judge stays outside."""

from w2s.sandbox.compare import COMPARER, spelled
from w2s.sandbox.plain import NotPlain, Object, decode, encode
from w2s.sandbox.run import Program, Reply, coded, open_program, run_program
from w2s.sandbox.tiers import Unsafe, describe, lacks, tier

__all__ = [
    "COMPARER",
    "NotPlain",
    "Object",
    "Program",
    "Reply",
    "Unsafe",
    "coded",
    "decode",
    "describe",
    "encode",
    "lacks",
    "open_program",
    "run_program",
    "spelled",
    "tier",
]
