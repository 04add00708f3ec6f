"""Datasets: reading, difficulty, splits, duplicates, and the embedded world."""
