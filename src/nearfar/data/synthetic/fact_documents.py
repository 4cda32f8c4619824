"""Documents of facts, summaries whose writers trust what is common more than what they read, and wrong candidates."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.errors import UsageError


class FactDocuments:
    """Documents that give each of ``E`` entities a value: "e0=v3 e1=v0 ...", in random order.

    A summary repeats some facts. Of each entity value 0 is the common one: in references a fact with another value is
    replaced by the common one with the chance ``belief``, so that who learns from references learns to make up facts.

    Arguments: ``entities``: default 5; ``values``: default 6; ``belief``: in [0, 1], default 0.6.
    """

    def __init__(self, entities: int = 5, values: int = 6, *, belief: float = 0.6) -> None:
        if entities < 2 or values < 2 or not 0 <= belief <= 1:
            raise UsageError(f"at least 2 entities and values, belief in [0, 1], got {entities}, {values}, {belief}")
        self.entities, self.values, self.belief = entities, values, belief
        self.symbols = [f"e{entity}=v{value}" for entity in range(entities) for value in range(values)]

    def documents(self, count: int, *, generator: torch.Generator) -> list[str]:
        """``count`` documents; values are uniform."""
        drawn = torch.randint(self.values, (count, self.entities), generator=generator)
        return [" ".join(self._facts(row, torch.randperm(self.entities, generator=generator))) for row in drawn]

    def reference(self, document: str, *, facts: int = 3, generator: torch.Generator) -> str:
        """A summary of ``facts`` facts, some of which are the common one instead of what the document says."""
        said = document.split()
        chosen = [said[place] for place in torch.randperm(len(said), generator=generator)[:facts].tolist()]
        made_up = torch.rand(facts, generator=generator) < self.belief
        return " ".join(
            f"{fact.partition('=')[0]}=v0" if wrong else fact
            for fact, wrong in zip(chosen, made_up.tolist(), strict=True)
        )

    def candidates(self, document: str, count: int, *, generator: torch.Generator) -> list[str]:
        """Summaries of one to four facts; in each any number of values are swapped for others."""
        said = document.split()
        found = []
        for _ in range(count):
            size = int(torch.randint(1, min(4, len(said)) + 1, (1,), generator=generator))
            chosen = [said[place] for place in torch.randperm(len(said), generator=generator)[:size].tolist()]
            swapped = torch.rand(size, generator=generator) < torch.rand(1, generator=generator)
            found.append(" ".join(self._swap(f, generator) if s else f for f, s in zip(chosen, swapped, strict=True)))
        return found

    @staticmethod
    def precision(document: object, summary: str) -> float:
        """The share of a summary's facts that the document gives; 0 for none. It sees no reference."""
        said, facts = set(str(document).split()), summary.split()
        return sum(fact in said for fact in facts) / len(facts) if facts else 0.0

    def _facts(self, values: Tensor, order: Tensor) -> list[str]:
        return [f"e{entity}=v{int(values[entity])}" for entity in order.tolist()]

    def _swap(self, fact: str, generator: torch.Generator) -> str:
        entity, _, value = fact.partition("=v")
        ahead = 1 + int(torch.randint(self.values - 1, (1,), generator=generator))
        return f"{entity}=v{(int(value) + ahead) % self.values}"
