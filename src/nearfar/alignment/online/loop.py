"""The on-policy loop: sample, reward, contrast, train; and again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nearfar.alignment.online.costs import Cost
from nearfar.alignment.online.rollouts import Embedder, Rewarder, Rollouts, pick, roll_out
from nearfar.alignment.policy import Policy, Prompts
from nearfar.errors import TrainingError, UsageError
from nearfar.training.steps import OPTIMIZERS, random_batches, train_steps

_SAMPLES, _BATCHES = 11_000_027, 12_000_017


@dataclass(frozen=True)
class OnlineSettings:
    """How a policy is improved.

    ``responses``: drawn for each prompt, K (default 8). ``steps``: of the optimiser in all. ``refresh``: T, after how
    many steps responses are drawn anew: 1 (default) is on-policy, ``steps`` is offline, data of the first policy alone.
    ``prompts_a_round``: how many prompts are answered then, drawn without repetition (default: all). ``batch_size``:
    how many of them a step takes (default: all of the round). ``reference``: what log-ratios are against: the policy as
    it was at the "start" (default), or the "sampler": as it was when the responses were drawn (DNO). ``optimizer``,
    ``learning_rate``: of :func:`~nearfar.training.steps.train_steps`. ``largest_gradient``: the norm a gradient is
    clipped at (default: never). ``seed``: of samples and batches.
    """

    responses: int = 8
    steps: int = 200
    refresh: int = 1
    prompts_a_round: int | None = None
    batch_size: int | None = None
    reference: Literal["start", "sampler"] = "start"
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = 1e-3
    largest_gradient: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("responses", "steps", "refresh", "prompts_a_round", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, got {value}")
        if self.reference not in ("start", "sampler"):
            raise UsageError(f"reference must be 'start' or 'sampler', got {self.reference!r}")


@dataclass(frozen=True)
class Round:
    """What one round of samples showed.

    ``step``: of the optimiser before it. ``reward``, ``best``: the mean reward of all responses, and of the best to
    each prompt. ``alike``: the share of prompts whose responses all have the same reward, which teach nothing.
    ``log_probability``: the mean of the responses', whose negative estimates the entropy. ``length``: mean, in tokens.
    ``divergence``: the mean log-ratio to the reference, an estimate of KL(policy || reference) that can be negative;
    None where the procedure has no reference.
    ``loss``: mean over the round's steps. ``best_gain``, ``worst_gain``: how much the round's steps raised the
    log-probabilities of the best and of the worst response; both may be negative.
    """

    step: int
    reward: float
    best: float
    alike: float
    log_probability: float
    length: float
    divergence: float | None
    loss: float
    best_gain: float
    worst_gain: float


class OnlineTrainer:
    """The on-policy loop with what it carries from round to round, so that it can be left and gone on with.

    Arguments: as of :func:`improve`. ``step``: how many steps are done; ``rollouts``: those of the last round.
    """

    def __init__(
        self,
        policy: Policy,
        prompts: Prompts,
        reward: Rewarder,
        cost: Cost,
        settings: OnlineSettings,
        *,
        parts: Sequence[nn.Module] | None = None,
        reference: Policy | None = None,
        sampler: Policy | None = None,
        embed: Embedder | None = None,
    ) -> None:
        if cost.embeddings and embed is None:
            raise UsageError("this cost selects responses by their embeddings", hint="give embed=")
        self.policy, self.prompts, self.reward, self.cost, self.settings = policy, prompts, reward, cost, settings
        self.sampler, self.embed = sampler, embed
        self.parts = _modules(policy, parts)
        self.reference = _reference(policy, cost, settings, reference)
        found = {id(p): p for part in self.parts for p in part.parameters() if p.requires_grad}
        self.parameters = list(found.values())
        rate: dict[str, Any] = {"lr": settings.learning_rate, "fused": True}
        self.optimizer = OPTIMIZERS[settings.optimizer](self.parameters, **rate)
        self.step = 0
        self.rollouts: Rollouts | None = None
        self._drawn = torch.Generator().manual_seed(_SAMPLES + settings.seed)
        self._order = torch.Generator().manual_seed(_BATCHES + settings.seed)

    @property
    def done(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.settings.steps

    def round(self) -> Round:
        """Draw responses, take the round's steps on them, and say what was seen.

        Raises :class:`~nearfar.errors.TrainingError` for a loss that is not finite, before it changes a weight.
        """
        settings, began = self.settings, self.step
        for part in self.parts:
            part.eval()
        fresh = roll_out(
            self.policy,
            _some(self.prompts, settings.prompts_a_round, self._order),
            self.reward,
            settings.responses,
            sampler=self.sampler,
            reference=self.reference,
            embed=self.embed if self.cost.embeddings else None,
            tokens=self.cost.tokens,
            generator=self._drawn,
        )
        held = self.rollouts = self.cost.prepare(fresh)
        losses: list[float] = []
        while self.step < min(settings.steps, began + settings.refresh):
            batch = settings.batch_size or len(held)
            losses.append(self._step(held, next(random_batches(len(held), batch, 1, self._order))))
        return _summary(self.policy, held, began, losses)

    def _step(self, held: Rollouts, index: Tensor) -> float:
        loss = cost_of_batch(self.policy, self.cost, held, index)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(f"the loss of step {self.step + 1} is {value}")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.settings.largest_gradient is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.settings.largest_gradient)
        self.optimizer.step()
        self.step += 1
        return value

    def state(self) -> dict[str, Tensor]:
        """All that a later trainer needs to go on bit by bit: weights, the optimiser's, and the streams of randomness.

        A reward's own randomness is not among it.
        """
        found = {f"parameter.{place}": each.detach() for place, each in enumerate(self.parameters)}
        for place, values in self.optimizer.state_dict()["state"].items():
            found.update({f"optimizer.{place}.{name}": value for name, value in values.items() if value is not None})
        found["step"] = torch.tensor(self.step)
        found["drawn"], found["order"] = self._drawn.get_state(), self._order.get_state()
        return found

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from :meth:`state`. Raises :class:`~nearfar.errors.TrainingError` where it is of another model."""
        shapes = [tuple(state[f"parameter.{i}"].shape) if f"parameter.{i}" in state else None for i in self._places]
        if shapes != [tuple(each.shape) for each in self.parameters]:
            raise TrainingError("the state belongs to another model")
        for place, each in enumerate(self.parameters):
            each.copy_(state[f"parameter.{place}"])
        held: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            kind, _, rest = name.partition(".")
            if kind == "optimizer":
                number, _, what = rest.partition(".")
                held.setdefault(int(number), {})[what] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": held, "param_groups": groups})
        self.step = int(state["step"])
        self._drawn.set_state(state["drawn"])
        self._order.set_state(state["order"])

    @property
    def _places(self) -> range:
        return range(len(self.parameters))


