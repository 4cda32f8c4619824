"""DenoSent's decoder, against its layers written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.encoders.denoising import DenoisingDecoder, restoration_loss, restored_share
from nearfar.errors import UsageError


def decoder(**options: float) -> DenoisingDecoder:
    torch.manual_seed(0)
    sizes = {"layers": 2, "hidden": 12, **options}
    made = DenoisingDecoder(6, **sizes).double()  # type: ignore[arg-type]
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.4)
    return made


def attend(attention: nn.MultiheadAttention, query: Tensor, memory: Tensor, there: Tensor) -> Tensor:
    """One head, token by token."""
    d = query.shape[1]
    Wq, Wk, Wv = attention.in_proj_weight.split(d)
    bq, bk, bv = attention.in_proj_bias.split(d)
    rows = []
    for q in query:
        scores = torch.stack([(Wq @ q + bq) @ (Wk @ m + bk) / d**0.5 for m in memory])
        weights = scores.masked_fill(~there, -torch.inf).softmax(0)
        mixed = sum(w * (Wv @ m + bv) for w, m in zip(weights, memory, strict=True))
        rows.append(attention.out_proj.weight @ mixed + attention.out_proj.bias)
    return torch.stack(rows)


def test_it_is_a_post_norm_decoder_over_a_memory_of_one_token() -> None:
    made = decoder().eval()
    embedded = torch.randn(3, 5, 6, dtype=torch.float64)
    sentence = torch.randn(3, 6, dtype=torch.float64)
    mask = torch.tensor([[True] * 5, [True, True, True, False, False], [True] + [False] * 4])
    found = made(embedded, sentence, mask)
    one = torch.ones(1, dtype=torch.bool)
    for i in range(3):
        x = embedded[i]
        for layer in made.decoder.layers:
            x = layer.norm1(x + attend(layer.self_attn, x, x, mask[i]))
            x = layer.norm2(x + attend(layer.multihead_attn, x, sentence[i : i + 1], one))
            x = layer.norm3(x + layer.linear2(F.relu(layer.linear1(x))))
        torch.testing.assert_close(found[i][mask[i]], x[mask[i]])


def test_the_corruption_drops_values_and_detaches() -> None:
    made = decoder(corruption=0.8, dropout=0.0)
    seen: list[Tensor] = []
    made.decoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    embedded = torch.randn(40, 30, 6, dtype=torch.float64, requires_grad=True)
    sentence = torch.randn(40, 6, dtype=torch.float64, requires_grad=True)
    there = torch.ones(40, 30, dtype=torch.bool)
    made.train()(embedded, sentence, there).square().sum().backward()
    assert embedded.grad is None, "the embeddings must not learn to survive"
    assert sentence.grad is not None
    assert (sentence.grad.norm(dim=1) > 0).all()
    kept = seen[0] != 0
    torch.testing.assert_close(seen[0][kept], (embedded.detach() / 0.2)[kept])
    share = float(kept.double().mean())
    assert abs(share - 0.2) < 5 * (0.16 / kept.numel()) ** 0.5
    made.eval()(embedded, sentence, there)
    torch.testing.assert_close(seen[1], embedded.detach())


def test_padding_takes_no_part_and_an_empty_sentence_is_no_nan() -> None:
    made = decoder().eval()
    embedded, sentence = torch.randn(2, 4, 6, dtype=torch.float64), torch.randn(2, 6, dtype=torch.float64)
    mask = torch.tensor([[True, True, False, False], [False] * 4])
    found = made(embedded, sentence, mask)
    other = embedded.clone()
    other[~mask] = 100.0
    torch.testing.assert_close(made(other, sentence, mask)[0, :2], found[0, :2])
    torch.testing.assert_close(made(embedded[:, :2], sentence, mask[:, :2])[0], found[0, :2])
    assert found.isfinite().all()


def test_the_loss_and_the_share_restored() -> None:
    logits, ids = torch.randn(7, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 4, 0, 1])
    costs = [logits[k].logsumexp(0) - logits[k, ids[k]] for k in range(7)]
    torch.testing.assert_close(restoration_loss(logits, ids), torch.stack(costs).mean())
    assert float(restoration_loss(logits[:0], ids[:0])) == 0
    right = sum(int(logits[k].argmax()) == int(ids[k]) for k in range(7))
    assert float(restored_share(logits, ids)) == pytest.approx(right / 7)
    assert float(restored_share(logits[:0], ids[:0])) == 0


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(UsageError, match="multiple of heads"):
        DenoisingDecoder(6, heads=4)
    with pytest.raises(UsageError, match="corruption"):
        DenoisingDecoder(6, corruption=1.0)
    with pytest.raises(UsageError, match="at least 1"):
        DenoisingDecoder(6, layers=0)
