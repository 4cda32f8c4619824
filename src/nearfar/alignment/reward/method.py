"""What training a reward model does in a step: preferences, and what is added to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nearfar.alignment.reward.contrast import RewardContrast
from nearfar.alignment.reward.meta import at, raised
from nearfar.alignment.reward.model import rewards
from nearfar.alignment.reward.strength import Treatment
from nearfar.contrast.distributed import mean_over_processes, sum_over_processes, total_over_processes
from nearfar.data.preferences.tokens import TokenisedRow
from nearfar.encoders.dropout_rates import dropout_rate
from nearfar.objectives import MAPL, RewardModeling
from nearfar.objectives.preference_values import reward_spread
from nearfar.training.cached import loss_of_chunks, sum_of_chunks
from nearfar.training.method import Batch, Logs, Method, scale_gradient
from nearfar.training.processes import process_group, world_size

META_FORMS = ("step", "term")


class Scorer(nn.Module):
    """``model``, called on tokenised rows: rewards and states ``[N, 1 + d]`` of their responses."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, rows: Sequence[TokenisedRow]) -> Tensor:
        found = rewards(self.model, rows)
        return torch.cat([found.reward[:, None], found.state.to(found.reward.dtype)], 1)


class RewardMethod(Method):
    """Trains a reward model on pairs, and by what is added to them.

    ``L = L_RM + beta L_CL``, L_RM by ``objective``: :class:`~nearfar.objectives.RewardModeling` with the margins and
    smoothing of the batch, or :class:`~nearfar.objectives.MAPL` with the prompts and gaps that it compares.

    - ``contrast``: L_CL on two passes with dropout ``dropout``; L_RM is then the mean over both. ``contrast_weight``:
      beta.
    - ``meta_form``: what is done with unlabelled responses in the batch: "step", MetaRM's: gradients are taken
      ``meta_rate`` up the gradient of their spread; "term": ``meta_rate`` times the spread is taken off the loss.

    Chunks of a batch are scored one after another where the loss is a mean over pairs, and twice where it is not
    (cached gradients). Over several processes the loss is that of the global batch; unlabelled responses want one.
    """

    main_part = "scorer"
    scored = "rewards"

    def __init__(
        self,
        model: nn.Module,
        objective: RewardModeling | MAPL,
        *,
        contrast: RewardContrast | None = None,
        contrast_weight: float = 0.1,
        dropout: float = 0.1,
        meta_form: str = "step",
        meta_rate: float = 1e-5,
        adapter: bool = False,
    ) -> None:
        super().__init__()
        self.scorer = Scorer(model)
        self.objective = objective
        self.contrast = contrast
        self.contrast_weight, self.dropout = contrast_weight, dropout
        self.meta_form, self.meta_rate = meta_form, meta_rate
        self.keeps_frozen = adapter
        self.latest: Logs = {}
        self._bad_rows: list[int] | None = None

    @property
    def separable(self) -> bool:
        """Whether the loss is a mean over pairs."""
        return self.contrast is None and isinstance(self.objective, RewardModeling)

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        chunks = batch["chunks"]
        score: Callable[[Sequence[TokenisedRow]], Tensor] = self.scorer
        logs: Logs = {}
        spread: Tensor | None = None
        if batch["meta"]:
            found = self.scorer(batch["meta"])[:, 0]
            spread = reward_spread(found.reshape(len(batch["meta"]), -1))
            logs["spread"] = spread.detach()
            if self.meta_form == "step" and torch.is_grad_enabled():
                ahead = raised(self.scorer, spread, self.meta_rate)
                score = lambda rows: at(ahead, self.scorer, rows)  # noqa: E731
                spread = None
        held: list[Tensor] = []
        if self.separable:
            total = total_over_processes(torch.tensor(float(batch["pairs"])), process_group()).clamp_min(1)
            first = np.cumsum([0, *map(len, chunks)]).tolist()

            def part(number: int) -> Tensor:
                values = score(chunks[number])[:, :1]
                held.append(values.detach())
                rows = slice(first[number], first[number + 1])
                return self._costs(values[:, 0], batch["margin"][rows], batch["smoothing"][rows]).sum() / total

            several = len(chunks) > 1
            loss = sum_of_chunks(part, range(len(chunks)), list(self.parameters())) if several else part(0)
            loss = sum_over_processes(loss, process_group())
        else:

            def loss_of(values: Tensor) -> Tensor:
                held.append(values.detach()[:, :1])
                return self._whole(values, batch, logs)

            views = self._views(score)
            several = len(chunks) > 1
            parameters = list(self.parameters())
            loss = loss_of_chunks(views, chunks, loss_of, parameters) if several else loss_of(views(chunks[0]))
        if spread is not None and self.meta_form == "term":
            loss = loss - self.meta_rate * spread
        self._look(batch, torch.cat(held)[:, 0], logs)
        self.latest = logs
        return scale_gradient(loss, world_size()), logs

    def score(self, rows: Sequence[TokenisedRow]) -> Tensor:
        """The rewards ``[N]`` of the responses of tokenised rows."""
        found: Tensor = self.scorer(rows)
        return found[:, 0]

    def not_finite(self) -> list[int] | None:
        return self._bad_rows

    def _views(self, score: Callable[[Sequence[TokenisedRow]], Tensor]) -> Callable[[Sequence[TokenisedRow]], Tensor]:
        if self.contrast is None:
            return score

        def twice(rows: Sequence[TokenisedRow]) -> Tensor:
            with dropout_rate(self.scorer, self.dropout):
                return torch.cat([score(rows), score(rows)], 1)

        return twice

    def _costs(self, reward: Tensor, margin: Tensor, smoothing: Tensor) -> Tensor:
        asked = {"margin": margin.to(reward), "smoothing": smoothing.to(reward)}
        objective = self.objective
        costs: Tensor = objective(reward[0::2], reward[1::2], **asked)
        return costs

    def _whole(self, values: Tensor, batch: Batch, logs: Logs) -> Tensor:
        """The loss of all values of a batch: of one pass, or of two with what contrasts them."""
        group = process_group()
        width = values.shape[1] // (1 if self.contrast is None else 2)
        passes = torch.split(values, width, 1)
        losses = []
        for each in passes:
            if isinstance(self.objective, MAPL):
                losses.append(self._levels(each[:, 0], batch))
            else:
                costs = self._costs(each[:, 0], batch["margin"], batch["smoothing"])
                losses.append(mean_over_processes(costs, group))
        loss = torch.stack(losses).mean()
        if self.contrast is not None:
            states = [each[: 2 * batch["pairs"], 1:] for each in passes]
            term = self.contrast(*((each[0::2], each[1::2]) for each in states), group=group)
            logs["contrast"] = term.detach()
            loss = loss + self.contrast_weight * term
        return loss

    def _levels(self, reward: Tensor, batch: Batch) -> Tensor:
        pairs, compared, gaps = (2 * batch[name] for name in ("pairs", "compared", "gaps"))
        own, prompts, rest = torch.split(reward, [pairs, compared, 2 * gaps])
        gap = rest[0::2] - rest[1::2]
        loss: Tensor = self.objective(
            own[0::2],
            own[1::2],
            prompt_chosen=prompts[0::2],
            prompt_rejected=prompts[1::2],
            gap_wide=gap[0::2],
            gap_narrow=gap[1::2],
            group=process_group(),
        )
        return loss

    def _look(self, batch: Batch, reward: Tensor, logs: Logs) -> None:
        chosen, rejected = reward[: 2 * batch["pairs"]].reshape(-1, 2).unbind(1)
        difference = chosen - rejected
        logs["reward_chosen"], logs["reward_rejected"] = chosen.mean(), rejected.mean()
        logs["margin"] = difference.mean()
        logs["accuracy"] = (0.5 * (1 + difference.sign())).mean()
        bad = ~torch.isfinite(difference)
        some = bool(bad.any()) and not bool(bad.all())
        self._bad_rows = batch["rows"][bad.cpu()].tolist() if some else None


