"""Reward models in NumPy: training pairs, aggregators, tilting, best-of-n."""
