"""The fused kernels on a CUDA device: TFLOP/s beside the matrix product's, time and memory beside the dense form's."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F

from nearfar.objectives import InfoNCE

SIZES = [8_192, 16_384, 32_768, 65_536, 131_072, 262_144, 524_288]
DIMENSIONS = [768, 1_024]
TEMPERATURE = 0.05


def run(sizes: list[int] | None = None, dimensions: list[int] | None = None, repeat: int = 5) -> None:
    """Print a table of InfoNCE, forward and backward, in bfloat16: one row a size."""
    if not torch.cuda.is_available():
        print("kernels: no CUDA device here, nothing measured")
        return
    device = torch.device("cuda")
    print(
        f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, bfloat16; flops of three products, 6 n^2 d"
    )
    print(
        f"{'n':>9s}{'d':>6s}{'kernels s':>12s}{'TFLOP/s':>9s}{'of product':>12s}{'MiB':>9s}"
        f"{'dense s':>10s}{'MiB':>9s}{'x less':>8s}{'loss':>12s}"
    )
    for d in dimensions or DIMENSIONS:
        rate = _rate_of_product(d, device, repeat)
        print(f"{'':>9s}{d:6d}  the matrix product of 8,192 x {d} and {d} x 8,192: {rate / 1e12:.0f} TFLOP/s")
        for n in sizes or SIZES:
            print(_row(n, d, rate, device, repeat), flush=True)


def _rate_of_product(d: int, device: torch.device, repeat: int) -> float:
    left, right = (torch.randn(8_192, d, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds, _ = _cost(lambda: [left @ right.T for _ in range(20)], device, repeat)
    return 20 * 2 * 8_192**2 * d / seconds


def _row(n: int, d: int, rate: float, device: torch.device, repeat: int) -> str:
    generator = torch.Generator(device).manual_seed(0)
    query, key = (
        torch.randn(n, d, device=device, dtype=torch.bfloat16, generator=generator).requires_grad_() for _ in range(2)
    )
    objective = InfoNCE(temperature=TEMPERATURE)
    losses: list[float] = []

    def fused() -> None:
        query.grad = key.grad = None
        loss = objective(query, key, memory="tiled")
        loss.backward()
        losses.append(float(loss))

    def dense() -> None:
        query.grad = key.grad = None
        scores = F.normalize(query.float()) @ F.normalize(key.float()).T / TEMPERATURE
        loss = F.cross_entropy(scores, torch.arange(n, device=device))
        loss.backward()
        losses.append(float(loss))

    seconds, memory = _cost(fused, device, repeat)
    assert objective.report is not None
    assert objective.report.kernel, "the plain engine ran: is triton installed?"
    achieved = 6 * n**2 * d / seconds
    line = f"{n:9,d}{d:6d}{seconds:12.4f}{achieved / 1e12:9.0f}{achieved / rate:12.2f}{memory / 2**20:9.0f}"
    ours = losses[-1]
    try:
        dense_seconds, dense_memory = _cost(dense, device, min(repeat, 2))
    except torch.OutOfMemoryError:
        return f"{line}{'does not fit':>19s}{'':8s}{ours:12.5f}"
    agrees = abs(losses[-1] - ours) <= 1e-3 * abs(ours)
    return f"{line}{dense_seconds:10.4f}{dense_memory / 2**20:9.0f}{dense_memory / memory:8.1f}{ours:12.5f}" + (
        "" if agrees else f"   DIFFERS: {losses[-1]:.5f}"
    )


def _cost(call: Callable[[], object], device: torch.device, repeat: int) -> tuple[float, int]:
    """Median seconds of a call, and the most memory it held beyond what was held before."""
    call()
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    times = []
    for _ in range(repeat):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        torch.cuda.synchronize(device)
        times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times), torch.cuda.max_memory_allocated(device) - before
