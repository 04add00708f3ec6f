"""Boosting in NumPy: rows, tokens, and what the rounds say of each other. No files."""
