"""Run untrusted programs; the judge stays outside."""
