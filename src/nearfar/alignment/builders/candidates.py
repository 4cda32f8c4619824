"""Ranked candidates: several responses to a prompt in the order of a metric (Chern et al., 2023, arXiv:2307.04507)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nearfar.alignment.builders.writing import Score, response_to
from nearfar.data.preferences.rows import LISTS, PreferenceRow, PreferenceSet, Text, plain
from nearfar.errors import DataError, UsageError

if TYPE_CHECKING:
    import torch

    from nearfar.alignment.policy import Policy

Proposer = Callable[[Text], Sequence[str]]
"""``propose(prompt)``: candidate responses."""


@dataclass(frozen=True)
class SampledCandidates:
    """``count`` samples of a policy that answers in texts; ``generator`` of its draws."""

    policy: Policy
    count: int = 16
    generator: torch.Generator | None = None

    def __call__(self, prompt: Text) -> Sequence[str]:
        return list(self.policy.sample([prompt], self.count, generator=self.generator)[0])


def ranked_candidates(
    prompts: Sequence[Text], propose: Proposer, metric: Score, *, distinct_scores: bool = False
) -> PreferenceSet:
    """Lists to train ``crl-factuality``, ``rrhf`` or the losses of LiPO on: candidates, the best by ``metric`` first.

    ``metric(prompt, candidate)`` sees the prompt and never a reference answer, as faithfulness to the source wants it.
    Empty and repeated candidates are left out, and of equal scores all but the first where ``distinct_scores``;
    prompts with fewer than two candidates left are dropped, and all of that is said in the ``notes`` of the set.

    Raises :class:`~nearfar.errors.DataError` for a metric that is not finite, and where no prompt is left.
    """
    rows: list[PreferenceRow] = []
    repeated = tied = short = 0
    for number, prompt in enumerate(prompts):
        proposed = [candidate.strip() for candidate in propose(prompt)]
        candidates = [candidate for candidate in dict.fromkeys(proposed) if candidate]
        repeated += len(proposed) - len(candidates)
        scored = sorted(((_checked(metric, prompt, each), each) for each in candidates), key=lambda pair: -pair[0])
        if distinct_scores:
            first = [pair for place, pair in enumerate(scored) if not place or pair[0] < scored[place - 1][0]]
            tied += len(scored) - len(first)
            scored = first
        if len(scored) < 2:
            short += 1
            continue
        rows.append(
            PreferenceRow(
                prompt,
                tuple(response_to(prompt, each) for _, each in scored),
                scores=tuple(score for score, _ in scored),
                where=f"candidates, prompt {number}",
            )
        )
    if not rows:
        raise DataError(
            f"none of {len(prompts)} prompts has two candidates that differ",
            hint="propose more, or sample at a higher temperature",
        )
    found = PreferenceSet.from_rows(LISTS, rows)
    for count, what in (
        (repeated, "candidates were empty or repeated"),
        (tied, "candidates had the score of another"),
        (short, "prompts had fewer than two candidates and were dropped"),
    ):
        if count:
            found.notes.append(f"{count} {what}")
    return found


def _checked(metric: Score, prompt: Text, candidate: str) -> float:
    value = float(metric(prompt, candidate))
    if not math.isfinite(value):
        raise DataError(f"the metric of a candidate is {value}", where=f"prompt {plain(prompt)[:80]!r}")
    return value


@dataclass(frozen=True)
class BeamCandidates:
    """The ``count`` best responses of a beam search, of a causal language model of transformers and its tokenizer.

    ``beams``: default ``count``. ``max_new_tokens``: default 64. The paper's *diverse* beam search is no part of
    transformers any more; of the near repeats that it is to prevent only equal ones are left out.
    """

    model: Any
    tokenizer: Any
    count: int = 16
    beams: int | None = None
    max_new_tokens: int = 64

    def __post_init__(self) -> None:
        if self.count < 1 or (self.beams is not None and self.beams < self.count):
            raise UsageError(f"a search with {self.beams} beams has no {self.count} candidates")

    def __call__(self, prompt: Text) -> Sequence[str]:
        import torch

        from nearfar.data.preferences.tokens import tokenise_prompts

        ids = torch.as_tensor(tokenise_prompts([prompt], self.tokenizer)[0], dtype=torch.long)[None]
        padding = self.tokenizer.pad_token_id
        ids = ids.to(next(self.model.parameters()).device)
        with torch.no_grad():
            found = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                num_beams=self.beams or self.count,
                num_return_sequences=self.count,
                max_new_tokens=self.max_new_tokens,
                do_sample=False,
                pad_token_id=self.tokenizer.eos_token_id if padding is None else padding,
            )
        return [str(text) for text in self.tokenizer.batch_decode(found[:, ids.shape[1] :], skip_special_tokens=True)]
