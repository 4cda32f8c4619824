"""DNO-Prct: batched on-policy iterations with a teacher's answers in the pool, margin-filtered pairs, and replay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.alignment.online.costs import PairCost
from nearfar.alignment.online.loop import train_on
from nearfar.alignment.online.rollouts import Rewarder, observe, pick
from nearfar.alignment.online.selection import Pairs
from nearfar.alignment.policy import Policy, Prompts, Responses
from nearfar.errors import DataError, UsageError
from nearfar.objectives import PreferenceObjective, get

_POOL = 13_000_027

Teacher = Callable[[Prompts], Responses]
"""``teacher(prompts)``: the same number of good answers to each prompt, as :meth:`Policy.sample` gives them."""


def practical_pairs(
    scores: Tensor, teacher: Tensor, *, high: float = 5.0, gap: float = 2.0, own_gap: float = 1.0
) -> Pairs:
    """DNO-Prct's pairs of a pool of answers scored 0 to 6 (Rosset et al., 2024).

    ``scores [n, K]``, ``teacher [n, K]``: bool, whose answers are the teacher's. The winner must be good in absolute
    terms, ``>= high`` (default 5), and the loser at least ``gap`` (default 2) below it, ``own_gap`` (default 1) where
    the winner is the policy's own answer, so that it may beat the teacher. Two answers of the teacher are no pair.
    """
    if scores.dim() != 2 or scores.shape != teacher.shape:
        raise ValueError(f"scores and teacher must be [n, K] alike, got {list(scores.shape)}, {list(teacher.shape)}")
    apart = scores[:, :, None] - scores[:, None, :]
    wanted = torch.where(teacher, gap, own_gap)[:, :, None]
    kept = (scores >= high)[:, :, None] & (apart >= wanted) & (apart > 0) & ~(teacher[:, :, None] & teacher[:, None, :])
    return Pairs(*kept.nonzero().unbind(1))


@dataclass(frozen=True)
class PairSet:
    """Pairs apart from their pool: ``prompts`` and for each two ``responses``, the chosen one first."""

    prompts: Prompts
    responses: Responses

    def __len__(self) -> int:
        return len(self.prompts)

    def rows(self, index: Tensor) -> PairSet:
        """The pairs ``index``."""
        return PairSet(pick(self.prompts, index), pick(self.responses, index))

    def joined(self, other: PairSet) -> PairSet:
        """These pairs and then the other ones."""
        return PairSet(_both(self.prompts, other.prompts), _both(self.responses, other.responses))


def pair_set(prompts: Prompts, responses: Responses, pairs: Pairs) -> PairSet:
    """The pairs of a pool of responses as pairs of their own."""
    asked = pick(prompts, pairs.row)
    if isinstance(responses, Tensor):
        return PairSet(asked, torch.stack(pairs.of(responses), 1))
    columns = zip(*(part.tolist() for part in pairs), strict=True)
    return PairSet(asked, [[responses[row][winner], responses[row][loser]] for row, winner, loser in columns])


def with_replay(
    earlier: Sequence[PairSet],
    now: PairSet,
    *,
    shares: Sequence[float] = (0.3, 0.15),
    generator: torch.Generator | None = None,
) -> PairSet:
    """The pairs of now with old ones mixed in: at most ``shares[0]`` of the whole from the last iteration,
    ``shares[1]`` from the one before, ... (default 0.3 and 0.15, the paper's).

    ``earlier``: pairs of past iterations, the oldest first. Where there are too few old ones the share is smaller.
    """
    if not all(share >= 0 for share in shares) or not sum(shares) < 1:
        raise UsageError(f"the shares of old pairs must be >= 0 and sum to less than 1, got {list(shares)}")
    whole = len(now) / (1 - sum(shares[: len(earlier)]))
    found = now
    for old, share in zip(reversed(earlier), shares, strict=False):
        count = min(len(old), int(share * whole + 1e-9))
        found = found.joined(old.rows(torch.randperm(len(old), generator=generator)[:count]))
    return found


@dataclass(frozen=True)
class PracticalSettings:
    """DNO-Prct's settings; defaults are the paper's where it names one.

    ``iterations`` T = 3: the prompts are split into as many parts, each used once; ``responses`` K = 5 a prompt;
    ``eta`` 0.1, the objective's beta; ``high``, ``gap``, ``own_gap``: of :func:`practical_pairs`; ``replay``: of
    :func:`with_replay`; ``passes`` over the pairs of an iteration, 1; ``batch_size`` 64; ``learning_rate`` 5e-5, a
    language model's. ``seed``: of split, samples and batches.
    """

    iterations: int = 3
    responses: int = 5
    eta: float = 0.1
    high: float = 5.0
    gap: float = 2.0
    own_gap: float = 1.0
    replay: tuple[float, ...] = (0.3, 0.15)
    passes: float = 1.0
    batch_size: int = 64
    learning_rate: float = 5e-5
    seed: int = 0


@dataclass(frozen=True)
class Iteration:
    """What one iteration did: mean ``score`` of the policy's own answers before it, how many ``pairs`` of its own
    prompts and how many ``replayed`` ones it was trained on, its mean ``loss`` over the steps."""

    score: float
    pairs: int
    replayed: int
    loss: float


def dno_prct(
    policy: Policy,
    prompts: Prompts,
    score: Rewarder,
    settings: PracticalSettings,
    *,
    teacher: Teacher | None = None,
    objective: PreferenceObjective | None = None,
    parts: Sequence[nn.Module] | None = None,
    after_iteration: Callable[[int], None] | None = None,
) -> list[Iteration]:
    """Direct Nash optimisation as it is run in practice (Rosset et al., 2024): iterated DPO on the policy's own pairs.

    For each part of the prompts: K answers of the present policy and the teacher's are scored, good ones paired with
    clearly worse ones, old pairs mixed in, and ``objective`` (default ``dpo`` with beta ``eta``) trains on them with
    *the present policy* as reference. Raises :class:`~nearfar.errors.DataError` where an iteration finds no pair.
    """
    if not 1 <= settings.iterations <= len(prompts):
        raise UsageError(f"{len(prompts)} prompts cannot be split into {settings.iterations} parts")
    made = objective if objective is not None else _dpo(settings.eta)
    cost = PairCost(made)
    drawn = torch.Generator().manual_seed(_POOL + settings.seed)
    order = torch.randperm(len(prompts), generator=drawn)
    pairs: list[PairSet] = []
    found: list[Iteration] = []
    for number, index in enumerate(order.tensor_split(settings.iterations)):
        asked = pick(prompts, index)
        with torch.no_grad():
            own = policy.sample(asked, settings.responses, generator=drawn)
            taught = None if teacher is None else teacher(asked)
            pool = own if taught is None else _columns(own, taught)
            scores = score(asked, pool)
        of_teacher = torch.zeros_like(scores, dtype=torch.bool)
        of_teacher[:, settings.responses :] = True
        chosen = practical_pairs(scores, of_teacher, high=settings.high, gap=settings.gap, own_gap=settings.own_gap)
        if not len(chosen.row):
            raise DataError(
                f"iteration {number + 1} of DNO-Prct found no pair: no answer scores {settings.high} or more "
                f"with another {settings.own_gap} or more below it",
                hint="lower high and gap to the scale of the scores",
            )
        now = pair_set(asked, pool, chosen)
        mixed = with_replay(pairs, now, shares=settings.replay, generator=drawn)
        pairs.append(now)
        order_of_two = torch.tensor([1.0, 0.0]).expand(len(mixed), 2)
        held = observe(policy, mixed.prompts, mixed.responses, order_of_two, reference=policy)
        steps = max(1, round(settings.passes * len(mixed) / min(settings.batch_size, len(mixed))))
        losses = train_on(
            policy,
            held,
            cost,
            steps=steps,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            parts=parts,
            seed=settings.seed + number,
        )
        own_score = float(scores[:, : settings.responses].mean())
        found.append(Iteration(own_score, len(now), len(mixed) - len(now), sum(losses) / len(losses)))
        if after_iteration is not None:
            after_iteration(number + 1)
    return found


def _dpo(beta: float) -> PreferenceObjective:
    made = get("dpo", beta=beta)
    assert isinstance(made, PreferenceObjective)
    return made


def _both(first: Any, second: Any) -> Any:
    return torch.cat([first, second]) if isinstance(first, Tensor) else [*first, *second]


def _columns(first: Responses, second: Responses) -> Responses:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.cat([first, second], 1)
    return [[*mine, *theirs] for mine, theirs in zip(first, second, strict=True)]
