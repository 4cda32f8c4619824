"""Reward models: what says how good a response is, learned from preferences, clean or noisy."""
