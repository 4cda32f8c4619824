"""Losses of batches of preferences beside plain loops, and batches in chunks beside undivided ones."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nearfar.alignment import needs
from nearfar.alignment.inputs import Mismatched, RowBatches
from nearfar.alignment.watch import verdict_of, watched
from nearfar.errors import DataError, TrainingError, UsageError
from support.alignment import batch_of, prepared, settings_for, write_place

# what each way of being fed is tried on; `nearfar objectives` has many more of the same kinds
CASES = {
    "dpo": ("pairs", {}),
    "ipo": ("pairs", {"tokens": "mean"}),
    "simpo": ("pairs", {}),
    "cpo": ("pairs", {"likelihood": "pooled"}),
    "orpo": ("pairs", {}),
    "aot": ("pairs", {}),
    "bco-pair": ("pairs", {}),
    "kto-pair": ("pairs", {}),
    "rpo": ("pairs", {}),
    "rpo-unpaired": ("unpaired", {}),
    "rpo-diagonal": ("pairs", {}),
    "sppo": ("scored-pairs", {"win_rate": "bradley-terry"}),
    "copg": ("scored-pairs", {}),
    "dno": ("lists", {}),
    "reward-modeling": ("scored-pairs", {}),
    "kto": ("unpaired", {}),
    "apo-zero-unpaired": ("pairs", {}),
    "copg-group": ("lists", {}),
    "dro-v": ("lists", {}),
    "dro-p": ("unpaired", {}),
    "reward-weighted": ("lists", {}),
    "lipo-lambda": ("lists", {}),
    "lipo-list-mle": ("lists", {}),
    "point-mse": ("lists", {}),
    "irpo": ("lists", {}),
    "rrhf": ("lists", {}),
    "crl-factuality": ("lists", {}),
    "best-of-n": ("lists", {"negative": "worst"}),
    "ampo": ("lists", {"selection": "opt-select", "negatives": 2, "alpha": 0.5, "gamma": 0.3}),
    "disco": ("right-and-wrong", {"score": "likelihood-ratio", "tau": 1.0}),
    "info-nce": ("lists", {}),
    "macl": ("lists", {}),
    "sft": ("demonstrations", {}),
    "probability-sft": ("pairs", {"keep": "bottom", "threshold": 0.05}),
    "sft-implicit-reward": ("pairs", {"level": "token", "divergence": "squared-hellinger"}),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_place(tmp_path_factory.mktemp("align"))


def moved(place: Path, name: str, data: str | None = None, **parameters):
    """A run before its first step, whose policy has left its reference."""
    kind, options = CASES.get(name, ("pairs", {}))
    run, method = prepared(
        settings_for(place, data or kind, name, parameters={**options, **parameters}), place / "cache"
    )
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in method.policy.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return run, method


@pytest.mark.parametrize("name", CASES)
def test_a_batch_in_chunks_is_the_batch(place, name):
    """Value and gradient of every parameter, with chunks of uneven rows."""
    run, method = moved(place, name)
    found = []
    for size in (None, 3):
        method.zero_grad()
        if method.takes_shift:
            method.reward_sum.fill_(0.5)
            method.reward_count.fill_(4)
        loss, logs = method(batch_of(run, range(11), size))
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])
        found.append((loss.detach(), gradient, logs))
    assert torch.isfinite(found[0][0])
    assert found[0][1].abs().max() > 0
    torch.testing.assert_close(found[1][0], found[0][0], rtol=2e-6, atol=1e-6)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=0, atol=2e-5 * float(found[0][1].abs().max()))
    assert {k: pytest.approx(float(v), abs=1e-5) for k, v in found[0][2].items()} == found[1][2]


def sums(run, method, rows):
    """Of each row's responses their log-probabilities under policy and reference, by plain softmax, and lengths."""
    model = method.policy
    reference = run.table.of_responses.get("reference")
    policy, before, lengths = [], [], []
    for row in rows:
        tokens = run.table.tokens[row]
        policy.append([])
        lengths.append([len(each) for each in tokens.responses])
        for each in tokens.responses:
            ids = torch.tensor(np.concatenate([tokens.prompt, each]), dtype=torch.long)[None]
            with torch.no_grad():
                logits = model(input_ids=ids).logits.double()[0]
            start = len(tokens.prompt)
            taken = logits.log_softmax(1)[start - 1 : -1].gather(1, ids[0, start:, None])[:, 0]
            policy[-1].append(float(taken.sum()))
        first = int(run.table.first[row])
        before.append([] if reference is None else reference[first : first + len(tokens.responses)].double().tolist())
    return policy, before, lengths


