"""Every objective of the catalogue on every shape of data: it trains, or says what it lacks; nothing in between."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from nearfar import objectives
from nearfar.errors import UsageError
from nearfar.objectives.proxies import ProxyObjective
from nearfar.training import ContrastiveMethod, TextBatches, TrainingSettings
from nearfar.training.prepare import make_proxies, sized
from nearfar.training.shapes import check_fit

NAMES = [cls.name for cls in objectives.catalogue()]
SAY_THAT_ROWS_ARE_FEW = ("dcca",)


def _step(model: Any, objective: Any, examples: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    method = ContrastiveMethod(model, objective, shape=examples.shape)
    loss, _ = method(TextBatches(model, examples).batch(np.arange(len(examples))))
    loss.backward()
    return loss, [value.grad for value in model.parameters() if value.grad is not None]


@pytest.mark.parametrize("shape", ["pairs", "labelled texts", "texts", "scored pairs"])
def test_trains_or_refuses(shape: str, static_model: Any, bert_model: Any, make_pairs: Any, make_labelled: Any) -> None:
    from nearfar.data import Examples

    paired = make_pairs(12)
    examples = {
        "pairs": paired,
        "labelled texts": make_labelled(16, 3),
        "texts": Examples.from_columns({"text": paired.column("anchor")}),
        "scored pairs": Examples.from_columns(
            {
                "sentence1": paired.column("anchor"),
                "sentence2": paired.column("positive"),
                "score": list(np.linspace(0, 1, 12)),
            }
        ),
    }[shape]
    assert examples.shape == shape
    model = bert_model if shape == "texts" else static_model
    trained, refused = [], []
    for name in NAMES:
        objective = objectives.get(name)
        model.zero_grad()
        try:
            check_fit(objective, shape)
            objective = sized(TrainingSettings(objective=name, output="nowhere"), objective, 16)
            if isinstance(objective, ProxyObjective):
                make_proxies(objective, examples, 16, 0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore" if name in SAY_THAT_ROWS_ARE_FEW else "error")
                loss, gradients = _step(model, objective, examples)
        except UsageError as error:
            refused.append((name, error.hint))
            continue
        trained.append(name)
        assert loss.dim() == 0, name
        assert torch.isfinite(loss), name
        gradients = [value.coalesce().values() if value.is_sparse else value for value in gradients]
        assert all(torch.isfinite(value).all() for value in gradients), name
        if shape != "texts":  # two dropout views may lie within every margin
            assert sum(float(value.abs().sum()) for value in gradients) > 0, name
    assert all(hint for _, hint in refused), refused
    least = {"pairs": 60, "labelled texts": 50, "texts": 50, "scored pairs": 3}[shape]
    assert len(trained) >= least, (trained, refused)
