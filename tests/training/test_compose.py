"""A method out of the names of its parts."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from nearfar.contrast import Paired
from nearfar.data.synthetic import Sensors
from nearfar.encoders.perceptron import Perceptron
from nearfar.errors import UsageError
from nearfar.objectives import InfoNCE
from nearfar.training.compose import HEADS, Composed, compose
from nearfar.training.keys import OnlineOffline
from nearfar.training.steps import random_batches, seeded, train_steps

WORLD = Sensors(4, 100, seed=0)


def _method(**options: object) -> Composed:
    with seeded(0):
        encoder = Perceptron((24, 16, 8))
        return compose(WORLD.pairs("multisensory"), encoder, features=8, dimension=4, **options)  # type: ignore[arg-type]


def test_the_loss_is_that_of_the_parts() -> None:
    method = _method(temperature=0.3)
    index = torch.tensor([3, 50, 120, 7])
    loss, logs = method({"index": index, "generator": torch.Generator().manual_seed(1)})
    pairs = WORLD.pairs("multisensory")(index, torch.Generator().manual_seed(1))
    query, key = method.keys.embed(pairs.query), method.keys.embed(pairs.key)
    torch.testing.assert_close(loss, InfoNCE(temperature=0.3)(query, key, relation=Paired(pairs.ids, pairs.ids)))
    assert logs == {"keys": 4}


@pytest.mark.parametrize("head", HEADS)
def test_every_head_gives_what_is_contrasted(head: str) -> None:
    wide = head in ("contextualisation", "attention", "mean")
    made = HEADS[head](8, 8 if head == "identity" else 4)
    shape = (5, 3, 8) if wide else (5, 8)
    assert made(torch.randn(shape)).shape == (5, 8 if head == "identity" else 4)


def test_after_step_reaches_the_keys_and_options_their_regime() -> None:
    method = _method(keys="online-offline", momentum=0.25, size=16)
    assert isinstance(method.keys, OnlineOffline)
    offline = method.keys.offline
    before = copy.deepcopy(offline.copy.module.state_dict())
    train_steps(
        lambda index: method({"index": index})[0],
        [method],
        random_batches(len(WORLD), 12, 2, torch.Generator().manual_seed(0)),
        after_step=method.after_step,
    )
    assert len(offline.queue) == 16
    assert int(offline.copy.updates) == 2
    after = offline.copy.module.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_training_moves_pairs_together() -> None:
    method = _method(temperature=0.2)
    with seeded(1) as generator:
        batches = random_batches(len(WORLD), 32, 60, generator)
        losses = train_steps(lambda index: method({"index": index})[0], [method], batches, learning_rate=1e-2)
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_the_score_and_the_objective_are_chosen_by_name() -> None:
    method = _method(objective="jsd", score="cosine", head="quantisation")
    assert type(method.objective).__name__ == "JSD"
    assert type(method.objective.score).__name__ == "Cosine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "mlp"}, "no head 'mlp'"),
        ({"keys": "moco"}, "no key regime 'moco'"),
        ({"objective": "vicreg"}, "vicreg cannot be composed"),
        ({"objective": "moco"}, "moco cannot be composed"),
        ({"objective": "jsd", "temperature": 0.1}, "takes no 'temperature'"),
        ({"momentum": 0.9}, "the key regime end-to-end takes no 'momentum'"),
        ({"keys": "online-offline", "momentun": 0.9, "sise": 3}, "takes no 'momentun', 'sise'"),
        ({"keys": "online-offline", "head_": "mlp"}, "its options are momentum, size"),
        ({"keys": "memory-bank"}, "the key regime memory-bank needs items"),
        ({"keys": "pre-trained", "encoder_": 1}, "its options are train_keys"),
    ],
)
def test_parts_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _method(**options)


def test_what_is_exported_is_the_encoder_s() -> None:
    method = _method()
    assert isinstance(method.keys.encoder, Perceptron)
    assert isinstance(method.keys.head, nn.Module)
    assert method.keys.encoder(torch.zeros(2, 24)).shape == (2, 8)
    assert method.keys.embed(torch.zeros(2, 24)).shape == (2, 4)
