"""What each objective of the catalogue needs to be trained with on preferences: data, a reference, how it is fed.

One table for all of them; what does not fit is refused with what does.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import torch

from nearfar.contrast.relation import Explicit
from nearfar.data.preferences.rows import DEMONSTRATIONS, LISTS, MULTI_REWARD_LISTS, PAIRS, UNPAIRED
from nearfar.errors import UsageError
from nearfar.objectives import Objective, catalogue, find, get
from nearfar.objectives.base import PointObjective, RowObjective
from nearfar.objectives.preference import PreferenceObjective

Option: TypeAlias = float | int | str | bool

Reading = Literal["pairs", "sides", "points", "rows", "tokens"]
"""How an objective is called: on chosen and rejected responses; on good and bad ones of any prompts; on each response;
on a row of scores for each prompt; on tokens of demonstrations."""

READINGS: Mapping[str, str] = {
    "pairs": "chosen and rejected responses",
    "sides": "all good responses against all bad ones of the batch",
    "points": "each response by itself",
    "rows": "the scores of each prompt's responses",
    "tokens": "the tokens of responses worth imitating",
}

_LISTS = (LISTS, MULTI_REWARD_LISTS)
_SELECTIONS = ("bottom-k", "coreset", "opt-select", "random", "all")
_TOKENS = ("sum", "mean")
_GRADES = ("auto", "scores", "wins", "ranks")
_REWARDS = ("scores", "standardised")


@dataclass(frozen=True)
class Need:
    """What an objective needs.

    Arguments:
        reading: how it is called.
        data: the kinds of preferences it takes as they are or made into what it takes, with how, in words.
        reference: whether it needs log-probabilities under a reference.
        rewards: whether a number for each response is needed, beyond an order.
        tokens: whether it needs log-probabilities of single tokens under the policy; token_reference: under the
            reference as well.
        states: whether it needs hidden states (or embeddings) of "prompts" or of "responses".
        whole: whether its loss is no mean over rows, so that chunks are scored twice (cached gradients).
        supervised: whether supervised fine-tuning's learning rate is the usual one.
        presets: arguments of the objective that are others here than elsewhere.
        options: how it is fed, with defaults; choices: what those of words may be.
    """

    reading: Reading
    data: Mapping[str, str]
    reference: bool = True
    rewards: bool = False
    tokens: bool = False
    token_reference: bool = False
    states: Literal["prompts", "responses"] | None = None
    whole: bool = False
    supervised: bool = False
    presets: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Option] = field(default_factory=dict)
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_OF_PAIRS = {PAIRS: "as they are", **dict.fromkeys(_LISTS, "every pair of different scores, or the best and the worst")}
_OF_SCORED_PAIRS = {PAIRS: "with a score for each response", **dict.fromkeys(_LISTS, _OF_PAIRS[LISTS])}
_OF_LISTS = {**dict.fromkeys(_LISTS, "as they are"), PAIRS: "as lists of two"}
_OF_LABELS = {UNPAIRED: "as they are", PAIRS: "each pair as a good and a bad response"}
_OF_REWARDS = {
    **dict.fromkeys(_LISTS, "each response with its score"),
    PAIRS: "with a score for each response",
    UNPAIRED: "labels as rewards of 1 and 0",
}
_OF_DEMONSTRATIONS = {
    DEMONSTRATIONS: "as they are",
    PAIRS: "the chosen responses",
    UNPAIRED: "the responses with the label true",
    **dict.fromkeys(_LISTS, "the best response of each"),
}

_LISTWISE: dict[str, Option] = {"score": "ratio", "tokens": "sum", "beta": 0.1}
_LISTWISE_CHOICES = {"score": ("ratio", "log-probability"), "tokens": _TOKENS}
_GRADED = Need(
    "rows",
    _OF_LISTS,
    options={**_LISTWISE, "beta": 0.05, "grades": "auto"},  # 0.05: LiPO (Liu et al., 2024)
    choices={**_LISTWISE_CHOICES, "grades": _GRADES},
)
_BEST_AGAINST_REST = Need("rows", _OF_LISTS, options=dict(_LISTWISE), choices=_LISTWISE_CHOICES)

NEEDS: Mapping[str, Need] = {
    # pairs that are no mean over pairs
    **{name: Need("pairs", _OF_PAIRS, whole=True) for name in ("aot", "dbaql", "aql", "aqfl", "kto-pair")},
    "copg": Need("pairs", _OF_SCORED_PAIRS, rewards=True),
    "dno": Need("pairs", _OF_SCORED_PAIRS, rewards=True),
    "sppo": Need(
        "pairs", _OF_PAIRS, options={"win_rate": "hard"}, choices={"win_rate": ("hard", "scores", "bradley-terry")}
    ),
    "rpo": Need("sides", {**_OF_PAIRS, **_OF_LABELS, PAIRS: "as they are"}, states="prompts", whole=True),
    # single responses
    "kto": Need("points", _OF_LABELS),
    "dro-v": Need(
        "points",
        _OF_REWARDS,
        rewards=True,
        states="prompts",
        options={"rewards": "standardised", "value_width": 64},
        choices={"rewards": _REWARDS},
    ),
    "dro-p": Need(
        "points",
        _OF_REWARDS,
        rewards=True,
        whole=True,
        options={"rewards": "standardised", "variance": "auto"},
        choices={"rewards": _REWARDS, "variance": ("auto", "prompts", "batch")},
    ),
    "copg-group": Need("points", {**_OF_LISTS, PAIRS: "with a score for each response"}, rewards=True),
    "reward-weighted": Need(
        "points",
        _OF_REWARDS,
        reference=False,
        rewards=True,
        options={"rewards": "standardised"},
        choices={"rewards": _REWARDS},
    ),
    # rows
    **dict.fromkeys(
        (
            "approx-ndcg",
            "lambda-rank",
            "listmle",
            "listnet",
            "point-mse",
            "point-sigmoid",
            "smooth-ap",
        ),
        _GRADED,
    ),
    **dict.fromkeys(("pairwise-hinge", "pairwise-logistic"), replace(_GRADED, presets={"pairs": "graded"})),
    "irpo": Need(
        "rows",
        _OF_LISTS,
        options={"score": "ratio", "tokens": "mean", "beta": 1.0, "grades": "auto"},
        choices={**_LISTWISE_CHOICES, "grades": _GRADES},
    ),
    "pairwise-link": Need("rows", _OF_LISTS, options={**_LISTWISE, "beta": 1.0}, choices=_LISTWISE_CHOICES),
    "rrhf": Need("rows", _OF_LISTS, reference=False),
    "best-of-n": Need("rows", _OF_LISTS, reference=False),
    "crl-factuality": Need(
        "rows",
        _OF_LISTS,
        reference=False,
        whole=True,
        options={"alpha": 2.0, "weight": 100.0, "likelihood_weight": 1.0},
    ),
    "ampo": Need(
        "rows",
        _OF_LISTS,
        reference=False,
        states="responses",
        options={
            "selection": "bottom-k",
            "negatives": 7,
            "alpha": 0.0,
            "gamma": 0.0,
            "deviation": "absolute",
            "tokens": "sum",
            "beta": 1.0,
        },
        choices={"selection": _SELECTIONS, "deviation": ("absolute", "signed"), "tokens": _TOKENS},
    ),
    "disco": Need(
        "rows",
        _OF_LISTS,
        whole=True,
        options={"right": 1.0, "score": "log-likelihood", "limit": 1e-4, "penalty": 1e3},
        choices={"score": ("log-likelihood", "likelihood-ratio")},
    ),
    # demonstrations
    "probability-sft": Need(
        "tokens", _OF_DEMONSTRATIONS, reference=False, tokens=True, supervised=True, presets={"reduction": "mean"}
    ),
    "sft-implicit-reward": Need(
        "tokens",
        _OF_DEMONSTRATIONS,
        supervised=True,
        presets={"reduction": "mean"},
        options={"level": "sequence"},
        choices={"level": ("sequence", "token")},
    ),
}
"""What the objectives need that differ from the others of their kind."""

REFUSED: Mapping[str, str] = {
    "grpo": "it is a policy gradient and wants responses that the policy has just sampled: `nearfar align-online`",
    "mapl": "it compares prompts that are made of each pair by instructions that can be checked: "
    "`nearfar reward train --mapl`",
    "binary-nce": "it tells data from noise",
    "meco": "it estimates densities",
}


def need_of(objective: type[Objective] | Objective) -> Need | None:
    """What ``objective`` needs; None where it cannot be trained on preferences at all."""
    cls = objective if isinstance(objective, type) else type(objective)
    if cls.name in REFUSED:
        return None
    if cls.name in NEEDS:
        return NEEDS[cls.name]
    if issubclass(cls, PreferenceObjective):
        pooled = getattr(objective, "likelihood", None) == "pooled" and bool(getattr(objective, "likelihood_weight", 1))
        return Need("pairs", _OF_PAIRS, reference=not cls.reference_free, whole=pooled)
    if issubclass(cls, RowObjective) and not cls.needs and not cls.needs_labels:
        return _BEST_AGAINST_REST
    return None


def make(name: str, parameters: Mapping[str, Any]) -> tuple[Objective, dict[str, Option]]:
    """The objective ``name`` and how it is fed, by ``parameters``: its arguments, and options of its :class:`Need`.

    Objectives of similarities get temperature 1 where none is given: their own is meant for cosines. Raises
    :class:`UsageError` for a name or argument that there is not, and where the objective cannot be trained.
    """
    cls, preset = find(name)
    need = need_of(cls)
    if need is None:
        raise UsageError(f"{cls.name} cannot be trained on preferences: {_why(cls)}", hint=fitting())
    known = inspect.signature(cls).parameters
    arguments = dict(need.presets)
    if "temperature" in known and "temperature" not in preset and "temperature" not in parameters:
        arguments["temperature"] = 1.0
    if issubclass(cls, PointObjective) and "reduction" not in preset:
        arguments.setdefault("reduction", "mean")
    if "pairs" in preset:
        arguments.pop("pairs", None)
    # the score of embeddings has no use here; what else is called alike is meant for the objective
    fed = {key for key in parameters if key in need.options and (key == "score" or key not in known)}
    own = {key: value for key, value in parameters.items() if key not in fed}
    options = {**need.options, **{key: value for key, value in parameters.items() if key not in own}}
    unknown = [key for key in own if key not in known and "objective" not in known]
    if unknown:
        more = f"; how it is fed is set by {', '.join(need.options)}" if need.options else ""
        raise UsageError(
            f"{cls.name} takes no {', '.join(map(repr, unknown))}", hint="it takes " + ", ".join(known) + more
        )
    _check_options(cls.name, need, options)
    made = get(name, **{**arguments, **own})
    if need is _BEST_AGAINST_REST:
        _try(made)
    return made, options


def _try(objective: Any) -> None:
    """Raise :class:`UsageError` where the objective's cost does not follow from the scores of a row alone."""
    relation = Explicit(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    training = objective.training
    try:
        objective.eval()(scores=torch.tensor([[0.5, 0.0], [0.0, 0.5]]), relation=relation)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{objective.name} cannot be trained on preferences: {str(error).splitlines()[0]}", hint=fitting()
        ) from error
    finally:
        objective.train(training)


