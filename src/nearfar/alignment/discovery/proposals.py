"""What a proposer proposes: a preference objective by its expression, by name and parameters, or as code."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.alignment.discovery.expressions import WrittenPreference, named
from nearfar.errors import UsageError
from nearfar.objectives.preference import PreferenceObjective, Preferences
from nearfar.objectives.registry import get

PairFunction: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Of the log-probabilities ``[n]`` of chosen and rejected under the policy, then under the reference: the costs
``[n]``."""

_WAYS = ("expression", "objective", "code")


@dataclass(frozen=True)
class Proposal:
    """A preference objective that somebody proposes, in one of three ways.

    ``expression``: see :class:`~nearfar.alignment.discovery.expressions.Expression`; ``objective``: a name of the
    catalogue, such as ``"discopop"``; ``code``: Python that defines one function, a :data:`PairFunction`, which sees
    ``torch``, ``F``, ``math`` and ``beta``. ``parameters``: numbers that an expression names (and ``beta``), or the
    arguments of the objective. ``thought``: what the proposer says of it.
    """

    name: str
    expression: str = ""
    objective: str = ""
    code: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    thought: str = ""

    @classmethod
    def of(cls, given: Proposal | Mapping[str, Any] | str) -> Proposal:
        """A proposal from its fields, or from an expression alone. Raises UsageError where it is none."""
        if isinstance(given, Proposal):
            return given
        fields = {"name": "unnamed", "expression": given} if isinstance(given, str) else given
        if not isinstance(fields, Mapping):
            raise UsageError(f"a proposal is a mapping or an expression, got {type(given).__name__}")
        known = {name: fields[name] for name in cls.__dataclass_fields__ if name in fields}
        if len(known) < len(fields):
            raise UsageError(f"a proposal has no {sorted(set(map(str, fields)) - set(known))}")
        parameters = known.pop("parameters", {})
        texts = {name: value for name, value in known.items() if isinstance(value, str)}
        if len(texts) < len(known) or not isinstance(parameters, Mapping) or not all(map(_is_name, parameters)):
            raise UsageError("the fields of a proposal are texts, and its parameters a mapping of names")
        found = cls(**{"name": "unnamed", **texts}, parameters=dict(parameters))
        given_ways = [way for way in _WAYS if getattr(found, way)]
        if len(given_ways) != 1:
            raise UsageError(f"a proposal gives one of {', '.join(_WAYS)}, got {given_ways or 'none'}")
        return found

    @property
    def written(self) -> str:
        """What is proposed, in one text: equal for proposals of the same objective."""
        settings = ", ".join(f"{name}={self.parameters[name]!r}" for name in sorted(self.parameters))
        text = self.expression or self.objective or self.code
        return f"{text} ({settings})" if settings else text

    def to_json(self) -> dict[str, Any]:
        """The fields that are given."""
        return {name: value for name, value in asdict(self).items() if value or name == "name"}

    def objective_of(self, *, beta: float = 0.05, run_code: bool = False) -> PreferenceObjective:
        """The objective; ``beta`` where the parameters name none. Code runs only with ``run_code``.

        Raises UsageError for what cannot be built. Code may raise anything.
        """
        parameters = {"beta": beta, **self.parameters}
        if self.expression:
            return WrittenPreference(self.expression, **parameters)
        if self.objective:
            made = get(self.objective, **self.parameters)
            if not isinstance(made, PreferenceObjective):
                raise UsageError(f"{self.objective} is no objective of pairs of responses")
            return made
        if not run_code:
            raise UsageError("code is run in a process of its own alone", hint="see LimitedProcess(run_code=True)")
        function = function_of(self.code, beta=float(parameters.pop("beta")))
        if parameters:
            raise UsageError("code has no parameters but beta", hint="write the numbers into the code")
        return FunctionPreference(function)


class FunctionPreference(PreferenceObjective):
    """A preference objective that is a function of four log-probabilities, a :data:`PairFunction`; mean over pairs.

    Call as :class:`~nearfar.objectives.preference.PreferenceObjective`; without a reference the function is given
    zeros for it. Raises UsageError when the function does not return costs ``[n]``.
    """

    name = "function"

    def __init__(self, function: PairFunction, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.function = function

    def pairs(self, pairs: Preferences, **extra: Tensor) -> Tensor:
        values = named(pairs)
        sides = (values[f"{model}_{side}"] for model in ("policy", "reference") for side in ("chosen", "rejected"))
        cost = self.function(*sides)
        if not isinstance(cost, Tensor):
            raise UsageError(f"the function returned a {type(cost).__name__}, no tensor")
        if cost.shape != pairs.chosen.shape:
            raise UsageError(f"the costs must be {list(pairs.chosen.shape)}, one for each pair, got {list(cost.shape)}")
        return cost


def function_of(code: str, *, beta: float = 0.05) -> PairFunction:
    """The one function that ``code`` defines. **Runs the code here**: for a process with limits alone.

    Raises UsageError where it defines none or several, or one of other arguments; and whatever the code raises.
    """
    space: dict[str, Any] = {"torch": torch, "F": F, "math": math, "beta": beta, "__name__": "proposal"}
    exec(compile(code, "<proposal>", "exec"), space)
    found = [value for value in space.values() if inspect.isfunction(value) and value.__module__ == "proposal"]
    if len(found) != 1:
        raise UsageError(f"the code must define one function, it defines {len(found)}")
    count = len(inspect.signature(found[0]).parameters)
    if count != 4:
        raise UsageError(
            f"the function takes {count} arguments",
            hint="policy_chosen, policy_rejected, reference_chosen, reference_rejected",
        )
    function: PairFunction = found[0]
    return function


def _is_name(name: object) -> bool:
    return isinstance(name, str) and name.isidentifier()
