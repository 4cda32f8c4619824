"""Methods that train an encoder as a masked LM beside a contrast: CLEAR."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from nearfar.contrast import Paired
from nearfar.encoders.heads import Projection
from nearfar.encoders.inside import Inside
from nearfar.encoders.masked_language import (
    WITHOUT_HEAD,
    MaskedLanguageHead,
    embedding_table,
    masked_language_loss,
    pretrained_head,
)
from nearfar.encoders.tokens import pretokenize
from nearfar.errors import ModelError, UsageError
from nearfar.objectives import InfoNCE
from nearfar.training.method import Batch, Logs
from nearfar.training.text_training import Option, TextMethod, TextSetting
from nearfar.views.text.token_operations import operation, similar_tokens

CLEAR: Mapping[str, Option] = {
    "temperature": 0.1,
    "operations": "del-word",
    "deleted": "[DEL]",
    "share": 0.15,
    "language_weight": 1.0,
    "new_head": False,
}
"""Options of :class:`Clear`."""

UNUSED = "[unused0]"
"""A token of BERT's vocabulary that stands for nothing, and may stand for what was deleted."""


class Clear(TextMethod):
    """NT-Xent of two views by operations on words, and masked language modelling (CLEAR; Wu et al., 2020).

    ``L = NT-Xent + language_weight * masked language``: the embeddings of the two views of each of n texts go through a
    projection head, and all 2 n are anchors; words of the texts themselves are masked.

    Options: ``temperature``; ``operations``: del-word, del-span, reorder or subs
    (:mod:`~nearfar.views.text.token_operations`) for both views, or one for each, ``subs+del-span``; ``deleted``: the
    token that stands for deleted words, where the vocabulary lacks it BERT's ``[unused0]``, else they leave no trace;
    ``share`` of the words that are masked; ``language_weight``: 0 for the contrast alone; ``new_head``: begin with a
    new masked-LM head, tied to the encoder's embeddings, instead of that of the encoder's folder.

    ``subs`` takes words near in the encoder's table of embeddings as it began. Logs both losses. Raises ModelError
    where a head is needed and there is none, UsageError for operations that do not exist.
    """

    def __init__(self, setting: TextSetting) -> None:
        options = setting.options
        super().__init__(setting, InfoNCE(temperature=float(options["temperature"])))
        self.share, self.language_weight = float(options["share"]), float(options["language_weight"])
        if self.language_weight < 0 or not 0 <= self.share <= 1:
            raise UsageError(
                f"the language_weight of clear is at least 0 and its share in [0, 1], got {self.language_weight} and "
                f"{self.share}"
            )
        names = str(options["operations"]).split("+")
        if len(names) > 2:
            raise UsageError(f"clear makes two views, and {len(names)} operations were given", where="--set operations")
        special, vocabulary = Inside(setting.encoder).special, setting.encoder.tokenizer.get_vocab()
        mark = vocabulary.get(str(options["deleted"]), vocabulary.get(UNUSED))
        self.operations = [
            operation(name, special=special, mark=mark, similar=lambda: _similar(setting)) for name in names
        ]
        self.language: nn.Module | None = None
        if self.language_weight:
            self.language = language_head(setting, "clear", new=bool(options["new_head"]))
        self.head = Projection([setting.dimension] * 3)

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        features, inside, n = batch["chunks"][0], Inside(self.encoder), len(batch["rows"])
        ids, there = features["input_ids"][:n], features["attention_mask"][:n].bool()
        views = torch.cat([self.operations[0](ids), self.operations[-1](ids)])
        embeddings = inside.pool(inside.states(views))
        self._remember(embeddings)
        relation = Paired(batch["rows"].repeat(2), query_exclude=batch.get("exclude"))
        contrast: Tensor = self.objective(self.head(embeddings), relation=relation, memory=self.memory)
        if self.language is None:
            return contrast, {}
        language = masked_language_loss(inside, self.language, ids, there, share=self.share)
        logs = {"contrast": contrast.detach(), "masked language": language.detach()}
        return contrast + self.language_weight * language, logs


def language_head(setting: TextSetting, name: str, *, new: bool) -> nn.Module:
    """The masked-LM head of the encoder's folder, tied to the encoder, or a ``new`` one for the recipe ``name``.

    Raises ModelError where the folder has none, with what would do.
    """
    if new:
        return MaskedLanguageHead(embedding_table(setting.encoder), Inside(setting.encoder).dimension)
    why = "there is no folder it was loaded from"
    if setting.source is not None:
        try:
            return pretrained_head(setting.source, setting.encoder)
        except ModelError as error:
            why = error.message
    raise ModelError(
        f"{name} needs a head that predicts masked tokens, and the encoder has none: {why}",
        where=None if setting.source is None else str(setting.source),
        hint="use the folder of a masked LM, begin with a new head by --set new_head=true, or use another recipe: "
        f"{WITHOUT_HEAD}",
    )


def _similar(setting: TextSetting) -> Tensor:
    """Tokens near, in the encoder's table of embeddings, to those that the texts have."""
    texts = (text for batch in setting.examples.batches() for text in batch["text"])
    used = torch.from_numpy(np.unique(pretokenize(setting.encoder, texts).ids).astype(np.int64))
    return similar_tokens(embedding_table(setting.encoder).detach(), Inside(setting.encoder).special, of=used)
