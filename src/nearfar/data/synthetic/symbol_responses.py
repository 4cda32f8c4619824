"""Responses that are a few symbols, with a hidden quality, and prompts that are lists of instructions about them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nearfar.errors import DataError, UsageError

Asked = tuple[str, str | int]
"""An instruction by its kind and value, such as ``("contains", "c")`` or ``("at most words", 5)``."""


class SymbolResponses:
    """Texts of 3 to ``longest`` symbols, ``"c a f a"``, drawn evenly; their quality is the mean of hidden values.

    ``symbols`` (a list of words) each have a hidden value ~ N(0, 1). What is seen of a response is which symbols it
    holds, which comes first, and how long it is; of a prompt, which instructions it gives, of those that
    :meth:`column` knows. Arguments: ``symbols``: how many, at most 26, default 10; ``longest``, default 8; ``seed`` of
    the values. Raises :class:`~nearfar.errors.UsageError` for other numbers.
    """

    def __init__(self, symbols: int = 10, longest: int = 8, *, seed: int = 0) -> None:
        if not 2 <= symbols <= 26 or longest < 3:
            raise UsageError(f"{symbols} symbols and {longest} of them at most; 2 to 26, and 3 at least are needed")
        self.symbols = [chr(ord("a") + number) for number in range(symbols)]
        self.longest = longest
        self.value = torch.randn(symbols, generator=torch.Generator().manual_seed(seed))
        bounds = range(1, longest + 3)
        columns: list[Asked] = [(how, bound) for how in ("at least words", "at most words") for bound in bounds]
        columns += [(how, symbol) for how in ("contains", "lacks", "starts with") for symbol in self.symbols]
        self._column = {asked: place for place, asked in enumerate(columns)}

    @property
    def response_width(self) -> int:
        """Features of a response."""
        return 2 * len(self.symbols) + self.longest

    @property
    def prompt_width(self) -> int:
        """Features of a prompt."""
        return len(self._column)

    def draw(self, n: int, *, generator: torch.Generator) -> list[str]:
        """``n`` responses."""
        lengths = torch.randint(3, self.longest + 1, (n,), generator=generator).tolist()
        drawn = torch.randint(len(self.symbols), (n, self.longest), generator=generator).tolist()
        return [" ".join(self.symbols[s] for s in row[:k]) for row, k in zip(drawn, lengths, strict=True)]

    def quality(self, responses: Sequence[str]) -> Tensor:
        """The quality ``[n]``: the mean of the hidden values of the symbols."""
        return torch.stack([self.value[self._codes(response)].mean() for response in responses])

    def pairs(self, n: int, *, generator: torch.Generator) -> list[tuple[str, str]]:
        """``n`` pairs of responses, the one of higher quality first."""
        first, second = self.draw(n, generator=generator), self.draw(n, generator=generator)
        better = (self.quality(first) >= self.quality(second)).tolist()
        return [(a, b) if ahead else (b, a) for a, b, ahead in zip(first, second, better, strict=True)]

    def alike(self, n: int, *, generator: torch.Generator) -> list[tuple[str, str]]:
        """``n`` pairs of responses that are next to each other in the order of quality of 2 n drawn ones."""
        drawn = self.draw(2 * n, generator=generator)
        order = self.quality(drawn).argsort(stable=True).tolist()
        turned = (torch.rand(n, generator=generator) < 0.5).tolist()
        sides = [(drawn[order[2 * i]], drawn[order[2 * i + 1]]) for i in range(n)]
        return [(b, a) if swap else (a, b) for (a, b), swap in zip(sides, turned, strict=True)]

    def response_features(self, responses: Sequence[str]) -> Tensor:
        """What is seen of responses ``[n, response_width]``: zeros and ones."""
        count = len(self.symbols)
        found = torch.zeros(len(responses), self.response_width)
        for row, response in enumerate(responses):
            codes = self._codes(response)
            found[row, codes] = 1
            found[row, count + codes[0]] = 1
            found[row, 2 * count + min(len(codes), self.longest) - 1] = 1
        return found

    def prompt_features(self, prompts: Sequence[Sequence[Asked]]) -> Tensor:
        """What is seen of prompts ``[n, prompt_width]``: ones where an instruction is given.

        Raises :class:`~nearfar.errors.DataError` for an instruction that the world does not know.
        """
        found = torch.zeros(len(prompts), self.prompt_width)
        for row, prompt in enumerate(prompts):
            for asked in prompt:
                found[row, self.column(asked)] = 1
        return found

    def column(self, asked: Asked) -> int:
        """Which feature of a prompt an instruction is."""
        if asked not in self._column:
            raise DataError(f"this world knows no instruction {asked!r}")
        return self._column[asked]

    def _codes(self, response: str) -> Tensor:
        return torch.tensor([ord(symbol) - ord("a") for symbol in response.split()])
