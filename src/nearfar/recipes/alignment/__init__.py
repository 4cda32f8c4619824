"""Alignment: policies and language models, from preferences, rewards, ranked lists and demonstrations."""
