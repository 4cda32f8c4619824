"""SimCSE, DCLR, ClusterNS and CompCSE on a user's texts: against the formulas by loops, and what they keep."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nearfar import encoders
from nearfar.data import Examples
from nearfar.encoders.inside import Inside
from nearfar.errors import ModelError, UsageError
from nearfar.recipes import registry
from nearfar.training.loading import TextBatches
from nearfar.training.method import Batch
from nearfar.training.methods.dropout import ClusteredContrast, ComposedHalves, DebiasedContrast, SimCSE
from nearfar.training.text_training import TextMethod, TextSetting
from nearfar.views.text.halves import halves
from support.sentence_models import WORDS, bert, texts

T = 0.05


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("dropout") / "bert", masked_lm=True)


@pytest.fixture
def encoder(folder: Path) -> Any:
    return encoders.load(folder, device="cpu")


def setting(encoder: Any, recipe: str, examples: Examples, *, batch_size: int = 8, **given: Any) -> TextSetting:
    training = registry.find(recipe).training
    assert training is not None
    source = given.pop("source", None)
    options = {**training.options, **given}
    return TextSetting(encoder, examples, options, batch_size, steps=4, steps_per_epoch=2, seed=3, source=source)


def of_texts(count: int = 8) -> Examples:
    return Examples.from_columns({"text": texts(count)})


def of_pairs(count: int = 6, negatives: int = 2) -> Examples:
    drawn = texts(count * (2 + negatives))
    columns = {"anchor": drawn[:count], "positive": drawn[count : 2 * count]}
    for number in range(negatives):
        columns[f"negative_{number + 1}"] = drawn[(2 + number) * count : (3 + number) * count]
    return Examples.from_columns(columns)


def batch_of(encoder: Any, examples: Examples, rows: list[int] | None = None) -> Batch:
    return TextBatches(encoder, examples).batch(list(range(len(examples))) if rows is None else rows)


def cosines(one: Tensor, other: Tensor) -> Tensor:
    return torch.stack([torch.stack([torch.cosine_similarity(a, b, dim=0) for b in other]) for a in one])


def nce(query: Tensor, key: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over i of ``-log(exp(s_ii / T) / sum_j w_ij exp(s_ij / T))``, by loops."""
    scores, costs = cosines(query, key), []
    for i in range(len(query)):
        total = sum((1.0 if weights is None else weights[i, j]) * (scores[i, j] / T).exp() for j in range(len(key)))
        costs.append(-((scores[i, i] / T).exp() / total).log())
    return torch.stack(costs).mean()


def embeddings_of(rows: int, columns: int, dimension: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows * columns, dimension, generator=generator, dtype=torch.float64, requires_grad=True)


