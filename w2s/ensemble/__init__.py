"""Combining votes in the main job: combiners, alphas, selection, dependence."""
