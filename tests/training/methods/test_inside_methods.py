"""PromCSE, miCSE, SG-BERT, UNSEE and SupCL-Seq on a user's texts: against the formulas by loops, and what they keep."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nearfar import encoders
from nearfar.data import Examples
from nearfar.encoders.dropout_rates import dropout_rate, dropout_rates
from nearfar.encoders.inside import Inside
from nearfar.encoders.prefix_transformer import PrefixTransformer
from nearfar.errors import ModelError, UsageError
from nearfar.recipes import registry
from nearfar.training.loading import TextBatches
from nearfar.training.method import Batch
from nearfar.training.methods.attention import AlignedAttention, aligned_layers
from nearfar.training.methods.dropout_rates import DropoutRates, read_rates
from nearfar.training.methods.prefix import SoftPrefix
from nearfar.training.methods.self_guided import SelfGuided
from nearfar.training.methods.target_network import TargetNetwork
from nearfar.training.text_training import TextMethod, TextSetting
from support.sentence_models import bert, texts

T = 0.05


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture
def encoder(folder: Path) -> Any:
    return encoders.load(folder, device="cpu").train()


def setting(encoder: Any, recipe: str, examples: Examples, **given: Any) -> TextSetting:
    training = registry.find(recipe).training
    assert training is not None
    return TextSetting(encoder, examples, {**training.options, **given}, 8, steps=4, steps_per_epoch=2, seed=3)


def of_texts(count: int = 6) -> Examples:
    return Examples.from_columns({"text": texts(count)})


def of_pairs(count: int = 4) -> Examples:
    drawn = texts(3 * count)
    columns = {"anchor": drawn[:count], "positive": drawn[count : 2 * count], "negative": drawn[2 * count :]}
    return Examples.from_columns(columns)


def labelled(count: int = 6) -> Examples:
    return Examples.from_columns({"text": texts(count), "label": [f"class {row % 2}" for row in range(count)]})


def batch_of(encoder: Any, examples: Examples) -> Batch:
    return TextBatches(encoder, examples).batch(list(range(len(examples))))


def seeded_loss(method: TextMethod, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
    torch.manual_seed(5)
    return method(batch)


def cosine(one: Tensor, other: Tensor) -> Tensor:
    return torch.cosine_similarity(one, other, dim=0)


def nce(query: Tensor, key: Tensor) -> Tensor:
    costs = []
    for i in range(len(query)):
        scores = torch.stack([cosine(query[i], each) / T for each in key])
        costs.append(scores.exp().sum().log() - scores[i])
    return torch.stack(costs).mean()


def steps(method: TextMethod, batch: Batch, *, rate: float = 3e-3, count: int = 3) -> list[float]:
    optimizer = torch.optim.AdamW([each for each in method.parameters() if each.requires_grad], lr=rate)
    losses = []
    for step in range(1, count + 1):
        loss, _ = method(batch)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step(step)
    return losses


# -- PromCSE ----------------------------------------------------------------------------------------------------------


def test_promcse_trains_prefix_and_head_alone_by_infonce(encoder: Any) -> None:
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    examples = of_texts()
    method = SoftPrefix(setting(encoder, "promcse", examples, length=3)).train()
    trained = [name for name, each in method.named_parameters() if each.requires_grad]
    assert trained == ["encoder.0.prefix.table", "head.dense.weight", "head.dense.bias"]
    batch = batch_of(encoder, examples)
    loss, logs = seeded_loss(method, batch)
    torch.manual_seed(5)
    views = torch.tanh(method.head.dense(encoder(dict(batch["chunks"][0]))["sentence_embedding"]))
    torch.testing.assert_close(loss, nce(views[:6], views[6:]))
    assert float(logs["prefix length"]) > 0
    steps(method, batch, rate=3e-2)
    assert all(torch.equal(value, encoder.state_dict()[name]) for name, value in before.items())


def test_promcse_has_a_hinge_for_pairs(encoder: Any) -> None:
    examples = of_pairs()
    method = SoftPrefix(setting(encoder, "promcse", examples, margin=0.3, hinge=2.0)).eval()
    batch = batch_of(encoder, examples)
    loss, _ = method(batch)
    a, p, n = encoder(dict(batch["chunks"][0]))["sentence_embedding"].chunk(3)
    hinge = [
        (
            0.3
            - cosine(a[i], p[i])
            + torch.stack([cosine(a[i], p[j]) for j in range(4) if j != i] + [cosine(a[i], each) for each in n]).max()
        ).relu()
        for i in range(4)
    ]
    torch.testing.assert_close(loss, nce(a, torch.cat([p, n])) + 2.0 * torch.stack(hinge).mean())


def test_promcse_is_saved_with_its_prefix(encoder: Any, tmp_path: Path) -> None:
    examples = of_texts()
    method = SoftPrefix(setting(encoder, "promcse", examples, length=3)).train()
    steps(method, batch_of(encoder, examples), rate=0.5, count=4)
    sentences = texts(5, seed=9)
    expected = encoders.encode(encoder, sentences)
    encoders.save(encoder, tmp_path / "saved")
    again = encoders.load(tmp_path / "saved", device="cpu")
    assert isinstance(again[0], PrefixTransformer)
    assert (encoders.encode(again, sentences) == expected).all()
    again[0].prefix.table.data.zero_()
    assert abs(encoders.encode(again, sentences) - expected).max() > 1e-4


# -- miCSE ------------------------------------------------------------------------------------------------------------


def test_micse_by_loops(encoder: Any) -> None:
    """Contrast, and for each sentence, head and parity the correlation of logarithms of what is left of both maps."""
    # of one length and without dropout on attention all entries are left
    examples = Examples.from_columns({"text": texts(5, least=4, most=4)})
    method = AlignedAttention(setting(encoder, "micse", examples, weight=0.7, samples=36)).train()
    assert method.aligned == range(2)
    for layer in encoder[0].auto_model.encoder.layer:
        layer.attention.self.dropout.p = 0.0
    batch = batch_of(encoder, examples)
    loss, logs = seeded_loss(method, batch)
    torch.manual_seed(5)
    inside, features, n = Inside(encoder), batch["chunks"][0], 5
    states = inside.states(features["input_ids"], features["attention_mask"], attentions=True)
    views = torch.tanh(method.head.dense(inside.pool(states)))
    assert states.attentions is not None
    information = []
    for sentence in range(n):
        for head in range(2):
            for layer in range(2):
                x, y = (states.attentions[layer][sentence + side, head].flatten().double().log() for side in (0, n))
                x, y = x - x.mean(), y - y.mean()
                rho = (x * y).sum() / (x.norm() * y.norm())
                information.append(-0.5 * (1 - rho**2).log())
    expected = nce(views[:n], views[n:]) - 0.7 * torch.stack(information).mean()
    torch.testing.assert_close(loss, expected.float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logs["attention term"], -torch.stack(information).mean().float(), rtol=1e-4, atol=1e-5)


def test_micse_learns_through_the_maps(encoder: Any) -> None:
    """Queries and keys of both layers get a gradient of the attention term; texts of several lengths."""
    examples = of_texts()
    method = AlignedAttention(setting(encoder, "micse", examples, weight=1.0, temperature=1e6)).train()
    steps_before = [layer.attention.self.query.weight.clone() for layer in encoder[0].auto_model.encoder.layer]
    losses = steps(method, batch_of(encoder, examples), count=20)
    assert sum(losses[-5:]) < sum(losses[:5])
    for layer, before in zip(encoder[0].auto_model.encoder.layer, steps_before, strict=True):
        assert not torch.equal(layer.attention.self.query.weight, before)


@pytest.mark.parametrize(
    ("depth", "expected"), [(2, [0, 1]), (3, [1, 2]), (4, [2, 3]), (6, [3, 4]), (12, [7, 8, 9, 10])]
)
def test_the_papers_place_in_other_depths(depth: int, expected: list[int]) -> None:
    assert list(aligned_layers(depth)) == expected


@pytest.mark.parametrize("depth", range(2, 49))
def test_layers_are_always_an_even_number_that_there_are(depth: int) -> None:
    chosen = list(aligned_layers(depth))
    assert len(chosen) % 2 == 0
    assert 0 <= chosen[0] <= chosen[-1] < depth


def test_micse_layers_of_ones_own(encoder: Any) -> None:
    assert AlignedAttention(setting(encoder, "micse", of_texts(), first_layer=1, last_layer=2)).aligned == range(2)
    for first, last in ((1, 1), (2, 3), (0, 2), (2, 1)):
        with pytest.raises(UsageError, match="cannot be aligned: there are 2"):
            AlignedAttention(setting(encoder, "micse", of_texts(), first_layer=first, last_layer=last))
    with pytest.raises(UsageError, match="two layers of attention"):
        aligned_layers(1)


# -- SG-BERT ----------------------------------------------------------------------------------------------------------


def test_sg_bert_by_loops(encoder: Any) -> None:
    examples = of_texts(4)
    method = SelfGuided(setting(encoder, "sg-bert", examples, temperature=T, width=8, distance=0.5)).train()
    batch = batch_of(encoder, examples)
    steps(method, batch, count=2)
    loss, logs = seeded_loss(method, batch)
    features = batch["chunks"][0]
    ids, mask = features["input_ids"][:4], features["attention_mask"][:4].bool()
    torch.manual_seed(5)
    c = method.head(Inside(encoder).pool(Inside(encoder).states(ids, mask)))
    guide: Any = method.guide.eval()
    layers = guide[0].auto_model(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True).hidden_states
    h = [[method.head(layer[i][mask[i]].mean(0)) for layer in layers] for i in range(4)]
    costs = []
    for i in range(4):
        others = sum((cosine(c[i], h[m][k]) / T).exp() for m in range(4) if m != i for k in range(3))
        for k in range(3):
            own = (cosine(c[i], h[i][k]) / T).exp()
            costs.append(-(own / (own + others)).log())
    with torch.no_grad():
        pairs = zip(encoder.parameters(), guide.parameters(), strict=True)
        apart = sum(float((p - q).square().sum()) for p, q in pairs)
    assert apart > 0
    torch.testing.assert_close(logs["contrast"], torch.stack(costs).mean().detach())
    assert float(loss.detach()) == pytest.approx(float(torch.stack(costs).detach().mean()) + 0.5 * apart, rel=1e-5)


def test_sg_bert_freezes_copy_and_embeddings(encoder: Any) -> None:
    examples = of_texts(5)
    method = SelfGuided(setting(encoder, "sg-bert", examples, width=8)).train()
    assert encoder.training
    assert not any(part.training for part in method.guide.modules())
    copied = {name: value.clone() for name, value in method.guide.state_dict().items()}
    begun = {name: value.clone() for name, value in encoder.state_dict().items()}
    steps(method, batch_of(encoder, examples), count=3)
    assert all(torch.equal(value, method.guide.state_dict()[name]) for name, value in copied.items())
    changed = {name for name, value in encoder.state_dict().items() if not torch.equal(value, begun[name])}
    assert changed
    assert not any(".embeddings." in name for name in changed)
    free = SelfGuided(setting(encoder, "sg-bert", examples, width=8, freeze_embeddings=False))
    assert free.encoder is encoder


@pytest.mark.parametrize("variant", ["sg", "opt1", "opt2"])
def test_sg_bert_variants_take_one_layer_each(encoder: Any, variant: str) -> None:
    examples = of_texts(5)
    method = SelfGuided(setting(encoder, "sg-bert", examples, variant=variant, width=8)).train()
    batch = batch_of(encoder, examples)
    first, again = seeded_loss(method, batch)[0], seeded_loss(method, batch)[0]
    assert torch.equal(first, again)
    torch.manual_seed(6)
    assert not torch.equal(method(batch)[0], first)


def test_sg_bert_needs_an_embedding_as_wide_as_its_layers(encoder: Any) -> None:
    from nearfar.encoders.sentence_modules import module_class

    encoder.append(module_class("Dense")(16, 8))
    with pytest.raises(ModelError, match="8 dimensions, the layers have 16"):
        SelfGuided(setting(encoder, "sg-bert", of_texts()))


# -- UNSEE ------------------------------------------------------------------------------------------------------------


def test_unsee_by_loops_and_its_target_moves(encoder: Any) -> None:
    examples = of_texts()
    options = {"form": "byol", "momentum": 0.9, "predictor_blocks": 1, "predictor_factor": 2.0}
    method = TargetNetwork(setting(encoder, "unsee", examples, **options)).train()
    batch = batch_of(encoder, examples)
    steps(method, batch, count=2)
    loss, _ = seeded_loss(method, batch)
    copied: Any = method.target.module
    torch.manual_seed(5)
    features = batch["chunks"][0]
    online = encoder(dict(features))["sentence_embedding"]
    target = copied(dict(features))["sentence_embedding"].detach()
    p1, p2 = (method.objective.predictor(view) for view in online.chunk(2))
    costs = [2 - 2 * cosine(p, t) for p, t in zip(torch.cat([p1, p2]), target.roll(-6, 0), strict=True)]
    torch.testing.assert_close(loss, 2 * torch.stack(costs).mean())
    before = [each.clone() for each in copied.parameters()]
    method.after_step(3)
    for old, new, followed in zip(before, copied.parameters(), encoder.parameters(), strict=True):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * followed)
    assert not any(each.requires_grad for each in copied.parameters())
    assert copied.training  # its dropout is on, as in the official code


@pytest.mark.parametrize(("form", "blocks"), [("vicreg", 4), ("barlow-twins", 4), ("corinfomax", 4), ("byol", 3)])
def test_unsee_forms_and_their_predictors(encoder: Any, form: str, blocks: int) -> None:
    examples = of_texts(8)
    method = TargetNetwork(setting(encoder, "unsee", examples, form=form, predictor_factor=1.0)).train()
    assert sum(isinstance(part, nn.BatchNorm1d) for part in method.objective.modules()) == blocks
    losses = steps(method, batch_of(encoder, examples), rate=1e-3, count=3)
    assert all(math.isfinite(loss) for loss in losses)
    with pytest.raises(UsageError, match="no form"):
        TargetNetwork(setting(encoder, "unsee", examples, form="simclr", predictor_factor=1.0))


# -- SupCL-Seq --------------------------------------------------------------------------------------------------------


def test_supcl_seq_by_loops(encoder: Any) -> None:
    examples = labelled()
    method = DropoutRates(setting(encoder, "supcl-seq", examples, rates="0 0.3")).train()
    batch = batch_of(encoder, examples)
    loss, _ = seeded_loss(method, batch)
    torch.manual_seed(5)
    features, views = batch["chunks"][0], []
    views.append(encoder(dict(features))["sentence_embedding"])
    for rate in (0.0, 0.3):
        with dropout_rate(encoder, rate):
            views.append(encoder(dict(features))["sentence_embedding"])
    f = torch.nn.functional.normalize(torch.cat(views))
    label = [row % 2 for row in range(6)] * 3
    costs = []
    for a in range(18):
        others = [q for q in range(18) if q != a]
        total = sum((f[a] @ f[q] / 0.05).exp() for q in others)
        near = [p for p in others if label[p] == label[a]]
        costs.append(-sum(f[a] @ f[p] / 0.05 - total.log() for p in near) / len(near))
    torch.testing.assert_close(loss, 0.05 / 0.07 * torch.stack(costs).mean(), rtol=1e-5, atol=1e-5)
    assert set(dropout_rates(encoder)) == {0.1}


@pytest.mark.parametrize("rates", ["", "0.1, much", "1.0", "-0.1", "nan"])
def test_what_is_no_list_of_rates(rates: str) -> None:
    with pytest.raises(UsageError, match=r"numbers in \[0, 1\)"):
        read_rates(rates)


def test_views_that_would_be_the_same(folder: Path, tmp_path: Path, encoder: Any) -> None:
    with pytest.raises(UsageError, match="2 views have no dropout"):
        DropoutRates(setting(encoder, "supcl-seq", labelled(), rates="0, 0.1, 0"))
    still = encoders.load(bert(tmp_path / "still", dropout=0.0), device="cpu")
    with pytest.raises(UsageError, match="2 views have no dropout"):
        DropoutRates(setting(still, "supcl-seq", labelled()))
    assert list(DropoutRates(setting(encoder, "supcl-seq", labelled())).rates) == [0.0, 0.05, 0.2]
