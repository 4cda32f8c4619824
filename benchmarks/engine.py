"""The engine against its own matrix products: InfoNCE forward and backward, time and memory."""

from __future__ import annotations

import statistics
import time

import torch

from benchmarks.measure import machine, peak, reset_peak
from nearfar.contrast import tiles
from nearfar.objectives import InfoNCE


def products(query: torch.Tensor, key: torch.Tensor, *, two_sided: bool) -> float:
    """Seconds of the matrix products alone, by the same tiles: three for one direction, four for both."""
    n, m = query.shape[0], key.shape[0]
    step = tiles.rows_that_fit(n, m, query.element_size(), 1.0)
    scores = torch.empty(step, m)
    d_query, d_key = torch.empty_like(query), torch.zeros_like(key)
    start = time.perf_counter()
    for begin in range(0, n, step):
        part = query[begin : begin + step]
        tile = torch.mm(part, key.T, out=scores[: part.shape[0]])
        if two_sided:
            torch.mm(part, key.T, out=tile)
        torch.mm(tile, key, out=d_query[begin : begin + step])
        d_key.addmm_(tile.T, part)
    return time.perf_counter() - start


def run(n: int = 32_768, d: int = 384, repeat: int = 3) -> None:
    """Print one line a direction: seconds, their ratio to the products (in turn, in this process), memory."""
    print(f"InfoNCE forward + backward, n = {n:,}, d = {d}, float32; {machine()}")
    torch.manual_seed(0)
    query, key = torch.randn(n, d, requires_grad=True), torch.randn(n, d, requires_grad=True)
    for two_sided in (False, True):
        objective = InfoNCE(two_sided=two_sided)
        ratios, seconds, memory = [], [], []
        for round_ in range(repeat + 1):
            alone = products(query.detach(), key.detach(), two_sided=two_sided)
            query.grad = key.grad = None
            before = reset_peak()
            start = time.perf_counter()
            objective(query, key).backward()
            took = time.perf_counter() - start
            gradients = 2 * query.numel() * query.element_size()
            if round_:  # the first round warms up
                ratios.append(took / alone)
                seconds.append(took)
                memory.append((peak() - before - gradients) / 2**20)
        name, count = ("two-sided", 4) if two_sided else ("one-sided", 3)
        print(
            f"{name}: {statistics.median(seconds):.2f} s, {statistics.median(ratios):.3f} x its {count} products "
            f"({min(ratios):.3f} to {max(ratios):.3f} over {repeat} rounds), "
            f"{max(memory):.0f} MiB beyond inputs and gradients; {objective.report}"
        )