def loss_of(run, method, rows) -> float:
    with torch.no_grad():
        return float(method(batch_of(run, rows))[0])


def test_dpo_is_the_logistic_cost_of_log_ratios(place):
    run, method = moved(place, "dpo", beta=0.3)
    policy, before, _ = sums(run, method, range(9))
    expected = np.mean(
        [math.log1p(math.exp(-0.3 * ((p[0] - r[0]) - (p[1] - r[1])))) for p, r in zip(policy, before, strict=True)]
    )
    assert loss_of(run, method, range(9)) == pytest.approx(expected, abs=2e-6)


def test_policy_and_reference_agree_before_the_first_step(place):
    run, method = prepared(settings_for(place), place / "cache")
    loss, logs = method(batch_of(run, range(8)))
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)
    assert float(logs["margin"]) == pytest.approx(0, abs=1e-6)
    assert float(logs["log_ratio"]) == pytest.approx(0, abs=1e-6)


def test_simpo_divides_by_lengths_and_has_no_reference(place):
    run, method = moved(place, "simpo", beta=2.0, gamma=0.5)
    assert "reference" not in run.table.of_responses
    policy, _, lengths = sums(run, method, range(9))
    margins = [2 * (p[0] / n[0] - p[1] / n[1]) - 0.5 for p, n in zip(policy, lengths, strict=True)]
    assert loss_of(run, method, range(9)) == pytest.approx(
        np.mean([math.log1p(math.exp(-m)) for m in margins]), abs=2e-6
    )


def test_kto_compares_with_responses_to_other_prompts(place):
    run, method = moved(place, "kto", beta=0.2)
    rows = list(range(10))
    policy, before, _ = sums(run, method, rows)
    z = 0.0
    for row in rows:
        tokens = run.mismatched[row]
        assert not np.array_equal(run.table.tokens[int(run.mismatched.partner[row])].prompt, tokens.prompt)
        now = method.score([tokens])[0].item()
        z += (now - float(run.table.of_rows["mismatched"][row])) / len(rows)
    z = max(0.0, z)
    costs = []
    for row, p, r in zip(rows, policy, before, strict=True):
        good = bool(run.data[row].label)
        d = p[0] - r[0]
        costs.append(1 / (1 + math.exp(0.2 * (d - z) * (1 if good else -1))))
    assert loss_of(run, method, rows) == pytest.approx(np.mean(costs), abs=2e-6)


def test_bco_shifts_by_the_mean_reward_of_the_batches_before(place):
    run, method = moved(place, "bco-pair", beta=0.2)
    policy, before, _ = sums(run, method, range(8))
    ratios = [[0.2 * (a - b) for a, b in zip(p, r, strict=True)] for p, r in zip(policy, before, strict=True)]

    def cost(shift):
        return np.mean([math.log1p(math.exp(shift - w)) + math.log1p(math.exp(bad - shift)) for w, bad in ratios])

    method.train()
    assert loss_of(run, method, range(8)) == pytest.approx(cost(0.0), abs=2e-6)
    mean = float(np.mean(ratios))
    assert float(method.reward_sum / method.reward_count) == pytest.approx(mean, abs=1e-6)
    assert loss_of(run, method, range(8)) == pytest.approx(cost(mean), abs=2e-6)
    method.eval()
    loss_of(run, method, range(8))
    assert int(method.reward_count) == 32  # evaluation does not move it


def test_copg_of_lists_takes_every_pair_of_different_scores(place):
    run, method = moved(place, "copg", data="lists", beta=0.1)
    assert run.data.kind == "pairs"
    policy, before, _ = sums(run, method, range(12))
    costs = []
    for row, p, r in zip(range(12), policy, before, strict=True):
        up, down = run.data[row].scores
        assert up > down
        u = (p[0] - r[0]) - (p[1] - r[1])
        costs.append(0.05 * u * u - (up - down) * u)
    assert loss_of(run, method, range(12)) == pytest.approx(np.mean(costs), abs=1e-5)


