"""Run untrusted programs; the judge stays outside."""

from w2s.sandbox.plain import NotPlain, Object, decode, encode
from w2s.sandbox.run import Program, Raised, Reply, open_program, run_program
from w2s.sandbox.tiers import Unsafe, describe, tier

__all__ = [
    "NotPlain",
    "Object",
    "Program",
    "Raised",
    "Reply",
    "Unsafe",
    "decode",
    "describe",
    "encode",
    "open_program",
    "run_program",
    "tier",
]
