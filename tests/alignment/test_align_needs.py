from __future__ import annotations

import pytest

from nearfar.alignment.needs import READINGS, REFUSED, check_data, fitting, make, need_of, options_of, settled
from nearfar.data.preferences.rows import KINDS
from nearfar.errors import UsageError
from nearfar.objectives import DPO, catalogue, get
from nearfar.objectives.preference import PreferenceObjective


@pytest.mark.parametrize("cls", [cls for cls in catalogue() if issubclass(cls, PreferenceObjective)])
def test_every_preference_objective_is_trained_or_refused_with_a_reason(cls):
    need = need_of(cls)
    if need is None:
        assert REFUSED[cls.name]
        return
    assert need.reading in READINGS
    assert need.data
    assert set(need.data) <= set(KINDS)
    assert need.reference == (not cls.reference_free)


@pytest.mark.parametrize(
    ("name", "reading", "reference"),
    [
        ("dpo", "pairs", True),
        ("simpo", "pairs", False),
        ("rpo", "sides", True),
        ("kto", "points", True),
        ("dro-v", "points", True),
        ("reward-weighted", "points", False),
        ("lipo-lambda", "rows", True),
        ("irpo", "rows", True),
        ("ampo", "rows", False),
        ("disco", "rows", True),
        ("info-nce", "rows", True),
        ("sft", "tokens", False),
        ("sft-implicit-reward", "tokens", True),
    ],
)
def test_what_objectives_need(name, reading, reference):
    objective, options = make(name, {})
    need = settled(objective, options, several=True)
    assert (need.reading, need.reference) == (reading, reference)


def test_arguments_go_to_the_objective_and_options_to_how_it_is_fed():
    objective, options = make("lipo-lambda", {"beta": 0.2, "temperature": 2.0, "grades": "ranks"})
    assert options == {"score": "ratio", "tokens": "sum", "beta": 0.2, "grades": "ranks"}
    assert objective.temperature.value == 2.0
    objective, options = make("dpo", {"beta": 0.2})
    assert (objective.beta, options) == (0.2, {})


def test_the_temperature_of_cosines_is_not_that_of_log_ratios():
    assert get("info-nce").temperature.value == pytest.approx(0.05)
    assert make("info-nce", {})[0].temperature.value == 1
    assert make("info-nce", {"temperature": 0.3})[0].temperature.value == pytest.approx(0.3)


def test_pairs_of_lists_are_graded_unless_that_is_asked_otherwise():
    assert make("pairwise-logistic", {})[0].pairs == "graded"
    assert make("pairwise-logistic", {"pairs": "near-far"})[0].pairs == "near-far"
    assert make("lipo-pair-hinge", {})[0].average == "pairs"


@pytest.mark.parametrize(
    ("name", "parameters", "told"),
    [
        ("dpo", {"betta": 1}, "takes no 'betta'"),
        ("ampo", {"selection": "best"}, "selection must be one of bottom-k, coreset"),
        ("ampo", {"negatives": 1.5}, "negatives must be a whole number"),
        ("ampo", {"alpha": "much"}, "alpha must be a number"),
        ("grpo", {}, "align-online"),
        ("mapl", {}, "instructions that can be checked"),
        ("barlow-twins", {}, "embeddings of views"),
        ("arcface", {}, "classes of items"),
        ("angular", {}, "needs embeddings"),
        ("moco", {}, "it needs queue"),
        ("cosent", {}, "similarities of embeddings"),
        ("dppo", {}, "there is no objective"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(name, parameters, told):
    with pytest.raises(UsageError, match=told) as refused:
        make(name, parameters)
    assert refused.value.hint or refused.value.where


def test_data_that_do_not_fit_are_refused_with_objectives_that_do():
    with pytest.raises(UsageError, match="chosen and rejected responses and cannot be trained on unpaired") as refused:
        check_data(get("dpo"), "unpaired")
    assert "kto" in refused.value.hint
    assert "dpo" in fitting("pairs")
    assert "dpo" not in fitting("unpaired")


def test_an_objective_that_was_made_takes_no_arguments():
    assert options_of(DPO(0.3), {}) == {}
    with pytest.raises(UsageError, match="made already"):
        options_of(DPO(0.3), {"beta": 0.1})
    assert options_of(get("ampo"), {"negatives": 3})["negatives"] == 3


def test_what_is_asked_for_decides_what_is_computed():
    objective, options = make("ampo", {"selection": "coreset"})
    assert settled(objective, options, several=True).states == "responses"
    objective, options = make("ampo", {})
    assert settled(objective, options, several=True).states is None
    objective, options = make("rpo-uniform", {})
    assert settled(objective, options, several=True).states is None
    objective, options = make("disco", {"score": "likelihood-ratio"})
    assert settled(objective, options, several=True).token_reference
    objective, options = make("dro-p", {})
    assert settled(objective, options, several=False).whole
    assert not settled(objective, options, several=True).whole
    assert need_of(make("simpo", {})[0]).whole is False
    assert need_of(make("cpo", {"likelihood": "pooled"})[0]).whole is True