def test_dro_v_learns_a_value_of_each_prompt_beside_the_policy(place):
    run, method = moved(place, "dro-v", rewards="scores")
    assert method.reading.value is not None
    policy, before, _ = sums(run, method, range(7))
    costs = []
    for row, p, r in zip(range(7), policy, before, strict=True):
        for a, b, reward in zip(p, r, run.data[row].scores, strict=True):
            d = a - b  # the value begins at 0
            costs.append(d * d / 2 - d * reward + (reward - d) ** 2 / 2)
    loss, _ = method(batch_of(run, range(7)))
    assert loss.item() == pytest.approx(np.mean(costs), abs=1e-4)
    loss.backward()
    assert all(p.grad is not None for p in method.reading.value.parameters())
    assert not any("policy" in name for name, _ in method.reading.named_parameters())


def test_rewards_are_standardised_over_the_data(place):
    run, _ = prepared(settings_for(place, "lists", "reward-weighted"), place / "cache")
    scores = run.table.of_responses["score"]
    assert float(scores.mean()) == pytest.approx(0, abs=1e-6)
    assert float(scores.std(correction=0)) == pytest.approx(1, abs=1e-6)


def test_rrhf_ranks_averages_and_imitates_the_best_whole_response(place):
    run, method = moved(place, "rrhf")
    policy, _, lengths = sums(run, method, range(10))
    costs = []
    for row, p, n in zip(range(10), policy, lengths, strict=True):
        scores = run.data[row].scores
        average = [a / b for a, b in zip(p, n, strict=True)]
        cost = sum(
            max(0.0, average[i] - average[j]) for i in range(len(p)) for j in range(len(p)) if scores[i] < scores[j]
        )
        best = [i for i in range(len(p)) if scores[i] == max(scores)]
        costs.append(cost - np.mean([p[i] for i in best]))
    assert loss_of(run, method, range(10)) == pytest.approx(np.mean(costs), abs=1e-5)


def test_list_mle_sorts_by_wins_and_scores_by_beta_times_log_ratio(place):
    run, method = moved(place, "lipo-list-mle", grades="ranks", beta=0.5)
    rows = [row for row in range(20) if len(set(run.data[row].scores)) == len(run.data[row].scores)][:5]
    policy, before, _ = sums(run, method, rows)
    costs = []
    for row, p, r in zip(rows, policy, before, strict=True):
        order = np.argsort([-value for value in run.data[row].scores], kind="stable")
        s = [0.5 * (p[i] - r[i]) for i in order]
        costs.append(-sum(s[k] - math.log(sum(map(math.exp, s[k:]))) for k in range(len(s))))
    assert loss_of(run, method, rows) == pytest.approx(np.mean(costs), abs=1e-5)


@pytest.mark.parametrize("form", ["log-likelihood", "likelihood-ratio"])
def test_disco_scores_answers_and_stays_near_the_reference(place, form):
    run, method = moved(place, "disco", score=form, tau=2.0, limit=0.0, penalty=3.0)
    rows = list(range(8))
    policy, before, lengths = sums(run, method, rows)
    total = 0.0
    for row, p, n in zip(rows, policy, lengths, strict=True):
        if form == "likelihood-ratio":
            now = method.score([run.table.tokens[row]], tokens=True).detach().double()
            then = run.table.columns(torch.tensor([row])).of_tokens["reference"].double()
            parts = torch.split((now - then).exp(), n)
            s = [float(part.mean()) for part in parts]
        else:
            s = [a / b for a, b in zip(p, n, strict=True)]
        good = [value for value, score in zip(s, run.data[row].scores, strict=True) if score >= 1]
        bad = [value for value, score in zip(s, run.data[row].scores, strict=True) if score < 1]
        if good and bad:
            total += 2 * math.log(np.mean([math.exp(value / 2) for value in bad])) - np.mean(good)
    apart = sum(b - a for p, r in zip(policy, before, strict=True) for a, b in zip(p, r, strict=True))
    divergence = apart / sum(map(sum, lengths))
    expected = total / len(rows) + 1.5 * max(0.0, divergence) ** 2
    assert loss_of(run, method, rows) == pytest.approx(expected, abs=1e-4)


