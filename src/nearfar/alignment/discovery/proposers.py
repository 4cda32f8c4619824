"""Proposers: one that combines known losses and learns what does well, and one that asks a writer of text."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from nearfar.alignment.discovery.expressions import ELEMENTWISE, MARGINS, OF_THE_BATCH, PAIRS
from nearfar.alignment.discovery.loop import Archive, Entry
from nearfar.alignment.discovery.proposals import Proposal
from nearfar.errors import DataError, UsageError

LINKS = {
    "logistic": "softplus(-{z})",
    "exponential": "exp(-{z})",
    "hinge": "relu(1 - {z})",
    "square": "square(1 - {z})",
    "sigmoid": "sigmoid(-{z})",
}
"""The costs that are combined, of a margin that is stretched."""

BLENDS = {
    "none": "",
    "constant": "{share}",
    "own margin": "sigmoid(({shift} - z) / {tau})",
    "against it": "sigmoid((z - {shift}) / {tau})",
    "spread of the batch": "sigmoid(variance(z / {tau}) - {shift})",
}
"""How much the first of two costs counts: as much for every pair, or by its margin, or by all margins."""


@dataclass(frozen=True)
class _Genes:
    first: str
    second: str
    stretch: float
    other_stretch: float
    blend: str
    share: float
    shift: float
    tau: float

    def written(self) -> str:
        one = LINKS[self.first].format(z=_times(self.stretch))
        if self.blend == "none":
            return one
        other = LINKS[self.second].format(z=_times(self.other_stretch))
        values = {"share": f"{self.share:.3g}", "shift": f"{self.shift:.3g}", "tau": f"{self.tau:.3g}"}
        return f"m = {BLENDS[self.blend].format(**values)}; m * {one} + (1 - m) * {other}"


class GrammarProposer:
    """Draws blends of two losses of :data:`LINKS`, and changes those that did well: no language model is needed.

    With probability ``fresh`` a new combination; else one of the ``parents`` best of its own with one or two of its
    genes changed (losses, stretches, kind of blend, its share, shift and width). The fitness in the archive is all it
    learns from: ``learns=False`` always draws anew, which is random search. Proposes nothing twice.

    Arguments: ``seed``; ``parents``, default 5; ``fresh`` in [0, 1], default 0.3; ``learns``, default True; ``scale``:
    the margins ``z`` at which something happens, default 1: shifts are drawn from N(0, scale), widths around it.
    """

    def __init__(
        self, *, seed: int = 0, parents: int = 5, fresh: float = 0.3, learns: bool = True, scale: float = 1.0
    ) -> None:
        if parents < 1 or not 0 <= fresh <= 1 or not 0 < scale < math.inf:
            raise UsageError(f"parents >= 1, fresh in [0, 1], scale > 0, got {parents}, {fresh} and {scale}")
        self.parents, self.fresh, self.learns, self.scale = parents, fresh, learns, scale
        self._random = torch.Generator().manual_seed(seed)
        self._genes: dict[str, _Genes] = {}

    def __call__(self, archive: Archive) -> Proposal:
        """The next proposal."""
        for _ in range(1000):
            genes = self._drawn(archive)
            text = genes.written()
            if text not in self._genes:
                self._genes[text] = genes
                return Proposal(f"blend-{len(self._genes)}", expression=text)
        raise DataError("a thousand draws gave nothing new")

    def _drawn(self, archive: Archive) -> _Genes:
        own = [e for e in archive.scored() if e.proposal is not None and e.proposal.expression in self._genes]
        if not self.learns or not own or self._uniform() < self.fresh:
            return self._new()
        parent = own[self._below(min(self.parents, len(own)))].proposal
        assert parent is not None
        return self._changed(self._genes[parent.expression])

    def _new(self) -> _Genes:
        links, blends = list(LINKS), list(BLENDS)
        return _Genes(
            first=links[self._below(len(links))],
            second=links[self._below(len(links))],
            stretch=self._around(1.0, 1.5),
            other_stretch=self._around(1.0, 1.5),
            blend=blends[self._below(len(blends))],
            share=round(self._uniform(), 3),
            shift=self.scale * self._normal(),
            tau=self._around(self.scale, 1.0),
        )

    def _changed(self, genes: _Genes) -> _Genes:
        new = self._new()
        for _ in range(1 + self._below(2)):
            name = list(vars(genes))[self._below(len(vars(genes)))]
            value = getattr(new, name)
            if name in ("stretch", "other_stretch", "tau"):
                value = self._around(getattr(genes, name), 0.5)
            elif name == "shift":
                value = genes.shift + 0.3 * self.scale * self._normal()
            genes = replace(genes, **{name: value})
        return genes

    def _uniform(self) -> float:
        return float(torch.rand((), generator=self._random))

    def _normal(self) -> float:
        return float(torch.randn((), generator=self._random))

    def _below(self, count: int) -> int:
        return int(torch.randint(count, (), generator=self._random))

    def _around(self, centre: float, deviation: float) -> float:
        return centre * math.exp(deviation * self._normal())


class TextProposer:
    """Asks a writer of text, such as a language model: ``TextProposer(lambda question: model(question))``.

    The question is :func:`question`; the answer's JSON object is taken for the proposal.

    Arguments: ``write``: text -> text; ``code``: ask for Python code, default False: for an expression; ``shown``: how
    many entries the question tells of, default 20: the best and the latest.
    """

    def __init__(self, write: Callable[[str], str], *, code: bool = False, shown: int = 20) -> None:
        self.write, self.code, self.shown = write, code, shown

    def __call__(self, archive: Archive) -> dict[str, Any]:
        """The next proposal's fields. Raises :class:`~nearfar.errors.DataError` where the answer has none."""
        return read_answer(self.write(question(archive, code=self.code, shown=self.shown)))


