"""Preference objectives against numbers of official code and peers, made on inputs anybody can make again."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nearfar.contrast import Explicit
from nearfar.objectives import GRPO, KTO, ORPO, DisCO, InfoNCE, PreferenceObjective, get
from nearfar.objectives.likelihood import divergence_estimate, divergence_penalty, sequence_scores
from nearfar.objectives.preference_policy import group_advantages
from nearfar.objectives.preference_values import grace_reward, target_rewards
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


def test_reward_modeling() -> None:
    """MOSS-RLHF, RewardTrainer: ``-log(sigmoid(d) + 1e-5)``."""
    generator = np.random.default_rng(0)
    chosen, rejected = (torch.from_numpy(generator.standard_normal(8)).requires_grad_() for _ in range(2))
    check(get("moss-reward")(chosen, rejected), 0.2996244989008262, [chosen, rejected], [0.09792314397005154] * 2)
    assert abs(get("reward-modeling")(chosen, rejected).item() - 0.2996244989008262) > 1e-6


@pytest.mark.parametrize("memory", ["dense", "tiled"])
@pytest.mark.parametrize(
    ("seed", "n", "arguments", "loss", "norms"),
    [
        (0, 6, {}, 0.6606790252021226, [0.0030823598163236404, 0.0030942435966756048]),
        (2, 5, {"weighting": "uniform"}, 0.8260920153219417, [0.024921341655581523, 0.024859272123511543]),
        (
            3, 3, {"weighting": "diagonal", "diagonal_weight": 0.5},
            0.49340715861359996, [0.02284625430962105, 0.0216984902778737],
        ),
    ],
)  # fmt: skip
def test_rpo(seed: int, n: int, arguments: dict[str, object], loss: float, norms: list[float], memory: str) -> None:
    """The official repository, RPOTrainer and RPODiagonalTrainer."""
    batch = pairs(seed, n)
    prompts = torch.from_numpy(np.random.default_rng(100).standard_normal((n, 6)))
    more = {} if arguments else {"chosen_prompt": prompts}
    found = get("rpo", memory=memory, **arguments)(*batch.policy, **batch.references, **more)
    check(found, loss, batch.policy, norms)


@pytest.mark.parametrize(
    ("seed", "questions", "answers", "length", "rewards", "form", "arguments", "loss", "norm", "divergence"),
    [
        (
            0, 3, 4, 7, [1, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1, 1], "log-likelihood", {"form": "basic"},
            -0.009148222344845055, 0.21976483339661895, 0.0001229914318,
        ),
        (
            0, 3, 4, 7, [1, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1, 1], "log-likelihood", {"tau": 10.0},
            7.168183626111677, 0.21987520514220907, 0.0001229914318,
        ),
        (
            0, 3, 4, 7, [1, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1, 1], "likelihood-ratio", {"tau": 1.0},
            -0.003567761472440118, 0.22177876823008985, 0.0001229914318,
        ),
        (2, 2, 3, 5, [1, 1, 1, 0, 0, 0], "log-likelihood", {"form": "basic"}, 0.0, 0.0, -0.02221938287),
    ],
)  # fmt: skip
def test_disco(
    seed: int,
    questions: int,
    answers: int,
    length: int,
    rewards: list[int],
    form: str,
    arguments: dict[str, object],
    loss: float,
    norm: float,
    divergence: float,
) -> None:
    """The official repository, compute_policy_loss_disco_* and discob_*, in the values it shows."""
    generator = np.random.default_rng(seed)
    n = questions * answers
    sampled = -np.abs(generator.standard_normal((n, length))) - 0.1
    present = sampled + 0.05 * generator.standard_normal((n, length))
    mask = torch.from_numpy(np.arange(length) < generator.integers(3, length + 1, size=n)[:, None])
    sampled, present = torch.from_numpy(sampled), torch.from_numpy(present).requires_grad_()
    reward = torch.tensor(rewards).view(questions, answers)

    scores = sequence_scores(present, mask, sampled=sampled, form=form).view(questions, answers)
    relation = Explicit(reward == 1, reward == 0)
    estimate = divergence_estimate(present, sampled, mask)
    assert estimate.item() == pytest.approx(divergence, rel=1e-8)
    gradients = []
    for surrogate in (True, False):
        found = DisCO(surrogate=surrogate, **arguments)(scores=scores, relation=relation)
        found = found + divergence_penalty(estimate, surrogate=surrogate)
        (gradient,) = torch.autograd.grad(found, present, retain_graph=True)
        assert gradient.norm().item() == pytest.approx(norm, rel=1e-9)
        gradients.append(gradient)
        if surrogate:
            assert found.item() == pytest.approx(loss, rel=1e-9)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("seed", "shape", "ignored", "arguments", "loss", "norm"),
    [
        (0, (10, 7), 2, {"alpha": 0.0}, 2.8294230095244077, 0.35861305968232776),
        (0, (10, 7), 2, {"alpha": 10.0}, 0.09979286227056143, 0.0007434411674056694),
        (0, (10, 7), 2, {"keep": "top"}, 0.5688672266771145, 0.14035647101587623),
        (0, (10, 7), 2, {"alpha": 0.0, "keep": "top"}, 1.1112238313180205, 0.4669985672725417),
        (1, (6, 50), 0, {"keep": "top", "threshold": 0.99}, 0.0, 0.0),
    ],
)
def test_probability_sft(
    seed: int, shape: tuple[int, int], ignored: int, arguments: dict[str, object], loss: float, norm: float
) -> None:
    """The official repository's trainer."""
    generator = np.random.default_rng(seed)
    logits = torch.from_numpy(generator.standard_normal(shape) * 2).requires_grad_()
    targets = torch.from_numpy(generator.integers(0, shape[1], size=shape[0]))
    score = torch.log_softmax(logits, 1).gather(1, targets[:, None])[:, 0]
    found = get("probability-sft", epsilon=1e-8, **arguments)(score, torch.arange(shape[0]) >= ignored)
    assert found.item() == pytest.approx(loss, rel=1e-9)
    assert torch.autograd.grad(found, logits)[0].norm().item() == pytest.approx(norm, rel=1e-9)


