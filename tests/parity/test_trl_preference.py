"""Beside TRL: its trainers' losses on log-probabilities that a stand-in for the model returns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch import Tensor
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_trainer import KTOTrainer

from nearfar.objectives import KTO, ORPO, PreferenceObjective, get
from nearfar.objectives.likelihood import sequence_log_probability

N, TOKENS = 6, 9


class Batch:
    """Token log-probabilities ``[n, t]`` of chosen and rejected responses, and summed ones of a reference."""

    def __init__(self, seed: int, dtype: torch.dtype = torch.float64) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.tokens = -torch.rand(2 * N, TOKENS, generator=generator, dtype=torch.float64).to(dtype) * 3
        self.tokens.requires_grad_()
        length = torch.randint(2, TOKENS + 1, (2 * N,), generator=generator)
        self.mask = torch.arange(TOKENS)[None, :] < length[:, None]
        self.reference = -torch.rand(2 * N, generator=generator, dtype=torch.float64).to(dtype) * 15

    @property
    def policy(self) -> tuple[Tensor, Tensor]:
        chosen, rejected = sequence_log_probability(self.tokens, self.mask).chunk(2)
        return chosen, rejected

    @property
    def more(self) -> dict[str, Tensor]:
        lengths = self.mask.sum(1)
        return {
            "reference_chosen": self.reference[:N], "reference_rejected": self.reference[N:],
            "chosen_length": lengths[:N], "rejected_length": lengths[N:],
        }  # fmt: skip


def _stand_in(**settings: Any) -> Any:
    """What a trainer's loss reads of the trainer; values are passed through its accelerator as they are."""
    accelerator = MagicMock()
    accelerator.device = torch.device("cpu")
    accelerator.gather = accelerator.gather_for_metrics = lambda value: value
    return SimpleNamespace(
        accelerator=accelerator, model=SimpleNamespace(training=False), aux_loss_enabled=False, ld_alpha=None,
        precompute_ref_logps=True, use_weighting=False, loss_weights=[1.0], _metrics=MagicMock(), _total_train_tokens=0,
        _tp_size=1, f_divergence_type="reverse_kl", f_alpha_divergence_coef=0.5, label_smoothing=0.0,
        args=SimpleNamespace(discopop_tau=0.05), **settings,
    )  # fmt: skip


def _output(tokens: Tensor, mask: Tensor) -> Any:
    silent = torch.zeros_like(tokens)
    return SimpleNamespace(log_probs=tokens * mask, entropy=silent, mean_logits=silent, is_top1=silent.bool())


def _dpo(batch: Batch, loss_type: str, beta: float, **settings: Any) -> Tensor:
    prompt = torch.zeros(2 * N, 1, dtype=torch.long)
    inputs = {
        "input_ids": torch.ones(2 * N, TOKENS + 1, dtype=torch.long),
        "attention_mask": torch.ones(2 * N, TOKENS + 1, dtype=torch.long),
        "completion_mask": torch.cat([prompt, batch.mask.long()], 1),
        "ref_chosen_logps": batch.reference[:N],
        "ref_rejected_logps": batch.reference[N:],
    }
    trainer = _stand_in(beta=beta, loss_types=[loss_type])
    for name, value in settings.items():
        setattr(trainer, name, value)
    loss: Tensor = DPOTrainer._compute_loss(trainer, lambda **_: _output(batch.tokens, batch.mask), inputs, False)
    return loss


