"""Texts against labels: words of the text itself, or the names of classes (CLESS)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nearfar.encoders.matching import CosineMatcher, Matcher
from nearfar.errors import DataError, UsageError
from nearfar.negatives.label_words import LabelWords, label_words
from nearfar.objectives import BinaryNCE
from nearfar.training.loading import prompt_of
from nearfar.training.method import Batch, Logs
from nearfar.training.methods.retokenised import tokenised
from nearfar.training.text_training import Option, TextMethod, TextSetting
from nearfar.views.text.base import core

OPTIONS: Mapping[str, Option] = {"positives": 3, "negatives": 20, "matcher": "cosine"}
"""Options of :class:`TextLabels`."""

_CORPUS = 2**20
"""Words that negatives are drawn from; evenly spaced among all of the data where there are more."""


class TextLabels(TextMethod):
    """``-log p(x, l)`` for labels of a text, ``-log(1 - p(x, l))`` for others, the mean over all (binary NCE).

    Texts: ``positives`` random words are taken out of a text and are its labels; ``negatives`` are words of the data as
    often as they are used there, none that the text holds. Labelled texts: the name of a text's class is its label,
    those of other classes, at most ``negatives``, are not. Labels are embedded by the same encoder, as texts.

    ``matcher``: "cosine" (default) learns scale and offset of the cosine, so that the exported encoder ranks labels by
    itself; "mlp" is the paper's, which is dropped after training. Probabilities shift with positives and negatives:
    rank labels, set no threshold.
    """

    def __init__(self, setting: TextSetting) -> None:
        super().__init__(setting, BinaryNCE())
        options = setting.options
        self.positives, self.negatives = int(options["positives"]), int(options["negatives"])
        if self.positives < 1 or self.negatives < 1:
            raise UsageError("positives and negatives of nlp-contrast-primer must be at least 1")
        if options["matcher"] not in ("cosine", "mlp"):
            raise UsageError(f"matcher must be cosine or mlp, got {options['matcher']!r}", where="--set matcher=...")
        self.matcher = CosineMatcher() if options["matcher"] == "cosine" else Matcher(setting.dimension)
        self.examples = setting.examples
        self.prompt = prompt_of(setting.encoder, "text")
        self.names: list[str] = []
        if self.shape == "labelled texts":
            self.names = setting.examples.labels()[1]
            if len(self.names) < 2:
                raise DataError("all labels are the same: there is nothing to tell apart")
        else:
            self._count(setting)

    def _count(self, setting: TextSetting) -> None:
        """Number the words of the data."""
        self.number: dict[str, int] = {"": 0}
        every: list[int] = []
        for text in setting.examples.texts():
            every += [self.number.setdefault(word, len(self.number)) for word in _words(text)]
        used = np.asarray(every, dtype=np.int64)
        used = used[used > 0]
        if len(np.unique(used)) < 2:
            raise DataError("the texts hold fewer than two different words: there is nothing to tell apart")
        self.corpus = torch.from_numpy(used[np.linspace(0, len(used) - 1, min(len(used), _CORPUS)).astype(np.int64)])
        self.words = list(self.number)

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        return super().forward(self.seen(batch))

    def seen(self, batch: Batch) -> Batch:
        """The batch with the texts that are embedded, the labels behind them, and which belong together."""
        rows = batch["rows"].cpu().numpy()
        texts = self.examples.take(rows)["text"]
        if self.names:
            labels, index, target, there = self._of_classes(batch["labels"].cpu())
        else:
            texts, labels, index, target, there = self._of_words(texts)
        columns = [[self.prompt + text for text in texts], labels]
        chunks, order = tokenised(self.encoder, columns, size=self.chunk_size)
        device = self.encoder.device
        pairs = {"index": index.to(device), "target": target.to(device), "there": there.to(device)}
        return {**batch, "chunks": chunks, "order": order, "pairs": pairs}

    def _of_words(self, texts: list[str]) -> tuple[list[str], list[str], Tensor, Tensor, Tensor]:
        tokens = [text.split() for text in texts]
        longest = max(1, max(map(len, tokens)))
        ids = torch.zeros(len(texts), longest, dtype=torch.int64)
        for row, text in enumerate(texts):
            found = [self.number[word] for word in _words(text)]
            ids[row, : len(found)] = torch.tensor(found, dtype=torch.int64)
        chosen: LabelWords = label_words(ids, self.corpus, positives=self.positives, negatives=self.negatives)
        gone = (ids != 0) & (chosen.rest == 0)
        kept = [
            " ".join(word for word, out in zip(words, taken, strict=False) if not out)
            for words, taken in zip(tokens, gone.tolist(), strict=True)
        ]
        distinct, index = torch.unique(chosen.words, return_inverse=True)
        return kept, [self.words[word] or " " for word in distinct.tolist()], index, chosen.target, chosen.there

    def _of_classes(self, labels: Tensor) -> tuple[list[str], Tensor, Tensor, Tensor]:
        own = torch.unique(labels)
        others = torch.randperm(len(self.names))
        others = others[~torch.isin(others, own)][: max(0, self.negatives + 1 - len(own))]
        classes = torch.cat([own, others])
        index = torch.arange(len(classes)).expand(len(labels), -1)
        target = (classes[None] == labels[:, None]).float()
        return [self.names[each] for each in classes.tolist()], index, target, torch.ones_like(target, dtype=torch.bool)

    def embed(self, features: dict[str, Any]) -> Tensor:
        """The embeddings ``[n, d]`` of tokenised texts or labels."""
        embedded: Tensor = super().embed({name: value for name, value in features.items() if name != "column"})
        return embedded

    def contrast(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Logs]:
        n, pairs = len(batch["rows"]), batch["pairs"]
        label = embeddings[n:][pairs["index"]]
        logit = self.matcher(embeddings[:n, None], label)
        there = pairs["there"]
        cost: Tensor = self.objective(logit[there], pairs["target"][there]).mean()
        with torch.no_grad():
            right = ((logit > 0) == (pairs["target"] > 0))[there].float().mean()
        return cost, {"matched_right": right}


def _words(text: str) -> list[str]:
    """The words of a text, one for each part between blanks, "" for marks alone."""
    return [core(part)[1].lower() for part in text.split()]
