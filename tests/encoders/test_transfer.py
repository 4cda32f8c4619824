from __future__ import annotations

import pytest
import torch
from torch import nn

from nearfar.encoders.transfer import transfer_rows
from nearfar.errors import UsageError
from nearfar.objectives import CatLIP, SoftTriple


def _pretrained() -> CatLIP:
    old = CatLIP(5, 3)
    with torch.no_grad():
        assert old.bias is not None
        old.bias.copy_(torch.arange(5.0))
    return old


@pytest.mark.parametrize("make", [lambda: CatLIP(3, 3), lambda: nn.Linear(3, 3)], ids=["objective", "linear"])
def test_rows_go_to_their_classes_and_others_stay(make) -> None:
    old, new = _pretrained(), make()
    rows, bias = list(new.parameters())
    before = rows.detach().clone()
    assert transfer_rows(new, old, [4, None, 0]) == 2
    assert old.proxies is not None
    assert torch.equal(rows[[0, 2]], old.proxies[[4, 0]])
    assert torch.equal(rows[1], before[1])
    assert bias[[0, 2]].tolist() == [4, 0]
    assert rows.requires_grad


def test_a_classifier_without_bias() -> None:
    new = nn.Linear(3, 1, bias=False)
    assert transfer_rows(new, _pretrained(), [2]) == 1


@pytest.mark.parametrize(
    ("new", "rows", "message"),
    [
        (nn.Linear(4, 1), [0], "dimensions"),
        (nn.Linear(3, 2), [0], "2 classes and 1 rows"),
        (nn.Linear(3, 1), [5], "none of the 5"),
        (nn.Linear(3, 1), [-1], "none of the 5"),
        (nn.ReLU(), [0], "no classifier"),
        (CatLIP(), [0], "no classifier"),
        (SoftTriple(1, 3, centers=2), [0], "no classifier"),
    ],
)
def test_what_does_not_fit(new: nn.Module, rows: list[int | None], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        transfer_rows(new, _pretrained(), rows)