def improve(
    policy: Policy,
    prompts: Prompts,
    reward: Rewarder,
    cost: Cost,
    settings: OnlineSettings,
    *,
    parts: Sequence[nn.Module] | None = None,
    reference: Policy | None = None,
    sampler: Policy | None = None,
    embed: Embedder | None = None,
    after_round: Callable[[int], None] | None = None,
) -> list[Round]:
    """Train ``policy`` on what it answers itself; a summary of every round.

    Every ``refresh`` steps ``responses`` to each prompt are drawn (from ``sampler``, default the policy) and rewarded;
    each step lowers ``cost`` of them. ``parts``: the modules that are trained (default: the policy, where it is one).
    ``reference``: what log-ratios are against where ``settings.reference`` is "start"; without one a frozen copy of the
    policy is taken (``policy.frozen()``). ``embed``: vectors of responses, for costs that ask for them.
    ``after_round(rounds so far)``. Modules stay in evaluation mode: with dropout a policy is not the one that sampled.
    """
    trainer = OnlineTrainer(
        policy, prompts, reward, cost, settings, parts=parts, reference=reference, sampler=sampler, embed=embed
    )
    rounds: list[Round] = []
    while not trainer.done:
        rounds.append(trainer.round())
        if after_round is not None:
            after_round(len(rounds))
    return rounds


