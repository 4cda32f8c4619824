"""Positives and hard negatives that are drawn among the user's texts: DebCSE."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from nearfar import encoders
from nearfar.contrast import Paired
from nearfar.errors import DataError
from nearfar.negatives.propensity import PropensityRules, PropensitySampler, Words
from nearfar.objectives import InfoNCE
from nearfar.training.method import Batch, Logs
from nearfar.training.methods.retokenised import tokenised
from nearfar.training.text_training import TextMethod, TextSetting


class DebiasedSampling(TextMethod):
    """InfoNCE with a hard negative, over positives and negatives drawn by inverse propensity (after DebCSE, 2023).

    For each epoch every text gets a positive and a negative among the other texts, as
    :class:`~nearfar.negatives.propensity.PropensitySampler` draws them; where there is no positive, the text itself
    with other dropout is one. The reference is the encoder as it begins, or the model's folder in ``reference``. Keys
    that are equal to a text or to its positive are no negatives of it. Draws are buffers: a run that is resumed has
    them.

    Options: ``reference``, ``near``, ``far``, ``power``, ``clip``, ``same`` of
    :class:`~nearfar.negatives.propensity.PropensityRules`, ``temperature``. Raises
    :class:`~nearfar.errors.DataError` for too few texts.
    """

    positive: Tensor
    negative: Tensor

    def __init__(self, setting: TextSetting) -> None:
        options = setting.options
        super().__init__(setting, InfoNCE(temperature=float(options["temperature"])))
        rules = PropensityRules(
            near=int(options["near"]),
            far=int(options["far"]),
            power=float(options["power"]),
            clip=float(options["clip"]),
            same=float(options["same"]),
        )
        self.examples = setting.examples
        texts = setting.examples.column("text")
        if len(texts) < rules.near + 2:
            raise DataError(
                f"{len(texts)} texts are too few to draw from the {rules.near} nearest and from others",
                where="--set near=...",
                hint="lower near, give more texts, or train by simcse",
            )
        folder = str(options["reference"])
        reference = encoders.load(folder) if folder else setting.encoder
        embedded = torch.from_numpy(encoders.encode(reference, texts))
        self.sampler = PropensitySampler(embedded, Words(texts), rules, seed=setting.seed)
        without = float((self.sampler.negative_weights.sum(1) == 0).float().mean())
        if without > 0.5:
            warnings.warn(
                f"to the reference, {without:.0%} of the texts have no candidate that means anything else: they get no "
                f"hard negative; name another reference, or raise same above {rules.same:g}",
                UserWarning,
                stacklevel=2,
            )
        # equal for equal texts
        self.names = torch.from_numpy((setting.examples.hashes("text") >> 1).astype("int64"))
        self.register_buffer("positive", torch.full((len(texts),), -1))
        self.register_buffer("negative", torch.full((len(texts),), -1))

    def before_epoch(self, epoch: int) -> None:
        positive, negative = self.sampler.draw()
        self.positive.copy_(positive)
        self.negative.copy_(negative)

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        rows: Tensor = batch["rows"]
        positive, negative = self.positive[rows].cpu(), self.negative[rows].cpu()
        near = torch.where(positive >= 0, positive, rows)
        keys = torch.cat([near, negative[negative >= 0]])
        columns = [self.examples.take(each.tolist())["text"] for each in (rows, keys)]
        embeddings = torch.cat([self.embed(chunk) for chunk in tokenised(self.encoder, columns)[0]])
        self._remember(embeddings)
        n = len(rows)
        # a key that says the text itself, or its positive, word by word
        equal = self.names[rows][:, None] == self.names[keys][None, :]
        equal |= self.names[near][:, None] == self.names[keys][None, :]
        equal[torch.arange(n), torch.arange(n)] = False
        loss: Tensor = self.objective(embeddings[:n], embeddings[n:], relation=Paired().ignore(equal))
        drawn = {"drawn positives": positive, "drawn negatives": negative}
        return loss, {name: (found >= 0).float().mean() for name, found in drawn.items()}