def question(archive: Archive, *, code: bool = False, shown: int = 20) -> str:
    """What is asked of a writer: the task, the form of the answer, and what was tried, with fitness and errors."""
    form = (
        "code: Python that defines one function (policy_chosen, policy_rejected, reference_chosen, reference_rejected) "
        "-> costs, all tensors [n] of log-probabilities; it sees torch, F (torch.nn.functional), math and beta."
        if code
        else "expression: arithmetic on z = beta * rho and rho = (policy_chosen - reference_chosen) - (policy_rejected "
        f"- reference_rejected); names {', '.join((*MARGINS, *PAIRS))}, beta; numbers, + - * / **, comparisons (1 or "
        f"0); of each pair {', '.join(ELEMENTWISE)}; of the batch {', '.join(OF_THE_BATCH)}; 'name = ...;' may stand "
        "before."
    )
    best = archive.scored()[: shown // 2]
    told = [e for e in archive.entries if e in best or e in archive.entries[-(shown - len(best)) :]]
    lines = [
        "Propose a loss for training a policy on pairs of a chosen and a rejected response, to be minimised.",
        "Costs and gradients must be finite, one cost for each pair, and depend on policy and reference of both.",
        "Answer with one JSON object: thought (why), name, and",
        form,
        "What was tried so far; a higher fitness is better:",
        *(_told(entry) for entry in told),
        "Propose the next one, different from all of these.",
    ]
    return "\n".join(lines)


def read_answer(text: str) -> dict[str, Any]:
    """The last JSON object in a text. Raises :class:`~nearfar.errors.DataError` where there is none."""
    decoder = json.JSONDecoder()
    found, place = None, 0
    while (start := text.find("{", place)) >= 0:
        try:
            value, place = decoder.raw_decode(text, start)
            found = value
        except (ValueError, RecursionError):
            place = start + 1
    if not isinstance(found, dict):
        begins = " ".join(text[:200].split())[:80]
        raise DataError("the answer holds no JSON object", hint=f"it begins {begins!r}")
    return found


def _told(entry: Entry) -> str:
    shown = {} if entry.proposal is None else entry.proposal.to_json()
    if entry.outcome.fitness is None:
        return json.dumps({**shown, "error": entry.outcome.error})
    return json.dumps({**shown, "fitness": entry.outcome.fitness})


def _times(stretch: float) -> str:
    return f"({stretch:.3g} * z)"
