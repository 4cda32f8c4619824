"""Methods that restore a text from its embedding: DenoSent."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nearfar.encoders.denoising import DenoisingDecoder, restoration_loss, restored_share
from nearfar.encoders.inside import Inside
from nearfar.errors import UsageError
from nearfar.objectives import InfoNCE
from nearfar.training.method import Batch, Logs, paired
from nearfar.training.methods.masked_language import language_head
from nearfar.training.text_training import Option, TextMethod, TextSetting

DENOSENT: Mapping[str, Option] = {
    "temperature": 0.05,
    "contrast_weight": 5.0,
    "denoising_weight": 7.0,
    "corruption": 0.825,
    "layers": 16,
    "heads": 1,
    "hidden": 2048,
    "new_head": False,
}
"""Options of :class:`DenoSent`."""


class DenoSent(TextMethod):
    """A contrast, and a decoder that restores a text from an embedding and corrupted tokens (Wang et al., 2024):
    ``contrast_weight * InfoNCE + denoising_weight * restoration``.

    A linear map of the embeddings serves both and is dropped after training, as is the decoder. Pairs are a text and a
    paraphrase: they are contrasted, and the paraphrase is restored from the text's vector and its own corrupted tokens.
    Texts alone are their own paraphrases, with other dropout.

    Options: ``temperature`` (0.05 in the official command, 0.03 in the paper); the two weights, of which one may be 0;
    ``corruption``, ``layers``, ``heads`` and ``hidden`` as of :class:`~nearfar.encoders.denoising.DenoisingDecoder`;
    ``new_head``: begin with a new masked-LM head, tied to the encoder's embeddings, instead of that of the encoder's
    folder; either is trained.

    Logs both losses and the share of tokens that were restored. Raises ModelError where there is no head, UsageError
    for options that cannot be used. The paper wraps texts in a template and takes the vector at its [MASK]; here the
    vector is what the encoder gives, so that the folder that is exported needs no template.
    """

    def __init__(self, setting: TextSetting) -> None:
        options = setting.options
        super().__init__(setting, InfoNCE(temperature=float(options["temperature"])))
        self.contrast_weight = float(options["contrast_weight"])
        self.denoising_weight = float(options["denoising_weight"])
        if min(self.contrast_weight, self.denoising_weight) < 0 or self.contrast_weight + self.denoising_weight == 0:
            raise UsageError("contrast_weight and denoising_weight of denosent are at least 0, and not both 0")
        width = Inside(setting.encoder).dimension
        self.head = nn.Linear(setting.dimension, width)
        self.decoder: DenoisingDecoder | None = None
        self.language: nn.Module | None = None
        if self.denoising_weight:
            self.decoder = DenoisingDecoder(
                width,
                layers=int(options["layers"]),
                heads=int(options["heads"]),
                hidden=int(options["hidden"]),
                corruption=float(options["corruption"]),
            )
            self.language = language_head(setting, "denosent", new=bool(options["new_head"]))

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        features, inside, n = batch["chunks"][0], Inside(self.encoder), len(batch["rows"])
        ids, there = features["input_ids"], features["attention_mask"].bool()
        embeddings = inside.pool(inside.states(ids, there))
        self._remember(embeddings)
        sentence = self.head(embeddings)
        loss, logs = sentence.new_zeros(()), Logs()
        if self.contrast_weight:
            relation = paired(batch, len(sentence) - n, columns=1 if self.shape == "texts" else 0)
            contrast = self.objective(sentence[:n], sentence[n:], relation=relation, memory=self.memory)
            loss = loss + self.contrast_weight * contrast
            logs["contrast"] = contrast.detach()
        if self.decoder is not None and self.language is not None:
            paraphrase, inner = ids[n : 2 * n], there[n : 2 * n]
            with torch.no_grad():
                embedded = inside.embed(paraphrase)
            logits = self.language(self.decoder(embedded, sentence[:n], inner)[inner])
            restoration = restoration_loss(logits, paraphrase[inner])
            loss = loss + self.denoising_weight * restoration
            logs |= {"restoration": restoration.detach(), "restored": restored_share(logits, paraphrase[inner])}
        return loss, logs
