"""How votes become one in the main job: combiners, alphas, selection, dependence."""
