"""How much a computation multiplies."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Multiplications(TorchDispatchMode):
    """Counts the multiplications of all matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__.removesuffix("_")
        if name in ("mm", "addmm", "mv", "addmv", "bmm"):
            left, right = args[-2:]
            self.count += left.numel() * (right.shape[-1] if right.dim() > 1 else 1)
        return func(*args, **(kwargs or {}))
