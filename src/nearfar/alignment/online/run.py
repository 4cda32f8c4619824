"""One call that aligns a language model on its own samples, and leaves a run folder that can be gone on with."""

from __future__ import annotations

import functools
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nearfar.alignment.adapters import with_adapter, write_trained
from nearfar.alignment.language import LanguagePolicy
from nearfar.alignment.online.costs import Cost, Selected, cost_of
from nearfar.alignment.online.loop import OnlineSettings, OnlineTrainer, Round
from nearfar.alignment.online.rewards import ContrastiveReward
from nearfar.alignment.online.rollouts import Rewarder
from nearfar.alignment.online.selection import STRATEGIES, all_pairs, best_and_worst
from nearfar.alignment.online.texts import SumOfRewards, distinct, ended, mean_states, named_reward, read_prompts
from nearfar.data.preferences.rows import LISTS, PreferenceRow, PreferenceSet, Text
from nearfar.data.preferences.tokens import Budget
from nearfar.data.preferences.writing import write_preferences
from nearfar.encoders.dropout_rates import without_dropout
from nearfar.encoders.language_model import language_model, model_folder
from nearfar.errors import TrainingError, UsageError
from nearfar.files import atomic_path, write_json
from nearfar.locking import only_one
from nearfar.training import folder as run_folder
from nearfar.training.checked import Checked
from nearfar.training.interrupts import Interrupts
from nearfar.training.running import speaker

if TYPE_CHECKING:
    from rich.console import Console

STATE, ROUNDS, STARTED = "state.safetensors", "rounds", "baselines.json"


@dataclass
class OnlineRunSettings(Checked):
    """What ``nearfar align-online`` offers.

    prompts: file, folder or list of files with prompts in ``column`` (default "prompt"); max_bad_rows may be skipped.
    model: a folder of transformers, "smollm2" or a .gguf file; lora: train an adapter of ``rank`` (default 16),
    ``lora_alpha`` (default twice the rank), ``lora_dropout`` (0), on ``lora_targets`` (default all linear layers).
    reward: ``file.py:function`` or a reward model's folder, several of which add up with ``reward_weights``;
    baseline_answers: k > 0 subtracts the mean reward of k answers of the first policy to the same prompt (contrastive
    rewards; default 0: none).
    objective, parameters: of the catalogue, default "grpo"; pairs: "all" (default) or "best-worst", whose rewards
    differ by ``margin`` (default 0); strategy and k (7): of ampo, default "bottom-k".
    responses (8), steps, refresh (1), prompts_a_round (16), batch_size, reference ("start"), learning_rate (default
    1e-6, ten times that with lora), largest_gradient (1; 0: never clipped): see
    :class:`~nearfar.alignment.online.loop.OnlineSettings`.
    max_prompt (512), max_response (128; 0: no limit of prompts), temperature (1), top_p (1): of samples.
    checkpoint_every: rounds between checkpoints, default 1. seed: of everything random. output, overwrite, resume,
    device: as of other runs.

    Raises :class:`UsageError`, naming setting and value, for what cannot be used.
    """

    prompts: str | list[str] | None = None
    output: str = ""
    column: str = "prompt"
    max_bad_rows: int = 0
    model: str = "smollm2"
    lora: bool = False
    rank: int = 16
    lora_alpha: float | None = None
    lora_dropout: float = 0.0
    lora_targets: str | None = None
    reward: list[str] = field(default_factory=list)
    reward_weights: list[float] | None = None
    baseline_answers: int = 0
    objective: str = "grpo"
    parameters: dict[str, Any] = field(default_factory=dict)
    pairs: str = "all"
    margin: float = 0.0
    strategy: str = "bottom-k"
    k: int = 7
    responses: int = 8
    steps: int = 100
    refresh: int = 1
    prompts_a_round: int = 16
    batch_size: int | None = None
    reference: str = "start"
    learning_rate: float | None = None
    largest_gradient: float = 1.0
    max_prompt: int = 512
    max_response: int = 128
    temperature: float = 1.0
    top_p: float = 1.0
    checkpoint_every: int = 1
    seed: int = 0
    overwrite: bool = False
    resume: bool = False
    device: str | None = None

    def __post_init__(self) -> None:
        for name in ("responses", "steps", "refresh", "prompts_a_round", "batch_size", "rank", "k", "checkpoint_every"):
            self._at_least(name, 1)
        for name in ("max_bad_rows", "baseline_answers", "max_prompt", "seed"):
            self._at_least(name, 0)
        self._at_least("max_response", 1)
        for name in ("learning_rate", "temperature", "lora_alpha"):
            self._positive(name)
        self._number("margin", 0, float("inf"))
        self._number("largest_gradient", 0, float("inf"))
        self._number("top_p", 1e-9, 1)
        self._number("lora_dropout", 0, 0)
        self._one_of("pairs", ("all", "best-worst"))
        self._one_of("strategy", STRATEGIES)
        self._one_of("reference", ("start", "sampler"))