def train_on(
    policy: Policy,
    rollouts: Rollouts,
    cost: Cost,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    optimizer: Literal["adam", "adamw", "sgd"] = "adam",
    parts: Sequence[nn.Module] | None = None,
    seed: int = 0,
) -> list[float]:
    """Lower ``cost`` of rollouts that are there already; the losses. With an optimiser of its own."""
    trained = _modules(policy, parts)
    held = cost.prepare(rollouts)
    order = torch.Generator().manual_seed(_BATCHES + seed)

    def batches() -> Iterator[Tensor]:
        for module in trained:
            module.eval()
        yield from random_batches(len(held), batch_size, steps, order)

    return train_steps(
        lambda index: cost_of_batch(policy, cost, held, index),
        trained,
        batches(),
        optimizer=optimizer,
        learning_rate=learning_rate,
    )


def cost_of_batch(policy: Policy, cost: Cost, rollouts: Rollouts, index: Tensor) -> Tensor:
    """The cost, with a graph, of the rollouts of the prompts ``index [b]`` as the policy is now."""
    batch = rollouts.rows(index)
    return cost(policy.scores(batch.prompts, batch.responses, tokens=cost.tokens), batch)


@torch.no_grad()
def _summary(policy: Policy, rollouts: Rollouts, step: int, losses: Sequence[float]) -> Round:
    rewards, sampled = rollouts.rewards, rollouts.sampled
    gain = policy.scores(rollouts.prompts, rollouts.responses).log_probability - sampled.log_probability
    best, worst = rewards.argmax(1, keepdim=True), rewards.argmin(1, keepdim=True)
    reference = rollouts.reference
    apart = None if reference is None else float((sampled.log_probability - reference.log_probability).mean())
    return Round(
        step=step,
        reward=float(rewards.mean()),
        best=float(rewards.amax(1).mean()),
        alike=float((rewards.amax(1) == rewards.amin(1)).double().mean()),
        log_probability=float(sampled.log_probability.mean()),
        length=float(sampled.length.double().mean()),
        divergence=apart,
        loss=sum(losses) / max(1, len(losses)),
        best_gain=float(gain.gather(1, best).mean()),
        worst_gain=float(gain.gather(1, worst).mean()),
    )


def _modules(policy: Policy, parts: Sequence[nn.Module] | None) -> list[nn.Module]:
    if parts is not None:
        return list(parts)
    if isinstance(policy, nn.Module):
        return [policy]
    model: Any = getattr(policy, "model", None)
    if isinstance(model, nn.Module):
        return [model]
    raise UsageError(f"{type(policy).__name__} is no module", hint="say what is trained: parts=[...]")


def _reference(policy: Policy, cost: Cost, settings: OnlineSettings, given: Policy | None) -> Policy | None:
    """Whose log-probabilities rollouts hold as reference; None where the cost asks for none and none is given."""
    if settings.reference == "sampler":
        return policy
    if given is not None or not cost.reference:
        return given
    frozen: Callable[[], Policy] | None = getattr(policy, "frozen", None)
    if frozen is None:
        raise UsageError(
            f"{type(policy).__name__} has no frozen copy",
            hint="give reference=, or OnlineSettings(reference='sampler')",
        )
    return frozen()


def _some(prompts: Prompts, count: int | None, generator: torch.Generator) -> Prompts:
    if count is None or count >= len(prompts):
        return prompts
    found: Prompts = pick(prompts, torch.randperm(len(prompts), generator=generator)[:count])
    return found
