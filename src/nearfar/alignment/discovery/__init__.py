"""Searching for preference objectives: what is proposed runs in a process of its own, within limits."""
