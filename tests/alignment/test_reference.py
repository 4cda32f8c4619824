from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from nearfar.alignment import reference
from nearfar.alignment.reference import check_step_zero, reference_scores
from nearfar.alignment.scores import response_scores
from nearfar.data.preferences.tokens import TokenisedRow
from nearfar.errors import TrainingError, UsageError
from nearfar.objectives import DPO
from support.language_models import RAGGED, causal, plainly, rows


@pytest.fixture
def model():
    return causal("llama")


@pytest.mark.parametrize("batch_tokens", [1, 20, 8192])
def test_values_come_in_the_order_of_the_rows(model, batch_tokens):
    given = rows(*RAGGED)
    found = reference_scores(model, given, batch_tokens=batch_tokens)
    torch.testing.assert_close(found.log_probability.double(), plainly(model, given)[0], rtol=0, atol=1e-5)
    assert found.length.tolist() == [len(response) for row in given for response in row.responses]
    assert not found.log_probability.requires_grad
    assert found.computed == 8


def test_the_column_is_read_back_bit_for_bit_in_any_order(model, tmp_path):
    given = rows(*RAGGED)
    first = reference_scores(model, given, cache=tmp_path)
    again = reference_scores(model, given, cache=tmp_path)
    assert again.computed == 0
    assert torch.equal(again.log_probability, first.log_probability)
    turned = reference_scores(model, given[::-1], cache=tmp_path)
    assert turned.computed == 0
    assert turned.log_probability[:2].tolist() == first.log_probability[-2:].tolist()
    assert len(list(tmp_path.iterdir())) == 1


def test_only_what_is_missing_is_computed(model, tmp_path):
    given = rows(*RAGGED)
    reference_scores(model, given[:2], cache=tmp_path)
    longer = TokenisedRow(given[0].prompt, (*given[0].responses, given[1].responses[0], given[0].responses[0]))
    found = reference_scores(model, [longer, *given[1:]], cache=tmp_path)
    assert found.computed == 1 + 3 + 2
    assert found.log_probability[0] == found.log_probability[3]
    torch.testing.assert_close(
        found.log_probability.double(), plainly(model, [longer, *given[1:]])[0], rtol=0, atol=1e-5
    )


def test_a_run_that_was_killed_goes_on(model, tmp_path, monkeypatch):
    given = rows(*RAGGED)
    monkeypatch.setattr(reference, "SAVE_EVERY", -1.0)
    done: list[int] = []

    def killed(count: int, total: int) -> None:
        done.append(count)
        if len(done) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reference_scores(model, given, cache=tmp_path, batch_tokens=1, progress=killed)
    found = reference_scores(model, given, cache=tmp_path)
    assert 0 < found.computed < 8
    torch.testing.assert_close(found.log_probability.double(), plainly(model, given)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_column_is_computed_anew(model, tmp_path, damage):
    given = rows(*RAGGED)
    first = reference_scores(model, given, cache=tmp_path)
    (place,) = tmp_path.iterdir()
    place.write_bytes(place.read_bytes()[:-9] if damage is None else damage)
    again = reference_scores(model, given, cache=tmp_path)
    assert again.computed == 8
    assert torch.equal(again.log_probability, first.log_probability)


def test_other_weights_have_another_column(model, tmp_path):
    given = rows(*RAGGED)
    reference_scores(model, given, cache=tmp_path)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.model.norm.weight[3] += 1e-3
    assert reference_scores(other, given, cache=tmp_path).computed == 8
    assert reference_scores(model, given, cache=tmp_path, temperature=0.5).computed == 8
    assert reference_scores(copy.deepcopy(model), given, cache=tmp_path).computed == 0


def test_the_column_outlives_the_process(model, tmp_path):
    """A model that was saved and loaded has the column of the one in memory."""
    from nearfar.encoders.language_model import (
        language_model,
        symbol_tokenizer,
        tiny_language_model,
        write_language_model,
    )

    words, given = symbol_tokenizer("abc"), [TokenisedRow(np.array([1, 7], np.int32), (np.array([8, 2], np.int32),))]
    small = tiny_language_model(vocabulary=len(words))
    write_language_model(small, words, tmp_path / "model")
    reference_scores(small, given, cache=tmp_path / "cache")
    assert reference_scores(language_model(tmp_path / "model")[0], given, cache=tmp_path / "cache").computed == 0


def test_of_an_adapter_the_bare_model_is_the_reference(model, tmp_path):
    from peft import LoraConfig, get_peft_model

    given = rows(*RAGGED)
    bare = reference_scores(model, given, cache=tmp_path)
    wrapped = get_peft_model(copy.deepcopy(model), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    check_step_zero(wrapped.eval(), given, bare.log_probability)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    found = reference_scores(wrapped, given, cache=tmp_path)
    assert found.computed == 0
    assert reference_scores(wrapped, given).log_probability.tolist() == pytest.approx(
        bare.log_probability.tolist(), abs=1e-5
    )
    with pytest.raises(TrainingError, match="other weights"):
        check_step_zero(wrapped, given, bare.log_probability)


def test_dropout_is_off_for_the_reference_and_told_of_in_the_policy():
    model, given = causal("llama", attention_dropout=0.5), rows(*RAGGED)
    model.train()
    found = reference_scores(model, given)
    assert model.training
    torch.testing.assert_close(found.log_probability.double(), plainly(model.eval(), given)[0], rtol=0, atol=1e-5)
    assert check_step_zero(model, given, found.log_probability).difference < 1e-5
    with pytest.raises(TrainingError, match="dropout is on"):
        check_step_zero(model.train(), given, found.log_probability)


def test_at_the_reference_dpo_is_log_2(model):
    given = rows((7, (3, 5)), (2, (4, 1)))
    chosen, rejected = reference_scores(model, given).log_probability.reshape(-1, 2).unbind(1)
    now = response_scores(model, given).log_probability.reshape(-1, 2)
    loss = DPO()(*now.unbind(1), reference_chosen=chosen, reference_rejected=rejected)
    assert float(loss.detach()) == pytest.approx(math.log(2), abs=1e-5)


def test_weights_that_are_not_finite_are_found(model, tmp_path):
    with torch.no_grad():
        model.model.norm.weight[0] = math.nan
    with pytest.raises(TrainingError, match="log-probability nan"):
        reference_scores(model, rows(*RAGGED), cache=tmp_path)
    assert not list(tmp_path.iterdir())


def test_edges(model):
    assert len(reference_scores(model, []).length) == 0
    assert check_step_zero(model, [], torch.zeros(0)).responses == 0
    with pytest.raises(UsageError, match="batch_tokens"):
        reference_scores(model, [], batch_tokens=0)
    wide = reference_scores(causal("gpt2", dtype=torch.float64), rows(*RAGGED))
    assert wide.log_probability.dtype == torch.float64
