from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nearfar.alignment.head import token_log_probabilities
from nearfar.errors import UsageError

CASES = [
    {},
    {"temperature": 0.7},
    {"soft_cap": 5.0, "scale": 0.5},
    {"soft_cap": 30.0, "temperature": 2.0, "scale": 1.5},
]


def drawn(tokens: int = 13, vocabulary: int = 29, width: int = 7, dtype=torch.float64) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    hidden, weight, bias = (
        torch.randn(shape, generator=generator, dtype=dtype)
        for shape in ((tokens, width), (vocabulary, width), (vocabulary,))
    )
    return hidden, weight, bias, torch.randint(vocabulary, (tokens,), generator=generator)


def by_loops(hidden, weight, bias, target, *, scale=1.0, soft_cap=None, temperature=1.0) -> list[tuple[float, float]]:
    found = []
    for h, t in zip(hidden.tolist(), target.tolist(), strict=True):
        logits = []
        for row, offset in zip(weight.tolist(), bias.tolist(), strict=True):
            z = scale * (sum(a * b for a, b in zip(h, row, strict=True)) + offset)
            logits.append((z if soft_cap is None else soft_cap * math.tanh(z / soft_cap)) / temperature)
        total = math.log(sum(math.exp(z) for z in logits))
        entropy = -sum(math.exp(z - total) * (z - total) for z in logits)
        found.append((logits[t] - total, entropy))
    return found


def plain(hidden, weight, bias, target, *, scale=1.0, soft_cap=None, temperature=1.0) -> tuple[Tensor, Tensor]:
    logits = scale * (hidden @ weight.T + bias)
    logits = logits if soft_cap is None else soft_cap * torch.tanh(logits / soft_cap)
    log_p = torch.log_softmax(logits / temperature, 1)
    return log_p.gather(1, target[:, None]).squeeze(1), -(log_p.exp() * log_p).sum(1)


@pytest.mark.parametrize("settings", CASES)
@pytest.mark.parametrize("chunk", [1, 5, None])
def test_values_are_those_of_plain_loops(settings, chunk):
    hidden, weight, bias, target = drawn()
    found, entropy = token_log_probabilities(hidden, weight, target, bias=bias, chunk=chunk, entropy=True, **settings)
    expected = torch.tensor(by_loops(hidden, weight, bias, target, **settings), dtype=torch.float64)
    torch.testing.assert_close(torch.stack([found, entropy], 1), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("settings", CASES)
@pytest.mark.parametrize("trained", ["hidden", "all", "weight", "bias"])
@pytest.mark.parametrize("of", ["value", "entropy", "both"])
def test_gradients_are_those_of_autograd(settings, trained, of):
    inputs = dict(zip(("hidden", "weight", "bias"), drawn()[:3], strict=True))
    target = drawn()[3]
    wanted = [inputs[name].requires_grad_() for name in inputs if trained in (name, "all")]
    generator = torch.Generator().manual_seed(1)
    above = torch.randn((2, len(target)), generator=generator, dtype=torch.float64)
    above[0] *= of != "entropy"
    above[1] *= of != "value"
    expected = torch.autograd.grad((torch.stack(plain(*inputs.values(), target, **settings)) * above).sum(), wanted)
    found = token_log_probabilities(
        inputs["hidden"], inputs["weight"], target, bias=inputs["bias"], chunk=4, entropy=of != "value", **settings
    )
    pieces = [found] if of == "value" else list(found)
    total = sum((piece * row).sum() for piece, row in zip(pieces, above, strict=False))
    if of == "entropy":
        total = (found[1] * above[1]).sum()
    for one, other in zip(torch.autograd.grad(total, wanted), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_tied_weights_get_both_gradients():
    _, weight, _, target = drawn()
    weight.requires_grad_()
    ids = torch.arange(13)
    expected = torch.autograd.grad(
        torch.log_softmax(weight[ids] @ weight.T, 1).gather(1, target[:, None]).sum(), weight
    )[0]
    found = torch.autograd.grad(token_log_probabilities(weight[ids], weight, target, chunk=3).sum(), weight)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("frozen", [True, False])
def test_half_precision_is_summed_in_float32(dtype, frozen):
    """As close to the exact value of the rounded inputs as float32 is; sums in half precision would miss by 0.01."""
    hidden, weight, bias, target = drawn(64, 257, 96)
    half = [
        values.to(dtype).requires_grad_(number == 0 or not frozen)
        for number, values in enumerate((hidden, weight, bias))
    ]
    wide = [values.detach().double().requires_grad_() for values in half]
    found = token_log_probabilities(half[0], half[1], target, bias=half[2])
    expected = plain(*wide, target)[0]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4)
    found.sum().backward()
    expected.sum().backward()
    for one, other in zip(half, wide, strict=True):
        if one.requires_grad:
            assert one.grad.dtype == dtype
            torch.testing.assert_close(one.grad.double(), other.grad, rtol=2e-2, atol=2e-2)


def test_autocast_does_not_reach_the_products():
    hidden, weight, _, target = drawn(dtype=torch.float32)
    expected = token_log_probabilities(hidden, weight, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(token_log_probabilities(hidden, weight, target), expected)


def test_large_logits_stay_finite():
    hidden, weight, _, target = drawn()
    hidden = (1e4 * hidden).requires_grad_()
    found = token_log_probabilities(hidden, weight, target)
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert torch.isfinite(hidden.grad).all()


def test_no_tokens_at_all_have_a_graph():
    hidden = torch.zeros(0, 7, requires_grad=True)
    weight = torch.ones(5, 7, requires_grad=True)
    token_log_probabilities(hidden, weight, torch.zeros(0, dtype=torch.int64)).sum().backward()
    assert torch.equal(weight.grad, torch.zeros(5, 7))


def test_what_cannot_be_is_refused():
    hidden, weight, _, target = drawn()
    with pytest.raises(ValueError, match="hidden, weight and target"):
        token_log_probabilities(hidden, weight[:, 1:], target)
    for wrong in ({"temperature": 0.0}, {"soft_cap": -1.0}, {"chunk": 0}):
        with pytest.raises(UsageError, match="above 0"):
            token_log_probabilities(hidden, weight, target, **wrong)


def test_the_logits_of_all_tokens_never_exist(monkeypatch):
    """Products of hidden states and the matrix are watched: none has more rows than a chunk, forward or backward."""
    seen: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if isinstance(out, Tensor) and out.dim() == 2 and out.shape[1] == 29:
                seen.append(out.shape[0])
            return out

    hidden, weight, _, target = drawn(width=3)
    hidden.requires_grad_()
    weight.requires_grad_()
    with Watch():
        token_log_probabilities(hidden, weight, target, chunk=4).sum().backward()
    assert seen
    assert max(seen) == 4
