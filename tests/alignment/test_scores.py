from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from nearfar.alignment.packing import repeated, shared, shared_is_cheaper
from nearfar.alignment.scores import response_scores, supports_shared_prefix
from nearfar.data.preferences.tokens import TokenisedRow
from nearfar.encoders.language_model import tiny_language_model
from nearfar.errors import DataError, ModelError, UsageError
from support.language_models import ARCHITECTURES, RAGGED, SHARING, causal, plainly, rows


def weighted(values: torch.Tensor) -> torch.Tensor:
    return (values * torch.linspace(-1, 2, len(values), dtype=values.dtype)).sum()


def largest(one, other) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_values_and_gradients_are_the_plain_computation_s(name):
    model, given = causal(name), rows(*RAGGED)
    assert supports_shared_prefix(model) == (name in SHARING)
    expected, tokens = plainly(model, given)
    slopes = torch.autograd.grad(weighted(expected), list(model.parameters()), allow_unused=True)
    for sharing in {False, "auto", name in SHARING}:
        found = response_scores(model, given, shared_prefix=sharing, tokens=True)
        torch.testing.assert_close(found.log_probability.double(), expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(found.tokens.double(), torch.cat(tokens), rtol=0, atol=1e-5)
        mine = torch.autograd.grad(weighted(found.log_probability), list(model.parameters()), allow_unused=True)
        for one, other in zip(mine, slopes, strict=True):
            if other is not None:
                torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_in_float64_nothing_is_rounded(sharing, attention):
    """On GPT-2, which computes all of it in float64; Llama's norms and rotations are of float32 whatever is asked."""
    model, given = causal("gpt2", dtype=torch.float64, attention=attention), rows(*RAGGED)
    expected, _ = plainly(model, given)
    slopes = torch.autograd.grad(weighted(expected), list(model.parameters()))
    found = response_scores(model, given, shared_prefix=sharing).log_probability
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    mine = torch.autograd.grad(weighted(found), list(model.parameters()))
    assert largest(mine, slopes) < 1e-10


@pytest.mark.parametrize("sharing", [True, False])
def test_a_response_does_not_see_its_neighbours(sharing):
    model, given = causal("llama"), rows((4, (3, 5, 2)))
    before = response_scores(model, given, shared_prefix=sharing).log_probability
    others = rows((4, (9, 9, 9)), seed=1)[0].responses
    for kept in range(3):
        changed = tuple(given[0].responses[k] if k == kept else others[k] for k in range(3))
        after = response_scores(model, [TokenisedRow(given[0].prompt, changed)], shared_prefix=sharing)
        assert after.log_probability[kept].item() == pytest.approx(before[kept].item(), abs=1e-5)


@pytest.mark.parametrize("sharing", [True, False])
def test_order_and_company_of_rows_do_not_matter(sharing):
    model, given = causal("llama"), rows(*RAGGED)
    together = response_scores(model, given, shared_prefix=sharing)
    alone = [response_scores(model, [row], shared_prefix=sharing).log_probability for row in given]
    torch.testing.assert_close(together.log_probability, torch.cat(alone), rtol=0, atol=1e-5)
    turned = response_scores(model, given[::-1], shared_prefix=sharing)
    torch.testing.assert_close(turned.log_probability, torch.cat(alone[::-1]), rtol=0, atol=1e-5)
    assert together.row.tolist() == [0, 0, 1, 2, 2, 2, 3, 3]


def test_temperature_divides_the_logits():
    model, given = causal("gemma2"), rows(*RAGGED)
    expected, _ = plainly(model, given, 0.6)
    found = response_scores(model, given, temperature=0.6).log_probability
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sharing", [True, False])
def test_mean_hidden_states(sharing):
    model, given = causal("llama"), rows(*RAGGED)
    hidden = response_scores(model, given, shared_prefix=sharing, hidden=True).hidden
    place = 0
    for number, row in enumerate(given):
        for response in row.responses:
            ids = torch.from_numpy(np.concatenate([row.prompt, response]).astype(np.int64))[None]
            states = model.model(input_ids=ids).last_hidden_state[0]
            start = len(row.prompt)
            torch.testing.assert_close(hidden.response[place], states[start:].mean(0), rtol=0, atol=1e-5)
            torch.testing.assert_close(hidden.prompt[number], states[:start].mean(0), rtol=0, atol=1e-5)
            torch.testing.assert_close(hidden.end[number], states[start - 1], rtol=0, atol=1e-5)
            place += 1


@pytest.mark.parametrize("sharing", [True, False])
def test_checkpointed_layers_give_the_same_gradients(sharing):
    model, given = causal("llama"), rows(*RAGGED)
    plain = torch.autograd.grad(weighted(response_scores(model, given).log_probability), list(model.parameters()))
    model.train()
    model.gradient_checkpointing_enable()
    found = response_scores(model, given, shared_prefix=sharing).log_probability
    mine = torch.autograd.grad(weighted(found), list(model.parameters()))
    assert largest(mine, plain) < 2e-5


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ["q_proj", "lm_head"], ["embed_tokens", "down_proj"]])
def test_adapters_count_and_can_be_switched_off(targets):
    from peft import LoraConfig, get_peft_model

    model, given = causal("llama"), rows(*RAGGED)
    before = response_scores(copy.deepcopy(model), given).log_probability
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM")).eval()
    assert torch.allclose(response_scores(wrapped, given).log_probability, before, atol=1e-5)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.3)
    trained = [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
    expected, _ = plainly(wrapped, given)
    assert (expected - before).abs().max().item() > 0.01
    slopes = torch.autograd.grad(weighted(expected), trained)
    for sharing in (True, False):
        found = response_scores(wrapped, given, shared_prefix=sharing).log_probability
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)
        for one, other in zip(torch.autograd.grad(weighted(found), trained), slopes, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-5)
    with wrapped.disable_adapter():
        assert torch.allclose(response_scores(wrapped, given).log_probability, before, atol=1e-5)