def close(found: Tensor, expected: Tensor, *leaves: Tensor) -> None:
    """Equal values, and equal gradients with respect to the leaves."""
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)
    for one, other in zip(
        torch.autograd.grad(found, leaves, retain_graph=True), torch.autograd.grad(expected, leaves), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


def test_simcse_on_texts_contrasts_the_views_behind_its_head(encoder: Any) -> None:
    examples = of_texts()
    method = SimCSE(setting(encoder, "simcse", examples)).double()
    embeddings = embeddings_of(8, 2)
    loss, _ = method.contrast(embeddings, batch_of(encoder, examples))
    projected = torch.tanh(embeddings @ method.head.dense.weight.T + method.head.dense.bias)  # type: ignore[union-attr]
    close(loss, nce(projected[:8], projected[8:]), embeddings, method.head.dense.weight)  # type: ignore[union-attr]


def test_equal_texts_are_no_negatives(encoder: Any) -> None:
    drawn = texts(5)
    examples = Examples.from_columns({"text": [drawn[0], *drawn]})
    method = SimCSE(setting(encoder, "simcse", examples)).double()
    embeddings = embeddings_of(6, 2)
    weights = torch.ones(6, 6)
    weights[0, 1] = weights[1, 0] = 0
    projected = method.head(embeddings)
    loss, _ = method.contrast(embeddings, batch_of(encoder, examples))
    close(loss, nce(projected[:6], projected[6:], weights), embeddings)


@pytest.mark.parametrize("weight", [1.0, 3.0, 0.0])
def test_simcse_on_pairs_weighs_an_anchors_own_hard_negatives(encoder: Any, weight: float) -> None:
    examples = of_pairs()
    method = SimCSE(setting(encoder, "simcse", examples, hard_negative_weight=weight)).double()
    assert isinstance(method.head, nn.Identity)
    embeddings = embeddings_of(6, 4)
    weights = torch.ones(6, 18, dtype=torch.float64)
    for i in range(6):
        weights[i, 6 + i] = weights[i, 12 + i] = weight
    loss, _ = method.contrast(embeddings, batch_of(encoder, examples))
    close(loss, nce(embeddings[:6], embeddings[6:], weights), embeddings)
    # pairs alone
    plain = of_pairs(negatives=0)
    loss, _ = SimCSE(setting(encoder, "simcse", plain)).double().contrast(embeddings[:12], batch_of(encoder, plain))
    close(loss, nce(embeddings[:6], embeddings[6:12]), embeddings)


def test_views_differ_while_the_method_trains_and_only_then(encoder: Any) -> None:
    examples = of_texts()
    method = SimCSE(setting(encoder, "simcse", examples))
    batch = batch_of(encoder, examples)
    method.train()
    method(batch)
    assert method.embeddings is not None
    assert not torch.equal(*method.embeddings.chunk(2))
    method.eval()
    method(batch)
    torch.testing.assert_close(*method.embeddings.chunk(2))


def test_masked_language_modelling_is_added(encoder: Any, folder: Path) -> None:
    examples = of_texts()
    plain = SimCSE(setting(encoder, "simcse", examples)).eval()
    method = SimCSE(setting(encoder, "simcse", examples, mlm_weight=0.5, source=folder)).eval()
    plain.head.load_state_dict(method.head.state_dict())
    batch = batch_of(encoder, examples)
    torch.manual_seed(4)
    loss, logs = method(batch)
    assert float(loss.detach()) == pytest.approx(
        float(plain(batch)[0].detach()) + 0.5 * float(logs["masked language"]), abs=1e-5
    )
    # a head of random weights finds all words about equally likely
    assert abs(float(logs["masked language"]) - math.log(len(WORDS) + 5)) < 0.5
    loss.backward()
    table = encoder[0].auto_model.get_input_embeddings().weight
    # the table is the head's too: words that are in no text are pushed away
    unseen = torch.ones(len(table), dtype=torch.bool)
    unseen[batch["chunks"][0]["input_ids"].unique()] = False
    assert bool((table.grad[unseen].abs().sum(1) > 0).all())
    with pytest.raises(ModelError, match="masked tokens"):
        SimCSE(setting(encoder, "simcse", examples, mlm_weight=0.5))
    with pytest.raises(UsageError, match="at least 0"):
        SimCSE(setting(encoder, "simcse", examples, mlm_weight=-1.0))


def test_dclr_leaves_out_what_its_second_model_finds_similar(encoder: Any) -> None:
    drawn = texts(5)
    shuffled = " ".join(reversed(drawn[0].split()))
    examples = Examples.from_columns({"text": [drawn[0], shuffled, *drawn[1:]]})
    method = DebiasedContrast(setting(encoder, "dclr", examples, threshold=0.98, noise=0.0)).double()
    seen = torch.from_numpy(encoders.encode(method.complement, examples.take(range(6))["text"]))
    alike = cosines(seen, seen) >= 0.98
    alike.fill_diagonal_(False)
    assert 2 <= int(alike.sum()) < 30, "the test needs some similar texts and some that are not"
    embeddings = embeddings_of(6, 2)
    loss, logs = method.contrast(embeddings, batch_of(encoder, examples))
    projected = method.head(embeddings)
    close(loss, nce(projected[:6], projected[6:], (~alike).double()), embeddings)
    assert float(logs["negatives left out"]) == pytest.approx(float(alike.double().sum() / 30))
    # nothing of a flagged pair reaches the embeddings
    (gradient,) = torch.autograd.grad(method.contrast(embeddings, batch_of(encoder, examples, None))[0], embeddings)
    assert bool(gradient.abs().sum(1).gt(0).all())


def test_dclr_without_threshold_and_noise_is_simcse(encoder: Any) -> None:
    examples = of_texts()
    debiased = DebiasedContrast(setting(encoder, "dclr", examples, threshold=1.5, noise=0.0)).double()
    simcse = SimCSE(setting(encoder, "simcse", examples)).double()
    simcse.head.load_state_dict(debiased.head.state_dict())
    embeddings, batch = embeddings_of(8, 2), batch_of(encoder, examples)
    close(debiased.contrast(embeddings, batch)[0], simcse.contrast(embeddings, batch)[0], embeddings)


def test_dclr_adds_noise_that_was_pushed_uphill(encoder: Any) -> None:
    examples = of_texts()
    batch, embeddings = batch_of(encoder, examples), embeddings_of(8, 2)
    lost = []
    for steps in (0, 30):
        method = DebiasedContrast(
            setting(encoder, "dclr", examples, threshold=1.5, noise=2.5, noise_steps=steps, noise_step_size=0.1)
        ).double()
        method.head = nn.Identity()
        torch.manual_seed(7)
        noise = torch.randn(20, 16, dtype=torch.float64)
        torch.manual_seed(7)
        lost.append(method.contrast(embeddings, batch)[0])
        if not steps:
            close(lost[0], nce(embeddings[:8], torch.cat([embeddings[8:], noise])), embeddings)
    assert float(lost[1].detach()) > float(lost[0].detach()) + 0.01


def test_dclrs_second_model_stays_as_it_was_and_may_be_another(encoder: Any, tmp_path: Path) -> None:
    examples = of_texts()
    method = DebiasedContrast(setting(encoder, "dclr", examples)).train()
    assert method.encoder.training
    assert not method.complement.training
    before = [each.clone() for each in method.complement.parameters()]
    steps(method, batch_of(encoder, examples), rate=0.1)
    for one, other in zip(before, method.complement.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not any("complement" in name for name, each in method.named_parameters() if each.requires_grad)
    # of another model, with another tokenizer and other dimensions
    other_folder = bert(tmp_path / "other", words=WORDS[::-1], dimension=8, seed=5)
    other = DebiasedContrast(setting(encoder, "dclr", examples, complement=str(other_folder), threshold=0.9))
    seen = torch.from_numpy(encoders.encode(encoders.load(other_folder, device="cpu"), examples.take(range(8))["text"]))
    share = ((seen @ seen.T >= 0.9).sum() - 8) / 56
    _, logs = other(batch_of(encoder, examples))
    assert float(logs["negatives left out"]) == pytest.approx(float(share))
    with pytest.raises(ModelError):
        DebiasedContrast(setting(encoder, "dclr", examples, complement=str(tmp_path / "nowhere")))
    with pytest.raises(UsageError, match="at least 0"):
        DebiasedContrast(setting(encoder, "dclr", examples, noise=-1.0))


def test_clusterns_is_simcse_until_its_memory_starts(encoder: Any) -> None:
    examples = of_texts()
    method = ClusteredContrast(setting(encoder, "clusterns", examples, clusters=4, weight=2.0)).double().train()
    simcse = SimCSE(setting(encoder, "simcse", examples)).double()
    method.head = simcse.head = nn.Identity()
    batch, apart = batch_of(encoder, examples), embeddings_of(8, 2)
    narrow = (apart + 10).detach().requires_grad_()
    close(method.contrast(narrow, batch)[0], simcse.contrast(narrow, batch)[0], narrow)
    assert not method.clusters.started
    # too small a batch does not start it
    small = batch_of(encoder, examples, [0, 1, 2])
    method.contrast(embeddings_of(3, 2), small)
    assert not method.clusters.started
    close(method.contrast(apart, batch)[0], simcse.contrast(apart, batch)[0], apart)
    assert method.clusters.started

    # from then on by the formula: centroids moved, the second-nearest a hard negative, cluster mates bounded
    expected_memory = ClusteredContrast(setting(encoder, "clusterns", examples, clusters=4)).double().clusters
    expected_memory.load_state_dict(method.clusters.state_dict())
    loss, logs = method.contrast(apart, batch)
    z1, z2 = apart[:8], apart[8:]
    expected_memory.update(z1)
    centroids = expected_memory.centroids
    near = cosines(z1.detach(), centroids)
    order = near.argsort(1, descending=True)
    hard = centroids[order[:, 1]]
    scores, bound, together = cosines(z1, z2), torch.zeros((), dtype=torch.float64), 0
    for i in range(8):
        for j in range(8):
            if i != j and order[i, 0] == order[j, 0]:
                together += 1
                d = scores[i, j] - scores[i, i]
                bound = bound + (d + 0.0).clamp_min(0) + (-d - 0.3).clamp_min(0)
    assert together
    close(loss, nce(z1, torch.cat([z2, hard])) + 2.0 * bound / 64, apart)
    assert float(logs["pairs of one cluster"]) == pytest.approx(together / 56)


def test_clusterns_keeps_its_clusters_in_evaluation_and_over_a_resume(encoder: Any) -> None:
    examples = of_texts()
    method = ClusteredContrast(setting(encoder, "clusterns", examples, clusters=3, start_at=1.0)).train()
    batch = batch_of(encoder, examples)
    method(batch)
    assert method.clusters.started
    before = method.clusters.centroids.clone()
    method.eval()(batch)
    assert torch.equal(before, method.clusters.centroids)
    again = ClusteredContrast(setting(encoder, "clusterns", examples, clusters=3))
    again.load_state_dict(method.state_dict())
    assert again.clusters.started
    assert torch.equal(again.clusters.centroids, before)


def test_clusterns_needs_a_batch_as_large_as_its_clusters(encoder: Any) -> None:
    with pytest.raises(UsageError, match="which has 8") as raised:
        ClusteredContrast(setting(encoder, "clusterns", of_texts(), clusters=9, batch_size=64))
    assert raised.value.hint is not None
    assert "clusters=4" in raised.value.hint
    ClusteredContrast(setting(encoder, "clusterns", of_texts(), clusters=8))


@pytest.mark.parametrize("compose", ["avg", "max", "cat-first-last"])
def test_compcse_contrasts_a_text_with_its_composed_halves(encoder: Any, compose: str) -> None:
    examples = of_texts()
    method = ComposedHalves(setting(encoder, "compcse", examples, compose=compose, width=6)).double().eval()
    batch = batch_of(encoder, examples)
    torch.manual_seed(11)
    loss, _ = method(batch)
    torch.manual_seed(11)
    ids = batch["chunks"][0]["input_ids"][:8]
    inside = Inside(encoder)
    parts, there = halves(ids, inside.special)
    whole, left, right = (
        encoder({"input_ids": each, "attention_mask": mask.long()})["sentence_embedding"]
        for each, mask in (
            (ids, ids != 0),
            (parts[:, 0], there[:, 0]),
            (parts[:, 1], there[:, 1]),
        )
    )
    composed = {
        "avg": (left + right) / 2,
        "max": torch.maximum(left, right),
        "cat-first-last": torch.cat([left[:, :8], right[:, 8:]], 1),
    }[compose]
    head = method.objective.head
    expected = nce(head(whole)[:, :6], head(composed)[:, :6])
    torch.testing.assert_close(loss, expected, atol=1e-9, rtol=1e-9)
    # composed before the head, not after it
    after = nce(head(whole)[:, :6], (head(left) + head(right))[:, :6] / 2)
    assert abs(float((after - expected).detach())) > 1e-4
    loss.backward()
    assert encoder[0].auto_model.get_input_embeddings().weight.grad is not None


def test_compcse_cuts_to_a_third_by_default_and_refuses_too_many(encoder: Any) -> None:
    assert ComposedHalves(setting(encoder, "compcse", of_texts())).objective.width == 5
    with pytest.raises(UsageError, match="beyond the 16"):
        ComposedHalves(setting(encoder, "compcse", of_texts(), width=17))


METHODS = {"simcse": SimCSE, "dclr": DebiasedContrast, "clusterns": ClusteredContrast, "compcse": ComposedHalves}


@pytest.mark.parametrize("name", METHODS)
def test_a_few_steps_bring_the_loss_down_and_draw_from_torch_alone(folder: Path, name: str) -> None:
    examples = of_texts(24)

    def run() -> list[float]:
        encoder = encoders.load(folder, device="cpu")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            given = {"clusters": 6} if name == "clusterns" else {}
            method = METHODS[name](setting(encoder, name, examples, batch_size=24, **given))
            return steps(method.train(), batch_of(encoder, examples), count=25)

    losses = run()
    assert sum(losses[-5:]) < sum(losses[:5])
    assert run() == losses


def steps(method: TextMethod, batch: Batch, *, rate: float = 3e-3, count: int = 3) -> list[float]:
    optimizer = torch.optim.AdamW([each for each in method.parameters() if each.requires_grad], lr=rate)
    losses = []
    for step in range(count):
        loss, _ = method(batch)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step(step + 1)
    return losses


@pytest.mark.parametrize("name", ["simcse", "dclr", "clusterns"])
def test_cached_gradients_are_those_of_the_whole_batch(encoder: Any, name: str) -> None:
    examples = of_texts(12)
    given = {"clusters": 4, "start_at": 1.0} if name == "clusterns" else {}
    method = METHODS[name](setting(encoder, name, examples, batch_size=12, **given)).eval()
    whole, chunked = TextBatches(encoder, examples), TextBatches(encoder, examples, chunk_size=5)

    def gradients(batches: TextBatches, size: int | None) -> tuple[float, dict[str, Tensor]]:
        method.chunk_size = size
        method.zero_grad()
        torch.manual_seed(2)
        loss, _ = method(batches.batch(range(12)))
        loss.backward()
        return float(loss.detach()), {n: p.grad for n, p in method.named_parameters() if p.grad is not None}

    value, plain = gradients(whole, None)
    cached_value, cached = gradients(chunked, 5)
    assert value == pytest.approx(cached_value, abs=1e-4)
    assert plain.keys() == cached.keys()
    for each in plain:
        torch.testing.assert_close(plain[each], cached[each], atol=2e-4, rtol=1e-3)
