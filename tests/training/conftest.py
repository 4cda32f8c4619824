from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nearfar import encoders
from nearfar.data import Examples

WORDS = [f"{first}{second}" for first in ("ka", "lo", "mi", "ne", "po", "ru", "sa", "to") for second in "bdfgklmnprst"]


def pairs(rows: int, *, negatives: int = 0, seed: int = 0) -> Examples:
    """Anchors of a few words; the positive holds the same words in another order among others."""
    random = np.random.default_rng(seed)
    columns: dict[str, list[str]] = {"anchor": [], "positive": []}
    for number in range(negatives):
        columns[f"negative_{number + 1}"] = []
    for _ in range(rows):
        key = random.choice(WORDS, 4, replace=False)
        columns["anchor"].append(" ".join(key))
        columns["positive"].append(" ".join([*random.permutation(key), *random.choice(WORDS, random.integers(0, 6))]))
        for number in range(negatives):
            columns[f"negative_{number + 1}"].append(" ".join(random.choice(WORDS, random.integers(1, 7))))
    return Examples.from_columns(columns)


def labelled(rows: int, classes: int = 4, *, seed: int = 0) -> Examples:
    """Texts whose words are mostly those of their class."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, rows)
    texts = [" ".join([*random.choice(WORDS[8 * label : 8 * label + 8], 4), random.choice(WORDS)]) for label in labels]
    return Examples.from_columns({"text": texts, "label": [f"class {label}" for label in labels]})


@pytest.fixture
def static_model() -> Any:
    """A new static encoder over the words, of 16 dimensions."""
    return encoders.load("static", texts=WORDS * 2, dimension=16, vocabulary_size=600, device="cpu")


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two small layers, with dropout, over the words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {name: number for number, name in enumerate([*names, *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    torch.manual_seed(0)
    bert = BertModel(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=24,
            hidden_dropout_prob=0.2,
        )
    )
    folder = tmp_path_factory.mktemp("bert") / "plain"
    bert.save_pretrained(folder, safe_serialization=True)
    special = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), names, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    return folder


@pytest.fixture
def bert_model(bert_folder: Path) -> Any:
    return encoders.load(bert_folder, device="cpu")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture
def child_environment() -> dict[str, str]:
    """For subprocesses: this package, one thread, no network."""
    source = str(Path(__file__).parents[2] / "src")
    paths = os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def make_pairs() -> Any:
    return pairs


@pytest.fixture
def make_labelled() -> Any:
    return labelled


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs end without the pictures of the report, which take seconds and are tested elsewhere; what the libraries keep
    in memory is not searched for garbage at the start of each."""
    gc.freeze()
    from nearfar import diagnostics, report

    monkeypatch.setattr(diagnostics, "collect", lambda *_, **__: {})
    monkeypatch.setattr(report, "write", lambda folder: Path(folder) / "report.html")


@pytest.fixture
def interrupt_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``interrupt_at(step)``: send this process a signal (Ctrl-C) after that step."""
    import signal

    from nearfar.training import ContrastiveMethod

    def arrange(step: int, number: signal.Signals = signal.SIGINT) -> None:
        def after_step(_: Any, now: int) -> None:
            if now == step:
                os.kill(os.getpid(), number)

        monkeypatch.setattr(ContrastiveMethod, "after_step", after_step)

    return arrange