def test_adapters_that_put_tokens_first_are_refused():
    from peft import PromptTuningConfig, get_peft_model

    wrapped = get_peft_model(causal("llama"), PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"))
    with pytest.raises(ModelError, match="tokens of their own"):
        response_scores(wrapped, rows((3, (2,))))


def test_half_precision_comes_near():
    model, given = causal("llama"), rows(*RAGGED)
    expected, _ = plainly(model, given)
    found = response_scores(copy.deepcopy(model).to(torch.bfloat16), given).log_probability
    assert found.dtype == torch.float32
    assert float(((found - expected).abs() / torch.tensor([len(r) for g in given for r in g.responses])).max()) < 0.05


def test_an_unknown_head_is_refused(monkeypatch):
    model = causal("llama")
    plain = type(model).forward

    def odd(self, *arguments, **named):
        found = plain(self, *arguments, **named)
        found.logits = found.logits**3
        return found

    monkeypatch.setattr(type(model), "forward", odd)
    with pytest.raises(ModelError, match="not its output matrix"):
        response_scores(model, rows((3, (2,))))


def test_what_is_no_language_model_is_refused():
    with pytest.raises(ModelError, match="no causal language model"):
        response_scores(torch.nn.Linear(2, 2), rows((3, (2,))))
    with pytest.raises(ModelError, match="no causal language model"):
        response_scores(causal("llama").model, rows((3, (2,))))


def test_what_cannot_be_asked():
    given = rows((3, (2, 2)))
    with pytest.raises(ModelError, match=r"compute a\s+prompt once"):
        response_scores(causal("bloom"), given, shared_prefix=True)
    with pytest.raises(UsageError, match="shared_prefix"):
        response_scores(causal("llama"), given, shared_prefix="yes")
    with pytest.raises(DataError, match="row 1 has no tokens"):
        response_scores(causal("llama"), [*given, TokenisedRow(np.zeros(0, np.int32), given[0].responses)])


@pytest.mark.parametrize("layout", [repeated, shared])
def test_edges_of_packing(layout):
    empty = np.zeros(0, np.int32)
    one = rows((3, (2,)))[0]
    given = [one, TokenisedRow(one.prompt, ()), TokenisedRow(one.prompt, (empty, one.responses[0]))]
    packed = layout(given)
    assert packed.length.tolist() == [2, 0, 2]
    assert packed.row.tolist() == [0, 2, 2]
    flat = packed.ids.reshape(-1)
    assert torch.equal(flat[packed.place], packed.target)
    found = response_scores(tiny_language_model(vocabulary=61), given, shared_prefix=layout is shared, hidden=True)
    first, none, same = found.log_probability.tolist()
    assert none == 0
    assert first == pytest.approx(same, abs=1e-5)
    assert not found.hidden.prompt[1].any()
    assert len(layout([]).length) == 0


def test_no_rows_have_no_scores():
    found = response_scores(causal("llama"), [], tokens=True, hidden=True)
    assert found.log_probability.shape == found.length.shape == found.tokens.shape == (0,)
    assert found.hidden.prompt.shape == (0, 24)


def test_the_mask_is_that_of_a_plain_loop():
    packed = shared(rows((3, (2, 1)), (2, (1, 1))))
    segments = [[0, 0, 0, 1, 1, 2], [0, 0, 1, 2, None, None]]
    for number, segment in enumerate(segments):
        for query, own in enumerate(segment):
            for key, other in enumerate(segment):
                allowed = key <= query and (own == other or (other == 0 and own is not None))
                assert bool(packed.mask[number, 0, query, key]) == allowed
    assert packed.positions.tolist()[0] == [0, 1, 2, 3, 4, 3]


def test_sharing_is_chosen_where_it_costs_less():
    assert shared_is_cheaper(rows((256, (128, 128))), 576)
    assert not shared_is_cheaper(rows((256, (128,))), 576)
    assert not shared_is_cheaper(rows((2, tuple([300] * 8))), 32)
    assert not shared_is_cheaper([], 32)


def test_scores_as_rows_of_equal_counts():
    model = causal("llama")
    found = response_scores(model, rows((3, (2, 4)), (5, (1, 3))), tokens=True)
    grouped = found.grouped()
    assert grouped.log_probability.shape == (2, 2)
    assert grouped.tokens.shape == (2, 2, 4)
    assert torch.equal(grouped.length, torch.tensor([[2, 4], [1, 3]]))
    torch.testing.assert_close(grouped.tokens.sum(2), grouped.log_probability)
    assert torch.equal(grouped.mask.sum(2), grouped.length)
    assert found.offsets.tolist() == [0, 2, 6, 7, 10]
    torch.testing.assert_close(found.mean, found.log_probability / found.length)
    assert not found.detach().tokens.requires_grad
    with pytest.raises(ValueError, match="different numbers"):
        response_scores(model, rows((3, (2, 4)), (5, (1,)))).grouped()
    with pytest.raises(ValueError, match="different numbers"):
        response_scores(model, rows((3, (2, 4, 1)), (5, (1,)))).grouped()
    with pytest.raises(ValueError, match="no single tokens"):
        response_scores(model, rows((3, (2,)))).matrix()