def options_of(objective: Objective, parameters: Mapping[str, Any]) -> dict[str, Option]:
    """How an ``objective`` that is made already is fed. Raises :class:`UsageError` as :func:`make`."""
    need = need_of(objective)
    if need is None:
        raise UsageError(f"{objective.name} cannot be trained on preferences: {_why(type(objective))}", hint=fitting())
    unknown = [key for key in parameters if key not in need.options]
    if unknown:
        raise UsageError(f"the objective is made already and takes no {', '.join(map(repr, unknown))}")
    options = {**need.options, **parameters}
    _check_options(objective.name, need, options)
    return options


def settled(objective: Objective, options: Mapping[str, Option], *, several: bool) -> Need:
    """What ``objective``, fed by ``options``, needs of data whose rows have ``several`` responses or one."""
    need = need_of(objective)
    assert need is not None
    if "likelihood-ratio" in options.values() or options.get("level") == "token":
        need = replace(need, tokens=True, token_reference=True)
    if options.get("score") == "log-probability":
        need = replace(need, reference=False)
    if need.states == "responses" and options.get("selection") not in ("coreset", "opt-select"):
        need = replace(need, states=None)
    if need.reading == "sides" and getattr(objective, "weighting", None) != "embedding":
        need = replace(need, states=None)
    if options.get("win_rate", "hard") != "hard":
        need = replace(need, rewards=True)
    if "variance" in options and (options["variance"] == "prompts" or (options["variance"] == "auto" and several)):
        need = replace(need, whole=False)
    return need