@dataclass
class Extra:
    """What is trained on beside the pairs, by their rows: prompts compared, as two rows of one response, and gaps, as
    two rows of both; ``meta``: rows of as many responses each, without labels, of which ``meta_rows`` are in a
    batch."""

    compared: dict[int, list[tuple[TokenisedRow, TokenisedRow]]] = field(default_factory=dict)
    gaps: dict[int, list[tuple[TokenisedRow, TokenisedRow]]] = field(default_factory=dict)
    meta: Sequence[TokenisedRow] = ()
    meta_rows: int = 4


class RewardBatches:
    """Batches of pairs as :class:`RewardMethod` reads them.

    ``batch(rows)``: ``"rows"`` int64 ``[n]``; ``"pairs"``, ``"compared"``, ``"gaps"``: how many there are;
    ``"chunks"``: their tokenised rows, in this order, in chunks of ``chunk_size`` (None: all at once); ``"margin"``,
    ``"smoothing"``
    ``[n]``; ``"meta"``: tokenised rows without labels. Flipped pairs have changed places.
    """

    def __init__(
        self,
        pairs: Sequence[TokenisedRow],
        treated: Treatment,
        extra: Extra | None = None,
        *,
        chunk_size: int | None = None,
        seed: int = 0,
    ) -> None:
        self.pairs, self.treated = pairs, treated
        self.extra = extra or Extra()
        self.chunk_size, self.seed = chunk_size, seed
        self._sizes = np.array([len(row.prompt) + sum(map(len, row.responses)) for row in pairs])

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitems__(self, rows: Any) -> Any:
        return rows

    def batch(self, rows: Any) -> Batch:
        """The batch of these rows."""
        given = np.asarray(rows, np.int64)
        index = given[np.argsort(-self._sizes[given], kind="stable")]
        treated = self.treated[torch.from_numpy(index)]
        pieces = [
            swapped(self.pairs[row]) if turned else self.pairs[row]
            for row, turned in zip(index.tolist(), treated.flipped.tolist(), strict=True)
        ]
        beside = [[two for row in index.tolist() for two in held.get(row, ())] for held in self._held]
        pieces += [row for several in beside for two in several for row in two]
        size = self.chunk_size or len(pieces)
        return {
            "rows": torch.from_numpy(index),
            "pairs": len(index),
            "compared": len(beside[0]),
            "gaps": len(beside[1]),
            "chunks": [pieces[start : start + size] for start in range(0, len(pieces), size)],
            "margin": treated.margin,
            "smoothing": treated.smoothing,
            "meta": self._unlabelled(given),
        }

    @property
    def _held(self) -> tuple[dict[int, list[tuple[TokenisedRow, TokenisedRow]]], ...]:
        return self.extra.compared, self.extra.gaps

    def _unlabelled(self, rows: Any) -> list[TokenisedRow]:
        meta = self.extra.meta
        if not len(meta):
            return []
        # drawn by what is in the batch, so that a run that is resumed draws the same
        drawn = np.random.default_rng([self.seed, *rows.tolist()])
        chosen = drawn.choice(len(meta), min(self.extra.meta_rows, len(meta)), replace=False)
        return [meta[place] for place in chosen.tolist()]


def swapped(row: TokenisedRow) -> TokenisedRow:
    """The row with its two responses in the other order."""
    return TokenisedRow(row.prompt, row.responses[::-1], row.cut_prompt, row.cut[::-1])
