"""Hard negatives out of embeddings: equal to a plain search, whatever the blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nearfar.errors import UsageError
from nearfar.negatives import MiningRules, mine, mining


def _unit(seed: int, n: int, d: int = 8) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


QUERIES, DOCUMENTS = _unit(0, 23), _unit(1, 150)
ROWS = np.array([*range(20), 3, 3, 7])
COLUMNS = np.array([*range(0, 100, 5), 101, 102, 103])


def _plain(rules: MiningRules, groups: np.ndarray | None = None, teacher: tuple | None = None) -> list[list[int]]:
    """All documents sorted for each query, the rules applied one after the other."""
    found = []
    for i in range(len(QUERIES)):
        answers = COLUMNS[i == ROWS]
        no = set(answers) if groups is None else {j for j in range(150) if groups[j] in set(groups[answers])}
        scores = DOCUMENTS @ QUERIES[i]
        ranked = [j for j in np.argsort(-scores) if j not in no][rules.first_rank - 1 : rules.last_rank]
        judge = scores if teacher is None else teacher[1] @ teacher[0][i]
        if len(answers):
            worst = judge[answers].min()
            if rules.margin is not None:
                ranked = [j for j in ranked if judge[j] <= worst - rules.margin]
            if rules.ratio is not None:
                ranked = [j for j in ranked if judge[j] <= worst - (1 - rules.ratio) * abs(worst)]
        if rules.highest_score is not None:
            ranked = [j for j in ranked if judge[j] <= rules.highest_score]
        if rules.lowest_score is not None:
            ranked = [j for j in ranked if judge[j] >= rules.lowest_score]
        found.append(ranked)
    return found


@pytest.mark.parametrize(
    "rules",
    [
        MiningRules(),
        MiningRules(count=3, first_rank=4, last_rank=12),
        MiningRules(count=2, margin=0.1),
        MiningRules(count=4, ratio=0.8, last_rank=140),
        MiningRules(count=2, highest_score=0.4, lowest_score=0.1, last_rank=60),
        MiningRules(count=150, last_rank=150),
    ],
)
@pytest.mark.parametrize("blocks", [(1024, 32_768), (7, 40), (1, 1)])
def test_equals_a_plain_search(rules: MiningRules, blocks: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining, "QUERY_BLOCK", blocks[0])
    monkeypatch.setattr(mining, "DOCUMENT_BLOCK", blocks[1])
    found = mine(QUERIES, DOCUMENTS, (ROWS, COLUMNS), rules)
    for i, expected in enumerate(_plain(rules)):
        assert found.candidates[i] == len(expected)
        expected = expected[: rules.count]
        assert [j for j in found.documents[i] if j >= 0] == expected
        np.testing.assert_allclose(found.scores[i, : len(expected)], DOCUMENTS[expected] @ QUERIES[i], atol=1e-6)
        assert np.isnan(found.scores[i, len(expected) :]).all()


def test_copies_of_a_positive_are_no_negatives() -> None:
    groups = np.arange(150) % 60
    rules = MiningRules(count=5, last_rank=150)
    found = mine(QUERIES, DOCUMENTS, (ROWS, COLUMNS), rules, groups=groups)
    for i, expected in enumerate(_plain(rules, groups=groups)):
        assert found.documents[i].tolist() == expected[:5]
    different = mine(QUERIES, DOCUMENTS, (ROWS, COLUMNS), rules)
    assert (different.documents != found.documents).any()


def test_the_teacher_judges_and_the_miner_ranks() -> None:
    teacher = (_unit(5, 23, 3), _unit(6, 150, 3))
    rules = MiningRules(count=4, margin=0.05, last_rank=50)
    found = mine(QUERIES, DOCUMENTS, (ROWS, COLUMNS), rules, teacher=teacher)
    expected = _plain(rules, teacher=teacher)
    assert found.candidates.tolist() == [len(each) for each in expected]
    for i, each in enumerate(expected):
        assert [j for j in found.documents[i] if j >= 0] == each[:4]
    assert expected != _plain(rules)


def test_random_sampling_stays_within_the_rules_and_repeats_itself() -> None:
    rules = MiningRules(count=3, first_rank=5, last_rank=40, sampling="random", seed=4)
    one, other = (mine(QUERIES, DOCUMENTS, (ROWS, COLUMNS), rules) for _ in range(2))
    assert (one.documents == other.documents).all()
    allowed = _plain(rules)
    assert all(set(one.documents[i]) <= set(allowed[i]) for i in range(23))
    assert any(one.documents[i].tolist() != allowed[i][:3] for i in range(23))


def test_files_are_read_where_they_lie(tmp_path: Path) -> None:
    np.save(tmp_path / "q.npy", QUERIES.astype(np.float16))
    np.save(tmp_path / "d.npy", DOCUMENTS)
    mapped = [np.load(tmp_path / name, mmap_mode="r") for name in ("q.npy", "d.npy")]
    found = mine(mapped[0], mapped[1], (ROWS, COLUMNS))
    again = mine(QUERIES.astype(np.float16).astype(np.float32), DOCUMENTS, (ROWS, COLUMNS))
    assert (found.documents == again.documents).all()


def test_nothing_is_left() -> None:
    found = mine(QUERIES[:2], DOCUMENTS[:3], (np.array([0, 0, 0]), np.array([0, 1, 2])))
    assert found.candidates.tolist() == [0, 3]
    assert (found.documents[0] == -1).all()
    assert sorted(found.documents[1][:3]) == [0, 1, 2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MiningRules(count=0), "at least one negative"),
        (lambda: MiningRules(first_rank=5, last_rank=4), "ranks 5 to 4 is empty"),
        (lambda: MiningRules(count=9, first_rank=5, last_rank=10), "do not fit"),
        (lambda: MiningRules(sampling="hard"), "'top' or 'random'"),
        (lambda: mine(QUERIES, DOCUMENTS[:, :4], (ROWS, COLUMNS)), "must be"),
        (lambda: mine(QUERIES, DOCUMENTS[:0], (ROWS, COLUMNS)), "0 documents"),
        (lambda: mine(QUERIES, DOCUMENTS, (ROWS, COLUMNS + 100)), "outside 0..149"),
        (lambda: mine(QUERIES, DOCUMENTS, (ROWS, COLUMNS[1:])), "two vectors alike"),
        (lambda: mine(QUERIES, DOCUMENTS, (ROWS, COLUMNS), groups=np.zeros(3)), "groups must be"),
        (lambda: mine(QUERIES, DOCUMENTS, (ROWS, COLUMNS), teacher=(QUERIES[1:], DOCUMENTS)), "the same 23 queries"),
    ],
)
def test_bad_calls(call: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()  # type: ignore[operator]