@dataclass
class OnlineRun:
    """What a run made: its ``folder``, the ``rounds`` from the first, ``ended`` ("all steps", or the signal that ended
    it), and the ``policy``, None for a run that was complete already."""

    folder: Path
    rounds: list[Round]
    ended: str
    policy: LanguagePolicy | None = None

    @property
    def model(self) -> Path:
        """The folder of the trained model: of transformers, or the adapter's with LoRA."""
        return self.folder / run_folder.MODEL

    @property
    def interrupted(self) -> bool:
        """Whether the run ended before it was done; ``resume`` goes on with it."""
        return self.ended != "all steps"


def align_online(
    settings: OnlineRunSettings,
    *,
    rewards: Sequence[Rewarder] | None = None,
    console: Console | None = None,
    command: Sequence[str] | None = None,
) -> OnlineRun:
    """Align a language model on what it answers itself, by ``settings``; write the run folder ``settings.output``.

    ``rewards``: in the place of those that the settings name. ``rounds/`` holds what was sampled, as preferences
    (lists), a file a round; metrics.jsonl a line a round; checkpoints/ the state to go on from; model/ the model. A run
    that is resumed goes on from its last checkpoint to the weights that it would have had, rewards without randomness
    of their own given.

    Raises :class:`UsageError`, :class:`~nearfar.errors.DataError`, :class:`~nearfar.errors.ModelError`,
    :class:`~nearfar.errors.OutputError` before the first step for what cannot be used, and
    :class:`~nearfar.errors.TrainingError` for a loss that is not finite.
    """
    if not settings.output:
        raise UsageError("there is no place to write the run to", where="--output", hint="name a folder")
    path = Path(settings.output)
    if settings.resume:
        settings = run_folder.stored_settings(run_folder.read_config(path), settings)
        if (path / run_folder.METRICS).is_file():
            return OnlineRun(path, _rounds(path), "all steps")
    else:
        run_folder.check_output(path, overwrite=settings.overwrite, weights=0)
    if settings.prompts is None:
        raise UsageError("there are no prompts", hint="name a file with a column of prompts")
    say = speaker(console)
    prompts = read_prompts(settings.prompts, column=settings.column, max_bad_rows=settings.max_bad_rows)
    cost = _cost(settings)
    reward = _reward(settings, rewards)
    policy = _policy(settings)
    say(f"{len(prompts):,} prompts; {settings.objective} on {settings.responses} responses each")
    if not settings.resume:
        config = {"nearfar": run_folder.versions()["nearfar"], "kind": "online", "settings": settings.to_dict()}
        files = {run_folder.CONFIG: {**config, "command": list(command or [])}}
        run_folder.create(path, {**files, "versions.json": run_folder.versions()})
    with only_one(path / run_folder.LOCK, "training in this folder"), Interrupts() as interrupts:
        return _rounds_in(path, settings, prompts, reward, policy, cost, interrupts, say)


def _rounds_in(
    path: Path,
    settings: OnlineRunSettings,
    prompts: list[Text],
    reward: Rewarder,
    policy: LanguagePolicy,
    cost: Cost,
    interrupts: Interrupts,
    say: Callable[[str], None],
) -> OnlineRun:
    if settings.baseline_answers:
        reward = _less_baseline(path / STARTED, settings, prompts, reward, policy)
    trainer = OnlineTrainer(
        policy, prompts, reward, cost, _loop(settings), embed=functools.partial(mean_states, policy)
    )
    rounds = _resume(path, trainer)
    (path / ROUNDS).mkdir(exist_ok=True)
    began = time.perf_counter()
    while not trainer.done and interrupts.requested is None:
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed + trainer.step)  # a random choice of responses, the same when gone on with
            rounds.append(trainer.round())
        _write_round(path, trainer, len(rounds))
        line = {**asdict(rounds[-1]), **_of_samples(trainer)}
        with open(path / run_folder.LINES, "a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")
        say(
            f"round {len(rounds)}: reward {line['reward']:.4g} (best {line['best']:.4g}), "
            f"{line['length']:.1f} tokens, {line['ended']:.0%} ended"
            + ("" if line["divergence"] is None else f", log-ratio {line['divergence']:+.3g}")
        )
        if len(rounds) % settings.checkpoint_every == 0:
            _checkpoint(path, trainer)
    if not trainer.done:
        _checkpoint(path, trainer)
        return OnlineRun(path, rounds, str(interrupts.requested), policy)
    write_trained(policy.model, policy.tokenizer, path / run_folder.MODEL, adapter=settings.lora)
    write_json(
        path / run_folder.METRICS,
        {
            "rounds": len(rounds),
            "first": asdict(rounds[0]),
            "last": asdict(rounds[-1]),
            "seconds": time.perf_counter() - began,
        },
    )
    shutil.rmtree(path / run_folder.CHECKPOINTS)
    return OnlineRun(path, rounds, "all steps", policy)


