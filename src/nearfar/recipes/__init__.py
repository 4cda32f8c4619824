"""Papers as combinations of parts, each with its central claim as an experiment::

from nearfar import recipes

recipe = recipes.find("debiased")
objective = recipe.build(tau_plus=0.1)
recipe.experiment(seed=0, scale="quick")
"""

from __future__ import annotations

from nearfar.recipes.recipe import Arms, Experiment, Paper, Recipe, Scale, Statement, at
from nearfar.recipes.registry import find, names, recipes, wings

__all__ = ["Arms", "Experiment", "Paper", "Recipe", "Scale", "Statement", "at", "find", "names", "recipes", "wings"]
