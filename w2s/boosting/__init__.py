"""Boosting in NumPy: rows, tokens, and diagnostics of the rounds. No files."""
