"""Importing this module registers all commands."""

from nearfar.cli import data, demo, encode, evaluate, objectives, report, search, train

__all__ = ["data", "demo", "encode", "evaluate", "objectives", "report", "search", "train"]
