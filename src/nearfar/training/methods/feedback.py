"""Learning from a judge's scores of pairs: CLAIF and CLHAIF."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from nearfar import encoders
from nearfar.data.judged_pairs import gapped, smoothed, without_gaps
from nearfar.encoders.judge import EncoderJudge
from nearfar.errors import DataError, UsageError
from nearfar.objectives import CLAIF, CLHAIF
from nearfar.training.method import Batch, Logs, paired
from nearfar.training.methods.retokenised import tokenised
from nearfar.training.text_training import TextMethod, TextSetting

LOWEST_RATE, HIGHEST_RATE = 0.1, 0.8
"""Of the words of a text that are left out of its partner."""

OPPOSITES = 2 / 11
"""The share of texts that are paired with a random other one: two beside one for each of nine rates in the paper."""


class JudgedRegression(TextMethod):
    """The cosine of two texts drawn to a score in [0, 1] (CLAIF; Cheng et al., 2023).

    Scored pairs are taken as they are, with ``smooth`` as ``0.8 y + 0.1``. Of texts alone each is paired with itself
    without a share of its words, drawn from 0.1 to 0.8 in each step anew, and the ``judge`` (a model's folder, or
    minilm) says how alike the two remain, smoothed; or, for :data:`OPPOSITES` of them, with another text of the batch
    and the score 0. What a language model would write into the gaps needs
    :func:`nearfar.data.judged_pairs.judged_pairs`, which makes scored pairs ahead.

    Raises :class:`~nearfar.errors.DataError` for scores outside [0, 1], :class:`~nearfar.errors.ModelError` where the
    judge is no model.
    """

    objective: CLAIF
    texts_alone: bool

    def __init__(self, setting: TextSetting) -> None:
        super().__init__(setting, CLAIF())
        self.texts_alone = setting.examples.shape == "texts"
        self.smooth = bool(setting.options["smooth"])
        self.examples = setting.examples
        self.judge: EncoderJudge | None = None
        if self.texts_alone:
            self.judge = judge_of(str(setting.options["judge"]))
        else:
            scores = np.asarray(setting.examples.column("score"))
            if scores.min() < 0 or scores.max() > 1:
                raise DataError(
                    f"a judge's scores lie in [0, 1], and these from {scores.min():g} to {scores.max():g}",
                    hint="divide by the largest score, or take an objective for any scale: --objective cosent",
                )

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        if not self.texts_alone:
            return super().forward(batch)
        assert self.judge is not None
        texts = self.examples.take(batch["rows"].tolist())["text"]
        partners, grade = self._partners(texts)
        device = self.encoder.device
        # partners are made in each step anew, so that they are not among what was tokenised ahead
        embeddings = torch.cat([self.embed(chunk) for chunk in tokenised(self.encoder, [texts, partners])[0]])
        self._remember(embeddings)
        # a text of which nothing was taken, or nothing is left, says nothing
        told = torch.tensor([other != "" and other != one for one, other in zip(texts, partners, strict=True)])
        if not bool(told.any()):
            return embeddings.sum() * 0.0, {}
        one, other = (each[told.to(device)] for each in embeddings.chunk(2))
        loss: Tensor = self.objective(one, other, grade=grade[told].to(device))
        return loss, {"score": grade[told].mean()}

    def _partners(self, texts: list[str]) -> tuple[list[str], Tensor]:
        """A partner of each text, and its score."""
        assert self.judge is not None
        rate = torch.rand(len(texts)) * (HIGHEST_RATE - LOWEST_RATE) + LOWEST_RATE
        changed = [without_gaps(gapped(text, float(share))) for text, share in zip(texts, rate, strict=True)]
        step = int(torch.randint(1, max(len(texts), 2), ()))
        far = torch.rand(len(texts)) < (OPPOSITES if len(texts) > 1 else 0.0)
        others = texts[step:] + texts[:step]
        partners = [others[place] if far[place] else changed[place] for place in range(len(texts))]
        return partners, torch.where(far, 0.0, smoothed(self.judge(texts, partners)))

    def contrast(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Logs]:
        first, second = embeddings.chunk(2)
        grade = batch["targets"].to(embeddings.device)
        loss: Tensor = self.objective(first, second, grade=smoothed(grade) if self.smooth else grade)
        return loss, {}


class JudgedContrast(TextMethod):
    """Pairs with hard negatives, whose positives count as much as a judge finds them alike (CLHAIF).

    The ``judge`` (a model's folder, or minilm) scores anchor and positive of each pair in [0, 1]; ``form`` and
    ``temperature`` are those of :class:`~nearfar.objectives.CLHAIF`. Hard negatives are not judged, as in the paper.
    """

    objective: CLHAIF
    distributed: ClassVar[bool] = False

    def __init__(self, setting: TextSetting) -> None:
        options = setting.options
        objective = CLHAIF(str(options["form"]), temperature=float(options["temperature"]))
        super().__init__(setting, objective)
        self.examples = setting.examples
        self.judge = judge_of(str(options["judge"]))

    def contrast(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Logs]:
        rows = batch["rows"]
        n = len(rows)
        pairs = self.examples.take(rows.tolist())
        grade = self.judge(pairs["anchor"], pairs["positive"]).to(embeddings.device)
        relation = paired(batch, len(embeddings) - n)
        loss: Tensor = self.objective(
            embeddings[:n], embeddings[n:], grade=grade, relation=relation, memory=self.memory
        )
        return loss, {"score": grade.mean()}


def judge_of(name: str) -> EncoderJudge:
    """The judge in the model's folder ``name``, or minilm. Raises :class:`~nearfar.errors.UsageError` for no name."""
    if not name:
        raise UsageError("no judge was named", where="--set judge=...", hint="name a model's folder, or minilm")
    return EncoderJudge(encoders.load(name, device="cpu"))
