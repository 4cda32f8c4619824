"""Side by side with peers, in one run, on this machine: ``python -m benchmarks``."""