def _cost(settings: OnlineRunSettings) -> Cost:
    choose = all_pairs if settings.pairs == "all" else best_and_worst
    more: dict[str, Any] = {}
    if settings.objective == "ampo":
        more["relation"] = Selected(settings.strategy, settings.k)
    return cost_of(
        settings.objective, pairs=functools.partial(choose, margin=settings.margin), **more, **settings.parameters
    )


def _reward(settings: OnlineRunSettings, given: Sequence[Rewarder] | None) -> Rewarder:
    if given is None:
        if not settings.reward:
            raise UsageError("there is no reward", where="--reward", hint="write --reward file.py:function")
        budget = Budget(settings.max_prompt or None, settings.max_response)
        given = [named_reward(name, budget=budget, device=settings.device) for name in settings.reward]
    return SumOfRewards(given, settings.reward_weights)


def _policy(settings: OnlineRunSettings) -> LanguagePolicy:
    folder = model_folder(settings.model)
    model, tokenizer = language_model(folder, device=settings.device)
    without_dropout(model)
    trained: Any = with_adapter(model, settings, base=str(folder)) if settings.lora else model
    return LanguagePolicy(
        trained,
        tokenizer,
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_new_tokens=settings.max_response,
        budget=Budget(settings.max_prompt or None, settings.max_response),
    )


def _loop(settings: OnlineRunSettings) -> OnlineSettings:
    rate = settings.learning_rate or (1e-5 if settings.lora else 1e-6)
    return OnlineSettings(
        responses=settings.responses,
        steps=settings.steps,
        refresh=settings.refresh,
        prompts_a_round=settings.prompts_a_round,
        batch_size=settings.batch_size,
        reference="start" if settings.reference == "start" else "sampler",
        optimizer="adamw",
        learning_rate=rate,
        largest_gradient=settings.largest_gradient or None,
        seed=settings.seed,
    )


def _less_baseline(
    place: Path, settings: OnlineRunSettings, prompts: list[Text], reward: Rewarder, policy: LanguagePolicy
) -> ContrastiveReward:
    """The reward less that of the first policy's answers, which are drawn once and kept."""
    if place.is_file():
        kept = json.loads(place.read_text(encoding="utf-8"))
        drawn = ContrastiveReward.of_values(reward, prompts, torch.tensor(kept))
    else:
        generator = torch.Generator().manual_seed(settings.seed)
        drawn = ContrastiveReward.drawn(reward, policy, prompts, settings.baseline_answers, generator=generator)
        write_json(place, drawn.baseline(prompts).tolist())
    return drawn


def _resume(path: Path, trainer: OnlineTrainer) -> list[Round]:
    """Go on from the last checkpoint, where there is one; the rounds up to it. Later lines are forgotten."""
    from safetensors.torch import load_file

    place = path / run_folder.CHECKPOINTS / STATE
    if not place.is_file():
        (path / run_folder.LINES).unlink(missing_ok=True)
        return []
    trainer.load(load_file(place))
    kept = [each for each in _rounds(path) if each.step < trainer.step]
    lines = (path / run_folder.LINES).read_text(encoding="utf-8").splitlines()[: len(kept)]
    if len(lines) < len(kept) or not kept:
        raise TrainingError("the run's metrics lack rounds of its checkpoint", where=str(path / run_folder.LINES))
    with atomic_path(path / run_folder.LINES) as out:
        out.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return kept


def _rounds(path: Path) -> list[Round]:
    known = Round.__dataclass_fields__
    found = []
    for line in (path / run_folder.LINES).read_text(encoding="utf-8").splitlines():
        try:
            values = json.loads(line)
        except ValueError:
            break  # a line that was being written when the run was killed
        found.append(Round(**{name: value for name, value in values.items() if name in known}))
    return found


def _checkpoint(path: Path, trainer: OnlineTrainer) -> None:
    from safetensors.torch import save_file

    with atomic_path(path / run_folder.CHECKPOINTS / STATE) as place:
        save_file({name: value.contiguous().cpu() for name, value in trainer.state().items()}, place)


def _write_round(path: Path, trainer: OnlineTrainer, number: int) -> None:
    held = trainer.rollouts
    assert held is not None
    rows = [
        PreferenceRow(prompt, tuple(map(str, texts)), tuple(values))
        for prompt, texts, values in zip(held.prompts, held.responses, held.rewards.tolist(), strict=True)
    ]
    write_preferences(PreferenceSet.from_rows(LISTS, rows), path / ROUNDS / f"{number:05d}.jsonl")


def _of_samples(trainer: OnlineTrainer) -> dict[str, float]:
    held = trainer.rollouts
    assert held is not None
    return {"distinct": distinct(held.responses), "ended": ended(held.responses)}
