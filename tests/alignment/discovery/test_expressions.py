"""Objectives written as arithmetic: the catalogue's, said once more, and what the grammar refuses."""

import pytest
import torch

from nearfar.alignment.discovery.expressions import Expression, WrittenPreference
from nearfar.contrast import Explicit
from nearfar.errors import UsageError
from nearfar.objectives import PairwiseLink, get

BLEND = "softplus(-z) + (1 - w) * relu(1 - z)"
TEXTS = {
    "dpo": "softplus(-z)",
    "hinge": "relu(1 - z)",
    "ipo": "square(rho - 1 / (2 * beta))",
    "discopop": "m = sigmoid(z / tau); (1 - m) * softplus(-z) + exp(logsigmoid(z / tau) - z)",
    "dbaql": "c = sigmoid(variance(z / tau)); c * softplus(-z / 0.9) + (1 - c) * exp(-0.9 * z)",
    "aql": "q = 0.5 + 0.01 * (sigmoid(mean(z / tau)) - 0.5); w = sigmoid(q - z / tau); w * " + BLEND,
    "aqfl": "a = std(z / tau) * mean(sigmoid(-z / tau))\n"
    "b = a + 0.05 * (sigmoid(mean(z / tau)) - a)\nw = sigmoid(0.1 * abs(z / tau - b))\nw * " + BLEND,
    "padll": "0.9 * (1 - 0.5 * (z < 0)) * softplus(-z)",
    "cell": "0.5 * exp(-z) + 0.5 * softplus(-z)",
    "pfl": "where(policy_chosen > policy_rejected, softplus(-z) / 2, 2 * relu(1 - z))",
    "kto-pair": "1 - sigmoid(beta * (chosen - relu(mean(rejected)))) / 2"
    " - sigmoid(beta * (relu(mean(chosen)) - rejected)) / 2",
}


def values(n: int = 12, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [(30 * torch.randn(n, dtype=torch.float64, generator=generator)).requires_grad_() for _ in range(4)]


def called(objective, given, **lengths):
    chosen, rejected, reference_chosen, reference_rejected = given
    return objective(
        chosen, rejected, reference_chosen=reference_chosen, reference_rejected=reference_rejected, **lengths
    )


@pytest.mark.parametrize("name", TEXTS)
def test_the_catalogue_s_objectives_can_be_written(name):
    constants = {"tau": 0.05} if "tau" in TEXTS[name] else {}
    written = WrittenPreference(TEXTS[name], reduction="none", **constants)
    known = get(name, beta=0.05, reduction="none")
    given = values()
    one, other = called(written, given), called(known, given)
    assert torch.allclose(one, other, rtol=1e-10, atol=1e-10)
    weights = torch.linspace(0.5, 1.5, 12, dtype=torch.float64)
    slopes = [torch.autograd.grad((cost * weights).sum(), given[:2]) for cost in (one, other)]
    for a, b in zip(*slopes, strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-10)


def test_references_and_lengths_reach_the_expression():
    text = "policy_chosen + 10 * policy_rejected + 100 * reference_chosen + 1000 * reference_rejected + 0.1 * chosen"
    given = values()
    lengths = {"chosen_length": torch.full((12,), 4.0), "rejected_length": torch.full((12,), 5.0)}
    plain = sum(weight * value for weight, value in zip((1, 10, 100, 1000), given, strict=True))
    ratio = given[0] - given[2]
    for tokens, expected in (("sum", plain + 0.1 * ratio), ("mean", plain + 0.1 * ratio / 4)):
        found = called(WrittenPreference(text, tokens=tokens, reduction="none"), given, **lengths)
        assert torch.allclose(found, expected, rtol=1e-12)


def test_a_link_written_down_trains_any_scores():
    written = WrittenPreference("softplus(-z)", beta=0.5)
    assert written.margin_alone
    scores = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    near = torch.zeros(4, 6, dtype=torch.bool)
    near[:, :2] = True
    relation = Explicit(near, ~near)
    found = PairwiseLink(written)(scores=scores, relation=relation)
    known = PairwiseLink(get("dpo", beta=0.5))(scores=scores, relation=relation)
    assert torch.allclose(found, known)
    for text in ("softplus(-z) * mean(z)", "softplus(-z) * chosen"):
        assert not WrittenPreference(text).margin_alone
        with pytest.raises(UsageError):
            PairwiseLink(WrittenPreference(text))


def test_numbers_alone_are_costs_of_every_pair():
    objective = WrittenPreference("2 ** 3 / 4 - 1", reduction="none")
    assert torch.equal(called(objective, values()), torch.ones(12, dtype=torch.float64))
    assert torch.isinf(called(WrittenPreference("1 / 0", reduction="none"), values())).all()
    assert torch.isnan(called(WrittenPreference("(0 - 1) ** 0.5", reduction="none"), values())).all()


def test_half_precision_and_no_pairs():
    half = [value.detach().to(torch.bfloat16) for value in values()]
    assert called(WrittenPreference("softplus(-z)"), half).dtype == torch.float32
    assert called(WrittenPreference("std(z) * z"), [value[:0] for value in values()]) == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("softplus(-z", "cannot be read"),
        ("y = z", "gives a name and no cost"),
        ("import os; z", "only 'name = expression'"),
        ("z = 3; z", "taken"),
        ("exp = z; z", "taken"),
        ("a, b = z; z", "only 'name"),
        ("__import__('os').system('true')", "no such part"),
        ("z.__class__", "no such part"),
        ("[z for z in z]", "no such part"),
        ("(lambda: z)()", "no such part"),
        ("z if z else z", "no such part"),
        ("z @ z", "no such part"),
        ("0 < z < 1", "no such part"),
        ("open(z)", "no function 'open'"),
        ("tau * z", "no 'tau'"),
        ("softplus(z, z)", "takes 1"),
        ("softplus(*z)", "no such part"),
        ("softplus(x=z)", "no such part"),
        ("z + 'a'", "no number"),
        ("z + True", "no number"),
        ("z + 1e999", "no finite number"),
        ("z + " + "9" * 400, "no finite number"),
        ("z" + " + z" * 700, "characters"),
        ("+".join("z" * 300), "parts"),
        ("abs(" * 60 + "z" + ")" * 60, "nested deeper"),
        ("(" * 900 + "z" + ")" * 900, "cannot be read"),
        ("-" * 1900 + "z", "parts"),
        ("z\0", "cannot be read"),
    ],
)
def test_what_the_grammar_refuses(text, says):
    with pytest.raises(UsageError, match=says):
        Expression(text)


def test_constants_are_numbers_with_names_of_their_own():
    for constants in ({"z": 1.0}, {"exp": 1.0}, {"beta": 1.0}, {"tau": float("nan")}, {"tau": "1"}, {"a b": 1.0}):
        with pytest.raises(UsageError):
            Expression("z", **constants)
    with pytest.raises(UsageError, match="beta"):
        WrittenPreference("z", beta=0)