def test_ampo_contrasts_the_best_with_what_was_selected(place):
    run, method = moved(place, "ampo", selection="bottom-k", negatives=1, alpha=0.0, gamma=0.0)
    policy, _, _ = sums(run, method, range(10))
    costs = []
    for row, p in zip(range(10), policy, strict=True):
        scores = list(run.data[row].scores)
        if max(scores) > min(scores):
            best, worst = (
                scores.index(max(scores)),
                min((i for i in range(len(scores)) if i != scores.index(max(scores))), key=lambda i: scores[i]),
            )
            costs.append(math.log1p(math.exp(p[worst] - p[best])))
    assert loss_of(run, method, range(10)) == pytest.approx(np.mean(costs), abs=1e-5)


def test_rpo_weighs_by_how_alike_the_prompts_are(place):
    run, method = moved(place, "rpo", beta=0.4, tau=0.5)
    rows = list(range(6))
    policy, before, _ = sums(run, method, rows)
    states = run.table.of_rows["state"][rows].double()
    alike = F.cosine_similarity(states[:, None], states[None], dim=-1)
    omega = ((alike - 1) / 0.5).softmax(1)
    costs = []
    for i in range(6):
        for j in range(6):
            apart = (policy[i][0] - before[i][0]) - (policy[j][1] - before[j][1])
            costs.append(math.log1p(math.exp(-0.4 * float(omega[i, j]) * apart)))
    assert loss_of(run, method, rows) == pytest.approx(np.mean(costs), abs=1e-5)


def test_supervised_fine_tuning_on_pairs_is_on_the_chosen(place):
    run, method = moved(place, "sft", data="pairs")
    assert run.data.kind == "demonstrations"
    policy, _, lengths = sums(run, method, range(9))
    expected = -sum(p[0] for p in policy) / sum(n[0] for n in lengths)
    assert loss_of(run, method, range(9)) == pytest.approx(expected, abs=1e-5)


def test_what_is_logged_of_a_batch(place):
    run, method = moved(place, "dpo")
    policy, before, lengths = sums(run, method, range(8))
    logs = {name: float(value) for name, value in method(batch_of(run, range(8), 3))[1].items()}
    ratios = [[a - b for a, b in zip(p, r, strict=True)] for p, r in zip(policy, before, strict=True)]
    assert logs == {
        "log_ratio": pytest.approx(np.mean(ratios), abs=1e-5),
        "log_ratio_chosen": pytest.approx(np.mean([w for w, _ in ratios]), abs=1e-5),
        "log_ratio_rejected": pytest.approx(np.mean([bad for _, bad in ratios]), abs=1e-5),
        "log_p_chosen": pytest.approx(np.mean([p[0] for p in policy]), abs=1e-5),
        "log_p_rejected": pytest.approx(np.mean([p[1] for p in policy]), abs=1e-5),
        "length_chosen": pytest.approx(np.mean([n[0] for n in lengths])),
        "length_rejected": pytest.approx(np.mean([n[1] for n in lengths])),
        "margin": pytest.approx(np.mean([w - bad for w, bad in ratios]), abs=1e-5),
        "accuracy": np.mean([w > bad for w, bad in ratios]),
        "cut": 0,
    }


def test_ties_are_half_right(place):
    run, _ = prepared(settings_for(place), place / "cache")
    columns = run.table.columns(torch.arange(4))
    seen = watched(columns, columns.of_responses["reference"])
    assert float(seen["accuracy"]) == 0.5
    noise = torch.tensor([1.0, -1.0]).repeat(4) * 3e-7
    seen = watched(columns, columns.of_responses["reference"] * (1 + noise))
    assert float(seen["accuracy"]) == 0.5
    assert float(watched(columns, columns.of_responses["reference"] + 100 * noise)["accuracy"]) == 1


