"""Views: stochastic transformations that keep what matters of an item and change the rest."""