def test_grpo() -> None:
    """DisCO's repository, compute_grpo_outcome_advantage and compute_policy_loss_grpo."""
    generator = np.random.default_rng(0)
    sampled = torch.from_numpy(-np.abs(generator.standard_normal((8, 6))) - 0.1)
    present = (sampled + 0.3 * torch.from_numpy(generator.standard_normal((8, 6)))).requires_grad_()
    mask = torch.from_numpy(np.arange(6) < generator.integers(2, 7, size=8)[:, None])
    rewards = torch.from_numpy(generator.standard_normal(8))
    group = torch.arange(8) // 4
    advantages = [
        0.49136286, 1.03617612, -0.25474729, -1.27279169, 0.96120273, -1.1130571, -0.56659035, 0.71844471,
    ]  # fmt: skip
    assert group_advantages(rewards, group).tolist() == pytest.approx(advantages, abs=1e-8)
    loss = GRPO()(present, rewards, mask=mask, sampled=sampled, group=group)
    check(loss, 0.05704732918349964, [present], [0.1437643900129136])


@pytest.mark.parametrize(
    ("seed", "size", "rewards"),
    [
        (0, 3, [1.08492126, 4.33535226, 4.14964457, -7.04778676, -5.33048288, -13.20397695]),
        (2, 1, [9.00238415, 11.110813]),
    ],
)
def test_grace_reward(seed: int, size: int, rewards: list[float]) -> None:
    """The official repository, HiddenRewardManager, divided by its temperature 0.1."""
    generator = np.random.default_rng(seed)
    n = 2 * size
    query, positive, negative = (torch.from_numpy(generator.standard_normal((n, 8))) for _ in range(3))
    first = torch.arange(n) // size * size
    found = grace_reward(query[first], positive, negative[first], group=torch.arange(n) // size)
    assert found.tolist() == pytest.approx(rewards, abs=1e-8)


def test_contrastive_active_inference() -> None:
    """The official repository's agents: states against a goal among observations, and against their observations."""
    generator = np.random.default_rng(0)
    states = torch.from_numpy(np.tanh(generator.standard_normal((3, 4, 200))).reshape(12, 200)).requires_grad_()
    goal, batch = (torch.from_numpy(np.tanh(generator.standard_normal((n, 200)))) for n in (1, 5))
    near = torch.zeros(12, 6)
    near[:, 0] = 1
    loss = InfoNCE(score="dot", temperature=200.0)(states, torch.cat([goal, batch]), relation=Explicit(near))
    check(loss - math.log(6), -0.00544171668748721, [states], [0.011799844984411645])

    observations = torch.from_numpy(np.tanh(generator.standard_normal((12, 200))))
    loss = InfoNCE(score="dot", temperature=1.0)(states, observations)
    check(loss, 12.718409434441126, [states], [3.2532333492383128])


@pytest.mark.parametrize(
    ("preference", "form", "targets"),
    [
        ([0.3, 0.7], "l2", [-0.9, 3.5]),
        ([0.3, 0.7], "linear", [-1.7, 1.7]),
        ([0.2, 0.2, 0.6], "l2", [-1.7, -1.5, 3.4]),
    ],
)
def test_target_rewards(preference: list[float], form: str, targets: list[float]) -> None:
    """Rewards-in-Context's repository, map_rewards_from_preference, which rounds to 0.1."""
    generator = np.random.default_rng(0)
    rewards = torch.from_numpy(np.stack([generator.standard_normal(50000) for _ in preference]))
    found = target_rewards(torch.tensor(preference).double(), rewards.amin(1), rewards.amax(1), form)
    assert found.tolist() == pytest.approx(targets, abs=0.05 + 1e-9)
    assert [round(value, 1) for value in found.tolist()] == targets
