"""Preference objectives written as arithmetic: what a proposer may say without anybody running its code.

The text is parsed and only what the grammar knows is computed; Python's ``eval`` and ``exec`` never see it.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.errors import UsageError
from nearfar.objectives.preference import MarginObjective, Preferences, exponential
from nearfar.objectives.preference_discovered import batch_deviation, batch_mean, batch_variance

MOST_CHARACTERS, MOST_NODES, DEEPEST = 2000, 400, 40

MARGINS = ("z", "rho")
"""``z = beta rho``, ``rho = d_w - d_l``, d the implicit rewards."""

PAIRS = ("chosen", "rejected", "policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")
"""The implicit rewards of both responses, and their log-probabilities under the policy and under the reference."""

Values: TypeAlias = Mapping[str, Tensor]
Value: TypeAlias = Tensor | float

ELEMENTWISE: dict[str, tuple[int, Callable[..., Tensor]]] = {
    "softplus": (1, F.softplus),
    "sigmoid": (1, torch.sigmoid),
    "logsigmoid": (1, F.logsigmoid),
    "exp": (1, exponential),
    "log": (1, torch.log),
    "log1p": (1, torch.log1p),
    "sqrt": (1, torch.sqrt),
    "square": (1, torch.square),
    "relu": (1, torch.relu),
    "tanh": (1, torch.tanh),
    "abs": (1, torch.abs),
    "minimum": (2, torch.minimum),
    "maximum": (2, torch.maximum),
    "where": (3, lambda condition, yes, no: torch.where(condition != 0, yes, no)),
}
"""Functions of each pair alone, with how many arguments they take."""

OF_THE_BATCH: dict[str, tuple[int, Callable[..., Tensor]]] = {
    "mean": (1, batch_mean),
    "variance": (1, batch_variance),
    "std": (1, batch_deviation),
}
"""Functions of all pairs of the batch, one number for all of them; unbiased, 0 where there are too few pairs."""

_FUNCTIONS = ELEMENTWISE | OF_THE_BATCH
_OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


class Expression:
    """A cost of pairs as text: ``Expression("m = sigmoid(z / tau); (1-m) * softplus(-z) + m * exp(-z)", tau=0.05)``.

    One expression, after any number of names given to others (``name = expression``), separated by ``;`` or lines.
    It has numbers, ``+ - * / **``, comparisons ``< <= > >=`` (1 where true, else 0), the names of :data:`MARGINS` and
    :data:`PAIRS`, ``beta``, the ``constants``, and the functions of :data:`ELEMENTWISE` and :data:`OF_THE_BATCH`.
    ``exp`` goes on along its tangent where it would overflow.

    ``names``: what of the margins and pairs it looks at. ``of_the_batch``: whether a pair's cost depends on the others.
    Raises UsageError, with the line and the part, for anything else, for more than 2,000 characters or 400 parts, and
    for constants that are no finite numbers.
    """

    def __init__(self, text: str, **constants: float) -> None:
        self.text = text
        self.constants = {name: _number(name, value) for name, value in constants.items()}
        self.names: set[str] = set()
        self.of_the_batch = False
        known = {*MARGINS, *PAIRS, "beta"}
        for name in self.constants:
            if not name.isidentifier() or name in known or name in _FUNCTIONS:
                raise UsageError(f"a constant cannot be called {name!r}", hint="the name is taken or is no name")
        self._known = known | set(self.constants)
        self._steps: list[tuple[str, Callable[[Values], Value]]] = []
        *steps, last = self._statements(text)
        for step in steps:
            self._steps.append(self._assigned(step))
            self._known.add(self._steps[-1][0])
        if not isinstance(last, ast.Expr):
            raise self._error(last, "the last line gives a name and no cost")
        self._cost = self._read(last.value, 0)

    def __call__(self, beta: float, **given: Tensor) -> Tensor:
        """The cost of each pair, of the shape of the values that are ``given`` by name."""
        like = next(iter(given.values()))
        values: dict[str, Tensor] = {name: like.new_tensor(value) for name, value in self.constants.items()}
        values |= {"beta": like.new_tensor(beta), **given}
        for name, step in self._steps:
            values[name] = _tensor(step(values), like)
        return _tensor(self._cost(values), like).expand(like.shape)

    def _statements(self, text: str) -> list[ast.stmt]:
        if len(text) > MOST_CHARACTERS:
            raise UsageError(f"the expression has {len(text)} characters, of at most {MOST_CHARACTERS}")
        try:
            tree = ast.parse(text.strip())
        except SyntaxError as error:
            raise UsageError(f"the expression cannot be read: {error.msg}", where=f"line {error.lineno}") from None
        except (ValueError, RecursionError, MemoryError) as error:
            raise UsageError(f"the expression cannot be read: {error or type(error).__name__}") from None
        if not tree.body:
            raise UsageError("the expression is empty")
        count = sum(1 for _ in ast.walk(tree))
        if count > MOST_NODES:
            raise UsageError(f"the expression has {count} parts, of at most {MOST_NODES}")
        return tree.body

    def _assigned(self, step: ast.stmt) -> tuple[str, Callable[[Values], Value]]:
        target = step.targets[0] if isinstance(step, ast.Assign) and len(step.targets) == 1 else None
        if not isinstance(step, ast.Assign) or not isinstance(target, ast.Name):
            raise self._error(step, "only 'name = expression' may stand before the cost")
        if target.id in self._known or target.id in _FUNCTIONS:
            raise self._error(step, f"the name {target.id!r} is taken")
        return target.id, self._read(step.value, 0)

    def _read(self, node: ast.expr, depth: int) -> Callable[[Values], Value]:
        """What computes a part; parts of numbers alone are computed here and now."""
        if depth > DEEPEST:
            raise self._error(node, f"it is nested deeper than {DEEPEST}")
        if isinstance(node, ast.Constant):
            number = _number(self._part(node), node.value)
            return lambda values: number
        if isinstance(node, ast.Name):
            return self._named(node)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            inner = self._read(node.operand, depth + 1)
            return inner if isinstance(node.op, ast.UAdd) else lambda values: -inner(values)
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            sides = [self._read(side, depth + 1) for side in (node.left, node.right)]
            return _combined(_OPERATORS[type(node.op)], *sides)
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _OPERATORS:
            sides = [self._read(side, depth + 1) for side in (node.left, node.comparators[0])]
            return _combined(_OPERATORS[type(node.ops[0])], *sides)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            return self._called(node, node.func.id, depth)
        raise self._error(node, "the grammar has no such part")

    def _named(self, node: ast.Name) -> Callable[[Values], Value]:
        name = node.id
        if name not in self._known:
            raise self._error(node, f"there is no {name!r}", hint=f"there are {', '.join(sorted(self._known))}")
        if name in MARGINS or name in PAIRS:
            self.names.add(name)
        return lambda values: values[name]

    def _called(self, node: ast.Call, name: str, depth: int) -> Callable[[Values], Value]:
        if name not in _FUNCTIONS:
            raise self._error(node, f"there is no function {name!r}", hint=f"there are {', '.join(_FUNCTIONS)}")
        wanted, function = _FUNCTIONS[name]
        if len(node.args) != wanted:
            raise self._error(node, f"{name} takes {wanted} argument(s), got {len(node.args)}")
        self.of_the_batch |= name in OF_THE_BATCH
        arguments = [self._read(argument, depth + 1) for argument in node.args]

        def computed(values: Values) -> Value:
            like = values["beta"]
            return function(*(_tensor(argument(values), like) for argument in arguments))

        return computed

    def _part(self, node: ast.AST) -> str:
        return ast.get_source_segment(self.text.strip(), node) or type(node).__name__

    def _error(self, node: ast.AST, why: str, hint: str | None = None) -> UsageError:
        line = getattr(node, "lineno", 1)
        return UsageError(f"the expression cannot be used: {why}", where=f"line {line}: {self._part(node)}", hint=hint)


class WrittenPreference(MarginObjective):
    """A preference objective that is written as an :class:`Expression`, ``cost(z, ...)``; mean over pairs.

    Call as :class:`~nearfar.objectives.preference.PreferenceObjective`. An expression of ``z`` or ``rho`` alone is a
    link, and :class:`~nearfar.objectives.PairwiseLink` puts it on any scores.

    Arguments: ``text``, and ``constants`` that it names; ``beta`` > 0, default 0.05 (Lu et al., 2024, who give it to
    every loss); ``tokens``: "sum" (default) or "mean"; ``reduction``. Raises UsageError as :class:`Expression` does.
    """

    name = "expression"

    def __init__(
        self, text: str, *, beta: float = 0.05, tokens: str = "sum", reduction: str = "mean", **constants: float
    ) -> None:
        super().__init__(beta, tokens=tokens, reduction=reduction)
        self.expression = Expression(text, **constants)

    @property
    def margin_alone(self) -> bool:  # type: ignore[override]
        """Whether a margin has a cost by itself."""
        return self.expression.names <= set(MARGINS) and not self.expression.of_the_batch

    def link(self, margin: Tensor) -> Tensor:
        return self.expression(self.beta, z=margin, rho=margin / self.beta)

    def pairs(self, pairs: Preferences, **extra: Tensor) -> Tensor:
        margin = self.margin_of(pairs.chosen, pairs.rejected)
        given = named(pairs, averaged=self.tokens == "mean")
        return self.expression(self.beta, z=margin, rho=pairs.chosen - pairs.rejected, **given)


def named(pairs: Preferences, *, averaged: bool = False) -> dict[str, Tensor]:
    """The values of :data:`PAIRS`; ``averaged``: the implicit rewards are divided by the completions' lengths."""
    values = {
        "chosen": pairs.chosen,
        "rejected": pairs.rejected,
        "policy_chosen": pairs.policy_chosen,
        "policy_rejected": pairs.policy_rejected,
    }
    for side, length in (("chosen", pairs.chosen_length), ("rejected", pairs.rejected_length)):
        ratio = values[side] * length if averaged and length is not None else values[side]
        values[f"reference_{side}"] = values[f"policy_{side}"] - ratio
    return values


def _combined(
    operation: Callable[[Any, Any], Any], left: Callable[[Values], Value], right: Callable[[Values], Value]
) -> Callable[[Values], Value]:
    def computed(values: Values) -> Value:
        like = values["beta"]
        one, other = left(values), right(values)
        if not isinstance(one, Tensor) and not isinstance(other, Tensor):
            one = _tensor(one, like)  # numbers of Python raise where tensors say inf or nan
        found: Tensor = operation(one, other)
        return found.to(like.dtype)

    return computed


def _tensor(value: Value, like: Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else like.new_tensor(value)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{name} is {value!r}, no number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise UsageError(f"{name} is {str(value)[:40]}, no finite number")
    return number
