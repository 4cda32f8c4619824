"""Training on texts by two views of each, chosen by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nearfar import objectives
from nearfar.encoders.abilities import has_dropout
from nearfar.encoders.inside import Inside
from nearfar.encoders.masked_language import MaskedLanguageModel, embedding_table, load_masked_language_model
from nearfar.errors import UsageError
from nearfar.objectives import Objective
from nearfar.training.loading import prompt_of
from nearfar.training.method import Batch, ContrastiveMethod, Logs, paired
from nearfar.training.methods.retokenised import tokenised
from nearfar.training.processes import process_group
from nearfar.training.shapes import check_fit
from nearfar.training.text_training import Option, TextMethod, TextSetting
from nearfar.views.text.base import seed_of
from nearfar.views.text.registry import parse
from nearfar.views.text.sides import Side
from nearfar.views.text.token_operations import similar_tokens

OPTIONS: Mapping[str, Option] = {
    "view1": "identity",
    "view2": "repetition",
    "negative": "none",
    "pairs": "none",
    "objective": "info-nce",
    "temperature": 0.05,
    "thesaurus": "none",
    "antonyms": "none",
    "model": "none",
    "there": "none",
    "back": "none",
}
"""Options of :class:`TextViews`."""

_FILES = ("thesaurus", "antonyms", "model", "there", "back")


class TextViews(TextMethod):
    """Two views of each text near, those of other texts far, by any objective for rows or views.

    ``view1`` and ``view2`` are written as :func:`~nearfar.views.text.registry.parse` reads them
    (``synonym:0.2+punctuation``); with ``pairs`` each text is first made two (inverse-cloze). With ``negative`` a third
    version of each text, one of another meaning, is a hard negative where it differs from the text; the first view is
    then contrasted with the second views and all of these. The encoder's own dropout acts on all of them.

    What a view of strings does to a text is decided by the run's seed, the epoch, the text's row and the side; what
    goes on in the encoder by torch's generator: a resumed run goes on alike.
    """

    distributed = True

    def __init__(self, setting: TextSetting) -> None:
        options = {name: "" if value == "none" else value for name, value in setting.options.items()}
        super().__init__(setting, _objective(str(options["objective"]), float(options["temperature"])))
        resources = _resources(setting, options)
        self.split = Side(str(options["pairs"]), resources, pairs=True).pairs if options["pairs"] else None
        self.sides = [Side(str(options[name]), resources) for name in ("view1", "view2")]
        if options["negative"]:
            self.sides.append(Side(str(options["negative"]), resources))
        self._check(setting, self.sides)
        # not registered: it holds no parameter that the encoder does not
        self._inside = [Inside(setting.encoder)] if any(side.inside for side in self.sides) else []
        self.examples, self.seed = setting.examples, setting.seed
        self.prompt = prompt_of(setting.encoder, "text")
        self.epoch = nn.Buffer(torch.zeros((), dtype=torch.int64))
        self._steps: dict[int, tuple[Tensor, ...]] = {}

    def _check(self, setting: TextSetting, sides: Sequence[Side]) -> None:
        one, other = sides[:2]
        for side in sides[:2]:
            if "negative" in side.gives:
                raise UsageError(
                    f"{side.written} changes what a text says, and views must say the same", hint="take it as negative"
                )
        if len(sides) > 2 and self.objective.kind != "row":
            raise UsageError(
                f"{self.objective.name} contrasts two views and has no place for hard negatives",
                hint="leave negative out, or take a row objective, such as info-nce",
            )
        alike = one.written == other.written and not one.random and self.split is None
        if alike and not has_dropout(setting.encoder):
            raise UsageError(
                f"both views are {one.written!r}, in which nothing is random, and the encoder has no dropout: they "
                "would be the same",
                hint="take another view on one side, such as view2=repetition; nearfar views lists all",
            )

    def before_epoch(self, epoch: int) -> None:
        self.epoch.fill_(epoch)

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        return super().forward(self.seen(batch))

    def seen(self, batch: Batch) -> Batch:
        """The batch whose texts are the views: ``chunks`` of a side each, ``order`` and, of negatives, which texts have
        one."""
        rows = np.asarray(batch["rows"].tolist(), dtype=np.int64)
        texts = self.examples.take(rows)["text"]
        epoch = int(self.epoch)
        sources = [texts] * len(self.sides)
        if self.split is not None:
            sources[0], sources[1] = self.split.by_seeds(texts, [seed_of(self.seed, epoch, row, 99) for row in rows])
            sources[2:] = [sources[1]] * (len(self.sides) - 2)
        columns = [
            side.said(source, [seed_of(self.seed, epoch, row, place) for row in rows])
            for place, (side, source) in enumerate(zip(self.sides, sources, strict=True))
        ]
        if len(columns) > 2:
            columns[2] = [new for new, old in zip(columns[2], sources[2], strict=True) if new != old]
        for side, said in zip(self.sides, columns, strict=True):
            if side.together and self.chunk_size is not None and self.chunk_size < len(said):
                raise UsageError(
                    f"{side.written} needs all texts of a batch at once, and they are embedded {self.chunk_size} at a "
                    "time",
                    hint=f"take a smaller batch, or --chunk-size {len(said)}",
                )
        said_so = [[self.prompt + text for text in said] for said in columns]
        chunks, order = tokenised(self.encoder, said_so, size=self.chunk_size)
        self._steps.clear()
        return {**batch, "chunks": chunks, "order": order}

    def embed(self, features: dict[str, Any]) -> Tensor:
        """The embeddings ``[n, d]`` of the tokenised texts of a side."""
        number = features["column"]
        side = self.sides[number]
        features = {name: value for name, value in features.items() if name != "column"}

        def embed() -> Tensor:
            if not side.inside:
                embedded: Tensor = super(TextViews, self).embed(features)
                return embedded
            encoder = self._inside[0]
            found = side.inputs(encoder, features["input_ids"], features["attention_mask"].bool())
            if side.adversarial is not None:
                self._steps[number] = found
            return encoder.pool(encoder.states(found[1], found[2], inputs=found[0]))

        embeddings: Tensor = side.embedded(embed, self.encoder)
        return embeddings

    def contrast(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Logs]:
        loss, logs = self._contrast(embeddings, batch)
        steps = [number for number in self._steps if self._steps[number][0].requires_grad]
        if not steps:
            return loss, logs
        n = len(batch["rows"])
        parts = list(torch.split(embeddings, [n, n, len(embeddings) - 2 * n]))
        for number in steps:
            parts[number] = self._stepped(number, loss)
        harder, logs = self._contrast(torch.cat(parts), batch)
        return harder, {**logs, "loss_before_step": loss.detach()}

    def _stepped(self, number: int, loss: Tensor) -> Tensor:
        """The embeddings of a side whose inputs take a step up the gradient of the loss."""
        side, encoder = self.sides[number], self._inside[0]
        inputs, ids, mask, words = self._steps[number]
        assert side.adversarial is not None
        moved = side.adversarial(loss, inputs, words)
        return side.embedded(lambda: encoder.pool(encoder.states(ids, mask, inputs=moved)), self.encoder)

    def _contrast(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Logs]:
        n = len(batch["rows"])
        if len(self.sides) == 2:
            return ContrastiveMethod.contrast(self, embeddings, batch)
        key = embeddings[n:]
        relation = paired(batch, len(key), columns=1)
        loss: Tensor = self.objective(embeddings[:n], key, relation=relation, memory=self.memory, group=process_group())
        return loss, {"negatives": len(key) - n}


def _objective(name: str, temperature: float) -> Objective:
    cls, _ = objectives.find(name)
    known = inspect.signature(cls).parameters
    made = objectives.get(name, **({"temperature": temperature} if "temperature" in known else {}))
    check_fit(made, "texts")
    return made


def _resources(setting: TextSetting, options: Mapping[str, Option]) -> dict[str, Callable[[], Any]]:
    """What views can ask for: the user's files, the training texts, what the encoder has."""
    found: dict[str, Callable[[], Any]] = {name: partial(str, options[name]) for name in _FILES if options[name]}

    def inside() -> Inside:
        return Inside(setting.encoder)

    def similar() -> Tensor:
        return similar_tokens(embedding_table(setting.encoder).detach(), inside().special)

    found |= {
        "texts": setting.examples.texts,
        "special": lambda: inside().special,
        "vocabulary": lambda: inside().vocabulary,
        "similar": similar,
        "padding_side": lambda: str(getattr(setting.encoder.tokenizer, "padding_side", "right")),
    }
    written = "+".join(str(options[name]) for name in ("view1", "view2", "negative") if options[name])
    if options["model"] and any(entry.name == "masked-lm" for entry, _ in parse(written or "identity")):
        found["model"] = lambda: _language_model(setting, str(options["model"]))
    return found


def _language_model(setting: TextSetting, folder: str) -> MaskedLanguageModel:
    model = load_masked_language_model(folder)
    vocabulary = Inside(setting.encoder).vocabulary
    if model.config.vocab_size != vocabulary:
        raise UsageError(
            f"the masked language model has {model.config.vocab_size:,} tokens and the encoder {vocabulary:,}",
            where=folder,
            hint="both must have the same tokenizer",
        )
    return MaskedLanguageModel(model).to(setting.encoder.device)
