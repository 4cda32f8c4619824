"""Methods that look for edits of a text: DiffCSE."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nearfar.encoders.discriminator import ReplacedTokenDiscriminator, fill_in, replaced_token_loss
from nearfar.encoders.heads import Projection
from nearfar.encoders.inside import Inside
from nearfar.encoders.load import folder_of
from nearfar.encoders.masked_language import WITHOUT_HEAD, MaskedLanguageModel, load_masked_language_model, same_tokens
from nearfar.encoders.tokens import token_limit
from nearfar.errors import ModelError, UsageError
from nearfar.objectives import InfoNCE
from nearfar.training.method import Batch, Logs, paired
from nearfar.training.text_training import Option, TextMethod, TextSetting

DIFFCSE: Mapping[str, Option] = {
    "temperature": 0.05,
    "weight": 0.005,
    "share": 0.3,
    "generator": "",
    "fill": "argmax",
    "places": "every",
    "over": "positions",
}
"""Options of :class:`DiffCSE`."""


class DiffCSE(TextMethod):
    """SimCSE, and a discriminator that finds in an edited text what was replaced, given the embedding of the text as it
    was (Chuang et al., 2022): ``InfoNCE + weight * replaced-token detection``.

    Both views of a text go through a head with batch normalisation, are contrasted, and each is the condition under
    which the discriminator reads an edit of its own. The gradient of that goes through the condition into the encoder.
    Head, generator and discriminator, which starts as a copy of the encoder, are dropped after training.

    Options: ``temperature``; ``weight`` of the detection; ``share`` of the words that are masked; ``generator``: the
    folder of a frozen masked LM that fills in, with the encoder's tokens, "" for the one that the encoder was loaded
    from; ``fill`` and ``places`` as of :func:`~nearfar.encoders.discriminator.fill_in`; ``over`` as of
    :func:`~nearfar.encoders.discriminator.replaced_token_loss`.

    Logs both losses and the share of the words that were replaced. Raises ModelError where the generator has no
    masked-LM head or other tokens, UsageError for options that cannot be used.
    """

    def __init__(self, setting: TextSetting) -> None:
        options = setting.options
        super().__init__(setting, InfoNCE(temperature=float(options["temperature"])))
        self.weight, self.share = float(options["weight"]), float(options["share"])
        if self.weight < 0 or not 0 <= self.share <= 1:
            raise UsageError(
                f"the weight of diffcse is at least 0 and its share in [0, 1], got {self.weight} and {self.share}"
            )
        self.fill: Any = options["fill"]
        self.places: Any = options["places"]
        self.over: Any = options["over"]
        width, dimension = Inside(setting.encoder).dimension, setting.dimension
        self.generator = MaskedLanguageModel(_generator(setting, str(options["generator"])))
        self.head = Projection((dimension, 2 * dimension, width), batch_norm=True, last="batch")
        self.discriminating_encoder = copy.deepcopy(setting.encoder)
        self.discriminator = ReplacedTokenDiscriminator(Inside(self.discriminating_encoder))

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        features, inside, n = batch["chunks"][0], Inside(self.encoder), len(batch["rows"])
        ids, there = features["input_ids"], features["attention_mask"].bool()
        embeddings = inside.pool(inside.states(ids, there))
        self._remember(embeddings)
        h = self.head(embeddings)
        contrast = self.objective(h[:n], h[n:], relation=paired(batch, n, columns=1), memory=self.memory)
        edited = fill_in(
            ids,
            self.generator,
            inside.special,
            vocabulary=inside.vocabulary,
            mask=there,
            share=self.share,
            fill=self.fill,
            places=self.places,
        )
        logits = self.discriminator(edited.ids, h, there)
        detection = replaced_token_loss(logits, edited, over=self.over)
        replaced = edited.replaced.sum() / there.sum().clamp_min(1)
        logs = {"contrast": contrast.detach(), "detection": detection.detach(), "replaced": replaced}
        return contrast + self.weight * detection, logs


def _generator(setting: TextSetting, named: str) -> Any:
    """The masked LM that fills in: the one ``named``, or the encoder as it was loaded."""
    where = "--set generator=..."
    if not named:
        if setting.source is None:
            raise ModelError(
                "the texts are edited by a masked LM, and this encoder has no head that predicts masked tokens",
                where=where,
                hint=f"name the folder of one with the encoder's tokens, or use another recipe: {WITHOUT_HEAD}",
            )
        try:
            return load_masked_language_model(setting.source)
        except ModelError as error:
            raise ModelError(
                f"the texts are edited by a masked LM, and the encoder's folder holds none: {error.message}",
                where=str(setting.source),
                hint="name the folder of one with the encoder's tokens by --set generator=DIR, or use another recipe: "
                f"{WITHOUT_HEAD}",
            ) from None
    folder = folder_of(named)
    model = load_masked_language_model(folder)
    if not same_tokens(setting.encoder, folder):
        raise ModelError(
            "the generator has other tokens than the encoder, so that neither can read what the other writes",
            where=f"{where[:-3]}{named}",
            hint="name a masked LM with the same tokenizer, such as the checkpoint the encoder was made from",
        )
    positions, limit = getattr(model.config, "max_position_embeddings", None), token_limit(setting.encoder)
    if isinstance(positions, int) and (limit is None or limit > positions > 0):
        raise UsageError(
            f"the generator reads {positions} tokens of a text, the encoder {'all' if limit is None else limit}",
            where=f"{where[:-3]}{named}",
            hint=f"use --max-length {positions} or less",
        )
    return model