def _check_options(name: str, need: Need, options: dict[str, Option]) -> None:
    for key, value in options.items():
        default = need.options[key]
        if isinstance(default, str):
            if value not in need.choices[key]:
                raise UsageError(
                    f"{name}: {key} must be one of {', '.join(need.choices[key])}, got {value!r}",
                    where=f"--set {key}={value}",
                )
        elif isinstance(value, (bool, str)) or (isinstance(default, int) and value != int(value)):
            kind = "a whole number" if isinstance(default, int) else "a number"
            raise UsageError(f"{name}: {key} must be {kind}, got {value!r}", where=f"--set {key}={value}")


def check_data(objective: Objective, kind: str) -> None:
    """Raise :class:`UsageError` where ``objective`` cannot be trained on preferences of ``kind``."""
    need = need_of(objective)
    assert need is not None
    if kind not in need.data:
        raise UsageError(
            f"{objective.name} is about {READINGS[need.reading]} and cannot be trained on {kind}",
            hint=f"give it {' or '.join(need.data)}, or {fitting(kind)}",
        )


def fitting(kind: str | None = None) -> str:
    """Advice: the objectives that can be trained on preferences of ``kind`` (None: of any)."""
    names = [
        cls.name
        for cls in catalogue()
        if (need := need_of(cls)) is not None and need is not _BEST_AGAINST_REST and (kind is None or kind in need.data)
    ]
    return f"objectives for {kind or 'preferences'}: {', '.join(names)}"


def _why(cls: type[Objective]) -> str:
    if cls.name in REFUSED:
        return REFUSED[cls.name]
    if cls.needs:
        return f"it needs {' and '.join(cls.needs)}"
    return {
        "view": "it compares embeddings of views",
        "combination": "it combines several objectives",
        "row": "it is about classes of items",
        "point": "it costs similarities of embeddings",
    }.get(cls.kind, "it costs no responses")