def test_rows_with_scores_that_are_no_numbers_are_named(place, monkeypatch):
    run, method = prepared(settings_for(place), place / "cache")
    batch = batch_of(run, range(5), 2)
    bad = batch["chunks"][1][0]
    score = method.score

    def spoilt(chunk, *, tokens=False):
        found = score(chunk, tokens=tokens)
        return torch.cat([found[:1] * (float("nan") if row is bad else 1) for row in chunk for _ in row.responses])

    monkeypatch.setattr(method, "score", spoilt)
    method(batch)
    assert method.not_finite() == [int(batch["rows"][2])]
    monkeypatch.setattr(method, "score", score)
    method(batch)
    assert method.not_finite() is None


def test_scores_that_an_objective_needs_and_the_data_lack(place):
    with pytest.raises(DataError, match="copg needs a score for each response") as refused:
        prepared(settings_for(place, "pairs", "copg"), place / "cache")
    assert "score_chosen" in refused.value.hint
    with pytest.raises(DataError, match="needs a score"):
        prepared(settings_for(place, "pairs", "sppo", parameters={"win_rate": "scores"}), place / "cache")
    with pytest.raises(UsageError, match="cannot be trained on unpaired"):
        prepared(settings_for(place, "unpaired", "dpo"), place / "cache")
    with pytest.raises(UsageError, match="needs pairs"):
        prepared(settings_for(place, "unpaired", "rpo-diagonal"), place / "cache")


def test_a_policy_with_dropout_on_does_not_agree_with_its_reference(tmp_path):
    place = write_place(tmp_path, dropout=0.5)
    run, method = prepared(settings_for(place), tmp_path / "cache")
    assert method.train()(batch_of(run, range(8)))[0].item() == pytest.approx(math.log(2), abs=1e-6)
    _, method = prepared(settings_for(place, dropout=True), tmp_path / "cache")
    assert method.train()(batch_of(run, range(8)))[0].item() != pytest.approx(math.log(2), abs=1e-4)


def test_a_reference_from_elsewhere_is_refused_where_the_policy_should_be_it(place, tmp_path, monkeypatch):
    from nearfar.alignment import beside

    found = beside.reference_scores

    def other(*arguments, **more):
        made = found(*arguments, **more)
        made.log_probability.add_(1.0)
        return made

    monkeypatch.setattr(beside, "reference_scores", other)
    with pytest.raises(TrainingError, match="differ before the first step"):
        prepared(settings_for(place), tmp_path / "cache")


def test_one_row_is_a_batch():
    assert [batch.tolist() for batch in RowBatches(1, 1)] == [[0]]
    assert [len(batch) for batch in RowBatches(3, 1)] == [1, 1, 1]


def test_partners_have_other_prompts_where_there_are_any(place):
    run, _ = prepared(settings_for(place, "pairs", "kto"), place / "cache")
    tokens = run.table.tokens
    partner = Mismatched(tokens, seed=3).partner
    for row in range(len(tokens)):  # both responses of a pair have one prompt
        assert not np.array_equal(tokens[row].prompt, tokens[int(partner[row])].prompt)
    assert not np.array_equal(partner, Mismatched(tokens, seed=4).partner)
    alone = tokens.take([0])
    assert Mismatched(alone, seed=0).partner.tolist() == [0]


def test_every_case_is_of_the_catalogue():
    for name, (_, options) in CASES.items():
        assert needs.need_of(needs.make(name, options)[0]) is not None


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({"log_p_chosen": -10.0, "margin": 0.0}, {"log_p_chosen": -12.0, "margin": 3.0}, "fell by 2.0 nats"),
        ({"log_p_chosen": -10.0, "margin": 0.0}, {"log_p_chosen": -12.0, "margin": -1.0}, None),
        ({"log_p_chosen": -10.0, "margin": 0.0}, {"log_p_chosen": -9.0, "margin": 3.0}, None),
        ({}, {"log_ratio_chosen": -3.0, "margin": 3.0}, "fell by 3.0 nats"),
        ({}, {"log_ratio_chosen": 3.0, "margin": 3.0, "log_ratio": -80.0}, "left its reference"),
        ({}, {}, None),
    ],
)
def test_verdicts(before, after, told):
    found = verdict_of(before, after)
    assert (found is None) if told is None else (told in found)
