"""Preference objectives against numbers of official code and peers, made on inputs anybody can make again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nearfar.objectives import KTO, ORPO, PreferenceObjective, get
from support.preferences import pairs
from support.recorded import check


@pytest.mark.parametrize(
    ("objective", "seed", "n", "at_reference", "loss", "norms"),
    [
        # TRL 1.16.0, DPOTrainer
        (get("dpo"), 0, 8, False, 0.6034131227218165, [0.016053565607471478] * 2),
        (get("dpo"), 2, 6, True, 0.6931471805599453, [0.020412414523193152] * 2),
        (get("dpo-norm"), 0, 8, False, 0.5135799037251424, [0.024652283315748834, 0.02027344482918074]),
        (
            get("dpo", divergence="jensen-shannon"), 0, 8, False,
            0.6348574544082419, [0.010479934710312968, 0.012074284143357499],
        ),
        (get("ipo-norm"), 0, 8, False, 22.322158422092567, [0.30249688336821906, 0.29630205347071153]),
        (get("apo-zero"), 0, 8, False, 0.9427132540545096, [0.008678254594980186, 0.008617142750333972]),
        (get("apo-zero"), 2, 6, True, 1.0, [0.010206207261596576] * 2),
        (get("apo-down", beta=0.5), 6, 4, False, 1.234679035281347, [0.017031638666733656, 0.042000026564411215]),
        (get("slic-norm"), 0, 8, False, 0.7657313061862175, [0.03535533905932738] * 2),
        (get("discopop", beta=0.1), 7, 5, False, 0.8995278641676185, [0.02802884386109286] * 2),
        (get("nca-pair"), 0, 8, False, 1.348521239553686, [0.008950722270674196, 0.008116740117115571]),
        (get("sppo-hard"), 0, 8, False, 44.80298770044606, [3.7287421739672153, 2.9151287536404418]),
        (get("aot"), 0, 8, False, 0.583937020215783, [0.015642683789778365] * 2),
        # DiscoPOP's repository, GPOTrainer
        (get("ipo"), 0, 8, False, 23.80382721235822, [3.4499150143415287] * 2),
        (get("dbaql"), 0, 8, False, 0.6366115796951815, [0.00925376197779023] * 2),
        (get("aqfl"), 0, 8, False, 0.7395730079393548, [0.011994136719364362] * 2),
        (get("cell"), 0, 8, False, 0.7753413015030124, [0.012397651048806522] * 2),
        (get("pfl"), 0, 8, False, 0.3207511891442517, [0.004186538564781244] * 2),
        (get("dbaql", beta=0.1), 10, 5, False, 0.865766476156519, [0.028549581404552018] * 2),
        (get("aqfl", beta=0.1), 10, 5, False, 0.9121673966746563, [0.02523080342801028] * 2),
        (get("cell", beta=0.1), 10, 5, False, 1.1284243000594834, [0.04724024230600557] * 2),
        (get("pfl", beta=0.1), 10, 5, False, 2.3127695316922363, [0.08009126115434068] * 2),
        (get("lrml"), 11, 4, True, 0.8465735902799727, [0.019606602430006836] * 2),
    ],
)  # fmt: skip
def test_with_a_reference(
    objective: PreferenceObjective, seed: int, n: int, at_reference: bool, loss: float, norms: list[float]
) -> None:
    batch = pairs(seed, n, at_reference=at_reference)
    check(objective(*batch.policy, **batch.references, **batch.lengths), loss, batch.policy, norms)


@pytest.mark.parametrize(
    ("objective", "seed", "n", "loss", "norms"),
    [
        # TRL 1.16.0, CPOTrainer's preference term; its gradients of SimPO are those of the averages
        (get("cpo", alpha=0), 0, 8, 0.5305040991466339, [0.01459074059212108] * 2),
        (get("cpo", alpha=0), 9, 1, 0.8622515296829819, [0.05777896078898859] * 2),
    ],
)
def test_without_a_reference(
    objective: PreferenceObjective, seed: int, n: int, loss: float, norms: list[float]
) -> None:
    batch = pairs(seed, n)
    check(objective(*batch.policy), loss, batch.policy, norms)


def test_on_averages() -> None:
    """TRL 1.16.0: CPOTrainer with SimPO's loss, ORPOTrainer's odds-ratio term (which it computes in float32)."""
    batch = pairs(0, 8)
    averages = [
        (value / length).detach().requires_grad_()
        for value, length in zip(batch.policy, batch.lengths.values(), strict=True)
    ]
    simpo = get("simpo", beta=2.0, gamma=1.0, tokens="sum")
    check(simpo(*averages), 1.5221604596683296, averages, [0.49681020626085176] * 2)
    same = get("simpo", beta=2.0, gamma=1.0)(*batch.policy, **batch.lengths)
    torch.testing.assert_close(same, simpo(*averages), rtol=1e-12, atol=0)

    orpo = ORPO(likelihood_weight=0.0, tokens="sum")
    loss = orpo(*averages)
    assert loss.item() == pytest.approx(0.07556700706481934, rel=1e-6)
    gradients = torch.autograd.grad(loss, averages)
    for gradient, norm in zip(gradients, [0.020314203551136202, 0.021408540789494925], strict=True):
        assert gradient.norm().item() == pytest.approx(norm, rel=1e-6)
    same = ORPO(likelihood_weight=0.0)(*batch.policy, **batch.lengths)
    torch.testing.assert_close(same, loss, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("seed", "n", "all_desirable", "loss", "norm"),
    [
        (0, 8, False, 0.5158041433551211, 0.00862572062531268),
        (2, 5, True, 0.5526110881653643, 0.010440031559376306),
    ],
)
def test_kto(seed: int, n: int, all_desirable: bool, loss: float, norm: float) -> None:
    """TRL 1.16.0, KTOTrainer."""
    generator = np.random.default_rng(seed)
    policy, reference, mismatched, mismatched_reference = (
        torch.from_numpy(generator.standard_normal(n) * 3 - 30) for _ in range(4)
    )
    desirable = torch.from_numpy(generator.integers(0, 2, size=n).astype(bool)) | all_desirable
    policy.requires_grad_()
    found = KTO()(policy - reference, desirable, mismatched=mismatched - mismatched_reference)
    check(found, loss, [policy], [norm])