def _assert_equal(found: Tensor, expected: Tensor, value: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    one, other = (torch.autograd.grad(loss, value, retain_graph=True)[0] for loss in (found, expected))
    torch.testing.assert_close(one, other, rtol=10 * tolerance, atol=tolerance / 10)
    assert other.norm() > 1e-6


@pytest.mark.parametrize(
    ("loss_type", "settings", "objective"),
    [
        ("sigmoid", {}, get("dpo", beta=0.3)),
        ("sigmoid_norm", {}, get("dpo", beta=0.3, tokens="mean")),
        ("sigmoid", {"f_divergence_type": "js_divergence"}, get("dpo", beta=0.3, divergence="jensen-shannon")),
        ("sigmoid", {"f_divergence_type": "forward_kl"}, get("dpo", beta=0.3, divergence="forward-kl")),
        ("robust", {"label_smoothing": 0.2}, get("dpo", beta=0.3, label_smoothing=0.2, robust=True)),
        ("hinge", {}, get("hinge", beta=0.3)),
        ("ipo", {}, get("ipo", beta=0.3, tokens="mean")),
        ("exo_pair", {"label_smoothing": 0.25}, get("exo", beta=0.3, label_smoothing=0.25)),
        ("nca_pair", {}, get("nca-pair", beta=0.3)),
        ("bco_pair", {}, get("bco-pair", beta=0.3)),
        ("sppo_hard", {}, get("sppo", beta=0.3)),
        ("aot", {"label_smoothing": 0.1}, get("aot", beta=0.3, label_smoothing=0.1)),
        ("aot_unpaired", {}, get("aot", beta=0.3, paired=False)),
        ("apo_zero", {}, get("apo-zero", beta=0.3)),
        ("apo_down", {}, get("apo-down", beta=0.3)),
        ("discopop", {}, get("discopop", beta=0.3)),
    ],
)
def test_dpo_trainer(loss_type: str, settings: dict[str, Any], objective: PreferenceObjective) -> None:
    for seed in (0, 1):
        batch = Batch(seed)
        found = objective(*batch.policy, **batch.more)
        # TRL takes the logarithms of EXO's label smoothing in float32
        tolerance = 1e-7 if loss_type == "exo_pair" else 1e-9
        _assert_equal(found, _dpo(batch, loss_type, 0.3, **settings), batch.tokens, tolerance)


@pytest.mark.parametrize("coefficient", [0.7, 0.0, 1.0, 1.4, -0.5])
def test_alpha_divergence_has_another_coefficient(coefficient: float) -> None:
    """TRL's is 1 - alpha; it computes in float32."""
    batch = Batch(2, torch.float32)
    found = get("dpo", divergence="alpha", alpha=1 - coefficient)(*batch.policy, **batch.more)
    expected = _dpo(batch, "sigmoid", 0.1, f_divergence_type="alpha_divergence", f_alpha_divergence_coef=coefficient)
    _assert_equal(found, expected, batch.tokens, 1e-5)


def test_likelihood_beside_dpo() -> None:
    """TRL's "sft" beside "sigmoid" is the likelihood pooled over the batch."""
    batch = Batch(3)
    found = get("dpo-nll", likelihood="pooled", likelihood_weight=0.4)(*batch.policy, **batch.more)
    expected = _dpo(batch, "sigmoid", 0.1) + 0.4 * _dpo(batch, "sft", 0.1)
    _assert_equal(found, expected, batch.tokens)


@pytest.mark.parametrize("loss_type", ["kto", "apo_zero_unpaired"])
def test_kto_trainer(loss_type: str) -> None:
    batch = Batch(4)
    generator = torch.Generator().manual_seed(5)
    desirable = torch.rand(2 * N, generator=generator) < 0.4
    mismatched = -torch.rand(2 * N, generator=generator, dtype=torch.float64) * 9
    ids = torch.ones(2 * N, TOKENS + 1, dtype=torch.long)
    inputs = {
        "input_ids": ids, "attention_mask": ids, "label": desirable, "ref_logps": batch.reference,
        "completion_mask": torch.cat([torch.zeros_like(ids[:, :1]), batch.mask.long()], 1),
        "ref_KL_logps": mismatched - 2.0,
    }  # fmt: skip
    trainer = _stand_in(
        beta=0.3, loss_type=loss_type, calculate_KL=loss_type == "kto", desirable_weight=1.2, undesirable_weight=0.9,
        _compute_kl_logps=lambda model, given: mismatched,
    )  # fmt: skip
    expected = KTOTrainer._compute_loss(trainer, lambda **_: _output(batch.tokens, batch.mask), inputs, False)
    score = sequence_log_probability(batch.tokens, batch.mask)
    objective = KTO(
        0.3, desirable_weight=1.2, undesirable_weight=0.9,
        reference_point="mismatched" if loss_type == "kto" else "zero",
    )  # fmt: skip
    more = {"mismatched": torch.full_like(score, 2.0)} if loss_type == "kto" else {}
    _assert_equal(objective(score, desirable, reference=batch.reference, **more), expected, batch.tokens)


@pytest.mark.parametrize(
    ("loss_type", "settings", "objective"),
    [
        ("sigmoid", {}, get("cpo", beta=0.4, alpha=0.0, tokens="mean")),
        ("sigmoid", {"label_smoothing": 0.2}, get("cpo", beta=0.4, alpha=0.0, label_smoothing=0.2, tokens="mean")),
        ("hinge", {}, get("cpo", beta=0.4, alpha=0.0, form="hinge", tokens="mean")),
        ("ipo", {}, get("cpo", beta=0.4, alpha=0.0, form="ipo", tokens="mean")),
        ("simpo", {}, get("simpo", beta=0.4, gamma=0.7)),
        ("simpo", {"alpha": 0.25}, get("simpo", beta=0.4, gamma=0.7, alpha=0.25)),
        ("simpo", {"alpha": -0.5}, get("simpo", beta=0.4, gamma=0.7, alpha=-0.5)),
    ],
)
def test_cpo_trainer(loss_type: str, settings: dict[str, Any], objective: PreferenceObjective) -> None:
    """The preference term on averages; TRL adds the likelihood outside."""
    batch = Batch(6)
    averages = sequence_log_probability(batch.tokens, batch.mask, "mean").chunk(2)
    trainer = _stand_in(beta=0.4, loss_type=loss_type, simpo_gamma=0.7, alpha=settings.get("alpha", 0.0))
    trainer.label_smoothing = settings.get("label_smoothing", 0.0)
    expected = CPOTrainer.cpo_loss(trainer, *averages)[0].mean()
    lengths = {name: value for name, value in batch.more.items() if name.endswith("length")}
    _assert_equal(objective(*batch.policy, **lengths), expected, batch.tokens)


def test_orpo_trainer() -> None:
    """The odds-ratio term, which TRL computes in float32 and subtracts."""
    batch = Batch(7)
    averages = sequence_log_probability(batch.tokens, batch.mask, "mean").chunk(2)
    expected = -ORPOTrainer.odds_ratio_loss(_stand_in(beta=0.2), *averages)[0].mean()
    lengths = {name: value for name, value in batch.more.items() if name.endswith("length")}
    found = ORPO(0.2, likelihood_weight=0.0)(*batch.policy, **lengths)
    _assert_equal(found.float(), expected, batch.tokens, 1e-5)
