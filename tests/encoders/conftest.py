from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from nearfar import encoders

SCRIPTS = {
    "Latin": "The quick brown fox jumps over the lazy dog",
    "Cyrillic": "Быстрая лиса прыгает через ленивую собаку",
    "Greek": "Η γρήγορη αλεπού πηδάει πάνω από τον σκύλο",
    "Arabic": "الثعلب السريع يقفز فوق الكلب الكسول",
    "Devanagari": "तेज़ लोमड़ी आलसी कुत्ते के ऊपर कूदती है",
    "Han": "敏捷的狐狸跳过懒惰的狗",
    "Thai": "สุนัขจิ้งจอกกระโดดข้ามสุนัขขี้เกียจ",
}
CODE = [
    "def getHttpResponse(url_path, timeOut=30):\n    return open_connection(url_path).read(timeOut)",
    "def parse_json_file(fileName):\n    with open(fileName) as handle:\n        return json.load(handle)",
    "class TokenBucket:\n    def __init__(self, rate): self.rate = rate",
]


def corpus() -> list[str]:
    animals, verbs = ("fox", "dog", "cat", "horse", "whale"), ("jumps", "sleeps", "sings", "runs")
    made = [f"the {animal} {verb} {number} times a day" for animal in animals for verb in verbs for number in range(6)]
    return [*SCRIPTS.values(), *CODE, *made] * 2


@pytest.fixture(scope="session")
def static_model():
    return encoders.load("static", texts=corpus(), dimension=24, vocabulary_size=1000, device="cpu")


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain transformers folder: a BERT of two layers with random weights and a word-level tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator(corpus(), trainers.WordLevelTrainer(special_tokens=names, show_progress=False))
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), names, strict=True))
    torch.manual_seed(0)
    bert = BertModel(
        BertConfig(
            vocab_size=words.get_vocab_size(),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=20,
        )
    )
    folder = tmp_path_factory.mktemp("bert") / "plain"
    bert.save_pretrained(folder, safe_serialization=True)
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def bert_model(bert_folder: Path):
    return encoders.load(bert_folder, device="cpu")


@pytest.fixture
def child_environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
