from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearfar.classify import Classified, ClassifySettings, classify
from nearfar.data import Examples
from support.sentence_models import WORDS, bert


def labelled(rows: int = 96, *, classes: int = 4, seed: int = 0) -> Examples:
    """Texts with words of their class among others."""
    random = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    texts = [" ".join([*random.choice(WORDS[8 * c : 8 * c + 8], 3), *random.choice(WORDS, 1)]) for c in labels]
    return Examples.from_columns({"text": texts, "label": [f"class {c}" for c in labels]})


SMALL: dict[str, Any] = {"shots": 5, "draws": 2, "pairs": 96, "learning_rate": 5e-3, "explanations": 2, "samples": 40}


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="session")
def classified(bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Classified:
    """A whole small run, not to be changed."""
    output = tmp_path_factory.mktemp("runs") / "run"
    settings = ClassifySettings(output=str(output), encoder=str(bert_folder), **SMALL)
    return classify(settings, examples=labelled(), command=["nearfar", "classify", "train.csv"])
