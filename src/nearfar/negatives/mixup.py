"""Mixing in embedding space: items mixed with soft targets (i-Mix), and harder negatives out of hard ones (MoCHi)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nearfar.contrast import Graded, normalize
from nearfar.contrast.relation import Relation
from nearfar.errors import UsageError


class Mixed(NamedTuple):
    """Items ``[n, d]``, each mixed with a partner, and the relation to the unmixed keys that says so."""

    items: Tensor
    relation: Relation


def mix_items(items: Tensor, *, alpha: float = 1.0, generator: torch.Generator | None = None) -> Mixed:
    """Each item mixed with another of the batch, its target split alike (i-Mix, Lee et al., 2021, arXiv:2010.08887).

    ``x_i' = w_i x_i + (1 - w_i) x_r(i)``, r a random permutation, ``w_i ~ Beta(alpha, alpha)``; against the keys
    ``y_1 .. y_n`` of the unmixed items, item i is near ``y_i`` with weight w_i and near ``y_r(i)`` with 1 - w_i: soft
    targets for ``InfoNCE``. Works on inputs or hidden layers before the encoder's last ones as well as on embeddings.

    ``items [n, ...]``; alpha > 0, default 1 (uniform weights, the paper's).
    """
    if not alpha > 0:
        raise UsageError(f"mixup: alpha must be > 0, got {alpha}")
    n = items.shape[0]
    partner = torch.randperm(n, generator=generator, device="cpu")
    # a Beta from two Gammas, because torch's Beta takes no generator
    gammas = torch._standard_gamma(torch.full((2, n), float(alpha), dtype=torch.float64), generator=generator)
    weight = torch.where(partner == torch.arange(n), 1.0, gammas[0] / gammas.sum(0))
    shaped = weight.to(items).reshape(n, *[1] * (items.dim() - 1))
    mixed = shaped * items + (1 - shaped) * items[partner.to(items.device)]
    other = partner != torch.arange(n)
    ids = torch.arange(n)
    judgements = (
        torch.cat([ids, ids[other]]),
        torch.cat([ids, partner[other]]),
        torch.cat([weight, 1 - weight[other]]).to(items.dtype if items.dtype == torch.float64 else torch.float32),
    )
    return Mixed(mixed, Graded(judgements, ids, ids))


class HarderNegatives(NamedTuple):
    """Made negatives ``[n * count, d]`` and whose each is, ``owner [n * count]`` (a row of the queries)."""

    negatives: Tensor
    owner: Tensor

    def for_owners_alone(self, relation: Relation, keys: int) -> Relation:
        """``relation``, between the queries and ``keys`` real keys followed by the made ones, such that every made
        negative is one for its own query only."""
        owner = self.owner

        def foreign(rows: Tensor, columns: Tensor) -> Tensor:
            made = columns >= keys
            of = owner.to(columns.device)[(columns - keys).clamp_min(0)]
            return made[None, :] & (of[None, :] != rows[:, None])

        return relation.ignore(foreign)


@torch.no_grad()
def mix_hard_negatives(
    query: Tensor,
    negatives: Tensor,
    *,
    hardest: int = 1024,
    count: int = 16,
    with_query: int = 0,
    generator: torch.Generator | None = None,
) -> HarderNegatives:
    """Negatives made of each query's hardest ones (MoCHi, Kalantidis et al., 2020, arXiv:2010.01028).

    Of the ``hardest`` negatives of a query by cosine, ``count`` are ``normalise(a n_i + (1 - a) n_j)`` with a ~ U(0, 1)
    and ``with_query`` more are ``normalise(b q + (1 - b) n_j)`` with b ~ U(0, 0.5), nearer to the query than any real
    one. ``query [n, d]`` and ``negatives [m, d]`` (a queue) are normalised; no gradient flows into what is made. The
    paper takes the 1,024 hardest of a queue, count 1,024 and with_query 128 on ImageNet; fewer suffice for batches.
    """
    if hardest < 1 or count < 0 or with_query < 0:
        raise UsageError("mix_hard_negatives: hardest must be >= 1, count and with_query >= 0")
    unit, far = normalize(query), normalize(negatives)
    hard = torch.cat(
        [(unit[i : i + 512] @ far.T).topk(min(hardest, len(far)), 1).indices for i in range(0, len(unit), 512)]
    )

    def drawn(columns: int) -> Tensor:
        choice = torch.randint(hard.shape[1], (len(unit), columns), generator=generator).to(hard.device)
        return far[hard.gather(1, choice)]

    def share(columns: int, highest: float) -> Tensor:
        return (highest * torch.rand(len(unit), columns, 1, generator=generator)).to(unit)

    a, b = share(count, 1.0), share(with_query, 0.5)
    made = torch.cat(
        [a * drawn(count) + (1 - a) * drawn(count), b * unit[:, None, :] + (1 - b) * drawn(with_query)], dim=1
    )
    owner = torch.arange(len(unit), device=unit.device).repeat_interleave(count + with_query)
    return HarderNegatives(normalize(made.flatten(0, 1)), owner)
