from __future__ import annotations

import torch

from nearfar.alignment.columns import Columns


def columns() -> Columns:
    """Rows of 2, 1 and 3 responses, of 1, 2, 1, 3, 1, 2 tokens."""
    length = torch.tensor([1, 2, 1, 3, 1, 2])
    return Columns(
        {"count": torch.tensor([2, 1, 3]), "margin": torch.tensor([0.1, 0.2, 0.3])},
        {"length": length, "score": torch.arange(6.0)},
        {"reference": torch.arange(10.0)},
    )


def test_values_of_responses_become_a_matrix_with_their_gradient():
    made = columns()
    values = torch.arange(1.0, 7.0, requires_grad=True)
    matrix = made.matrix(values, -1.0)
    assert matrix.tolist() == [[1, 2, -1], [3, -1, -1], [4, 5, 6]]
    assert made.present.tolist() == [[True, True, False], [True, False, False], [True, True, True]]
    (matrix * torch.tensor([[1.0, 2, 50], [3, 50, 50], [4, 5, 6]])).sum().backward()
    assert values.grad.tolist() == [1, 2, 3, 4, 5, 6]
    assert made.row.tolist() == [0, 0, 1, 2, 2, 2]
    assert made.column.tolist() == [0, 1, 0, 0, 1, 2]


def test_tokens_add_up_over_their_response():
    values = torch.arange(10.0, requires_grad=True)
    sums = columns().token_sums(values)
    assert sums.tolist() == [0, 1 + 2, 3, 4 + 5 + 6, 7, 8 + 9]
    sums[3].backward()
    assert values.grad.tolist() == [0, 0, 0, 0, 1, 1, 1, 0, 0, 0]


def test_parts_hold_their_rows_responses_and_tokens():
    part = columns().part(1, 3)
    assert part.count.tolist() == [1, 3]
    assert part.of_rows["margin"].tolist() == [torch.tensor(0.2).item(), torch.tensor(0.3).item()]
    assert part.of_responses["score"].tolist() == [2, 3, 4, 5]
    assert part.of_tokens["reference"].tolist() == list(range(3, 10))
    assert len(columns().part(0, 0)) == 0
    assert columns().gathered(None).count.tolist() == [2, 1, 3]
