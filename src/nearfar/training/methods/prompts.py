"""Methods that ask a masked LM for a text's label: LM-SupCon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.contrast import Labels
from nearfar.encoders.heads import Pooler
from nearfar.encoders.inside import Inside
from nearfar.encoders.tokens import Tokenized, pretokenize, token_limit
from nearfar.errors import DataError, UsageError
from nearfar.objectives import SupCon
from nearfar.training.method import Batch, Logs
from nearfar.training.methods.masked_language import language_head
from nearfar.training.text_training import Option, TextMethod, TextSetting
from nearfar.views.text.templates import Prompts, Template, prompts

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

LM_SUPCON: Mapping[str, Option] = {
    "temperature": 0.07,
    "contrast_weight": 1.0,
    "templates": "{text} It was {mask}.|{text} All in all {mask}.|{text} This is {mask}.|{mask}: {text}",
    "label_words": "",
    "demonstrations": True,
    "steps": "sum",
}
"""Options of :class:`PromptedSupCon`."""

LEAST_ROOM = 4
"""Tokens of a text that must fit into a prompt."""


class PromptedSupCon(TextMethod):
    """A label is the word that a masked LM gives for [MASK] in a template around the text, and texts of the same label
    are near in two prompts of each (LM-SupCon; Jian et al., 2022).

    ``L = cross-entropy of the label words at [MASK] + contrast_weight * SupCon``. The cross-entropy is over the words
    of the labels alone, in the first template. SupCon (with its base temperature equal to the temperature) contrasts
    ``tanh(W h + b)`` of the vectors at [MASK], of two prompts of each text, all of them anchors.

    With demonstrations, each prompt goes on with a text of each label drawn anew, in the same template with the label's
    word, and both of SupCon's prompts have a template drawn at random; without them the first of the two is the prompt
    of the cross-entropy. Where a prompt is too long, its texts are cut to equal lengths.

    Options: ``temperature``; ``contrast_weight``; ``templates``, separated by ``|``, with ``{text}`` and ``{mask}``;
    ``label_words``: ``positive=great, negative=terrible``, by default the labels themselves; ``demonstrations``;
    ``steps``: "sum" (the paper's) or "alternate": the losses take turns, one optimiser step each (the official code
    takes both in turn on each batch, with an optimiser each).

    What is trained is the vector at [MASK] of a prompt; the exported encoder's embeddings of plain texts only follow.

    Logs both losses and the share of texts whose label the words tell. Raises DataError for labels that are no single
    token, UsageError for options that cannot be used or prompts that do not fit, ModelError without a masked-LM head.
    """

    turn: Tensor
    words: Tensor

    def __init__(self, setting: TextSetting) -> None:
        options, encoder = setting.options, setting.encoder
        temperature = float(options["temperature"])
        super().__init__(setting, SupCon(temperature=temperature, base_temperature=temperature))
        self.contrast_weight, self.steps = float(options["contrast_weight"]), str(options["steps"])
        if self.contrast_weight < 0:
            raise UsageError(f"the contrast_weight of lm-supcon is at least 0, got {self.contrast_weight}")
        if self.steps not in ("sum", "alternate"):
            raise UsageError(f"steps of lm-supcon are 'sum' or 'alternate', got {self.steps!r}", where="--set steps")
        inside = Inside(encoder)
        codes, names = setting.examples.labels()
        self.register_buffer("words", label_words(encoder, names, str(options["label_words"])), persistent=False)
        self.templates = templates_of(encoder, str(options["templates"]))
        self.demonstrations = bool(options["demonstrations"])
        self.room = _room(encoder, self.templates, len(names) if self.demonstrations else 0, inside)
        self.tokens: Tokenized | None = None
        if self.demonstrations:
            texts = (text for batch in setting.examples.batches() for text in batch["text"])
            self.tokens = pretokenize(encoder, texts)
            self.of_label = [torch.from_numpy((codes == code).nonzero()[0]) for code in range(len(names))]
        self.language = language_head(setting, "lm-supcon", new=False)
        self.head = Pooler(inside.dimension)
        self.register_buffer("turn", torch.zeros((), dtype=torch.long))

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        features, labels = batch["chunks"][0], batch["labels"]
        ids, there = self._content(features)
        labels = labels.to(ids.device)
        asked = self._prompts(ids, there, batch["rows"], vary=False)
        one = self._prompts(ids, there, batch["rows"], vary=True) if self.demonstrations else asked
        other = self._prompts(ids, there, batch["rows"], vary=True)
        by_words = self.at_answer(asked)
        self._remember(by_words)
        first = by_words if one is asked else self.at_answer(one)
        views = torch.cat([self.head(first), self.head(self.at_answer(other))])
        contrast: Tensor = self.objective(views, relation=Labels(labels.repeat(2)), memory=self.memory)
        logits = self.language(by_words)[:, self.words]
        answers = F.cross_entropy(logits.float(), labels)
        right = (logits.argmax(1) == labels).float().mean()
        logs = {"label words": answers.detach(), "contrast": contrast.detach(), "labels told": right}
        if self.steps == "alternate":
            return (self.contrast_weight * contrast if self.turn % 2 == 0 else answers), logs
        return answers + self.contrast_weight * contrast, logs

    def after_step(self, step: int) -> None:
        super().after_step(step)
        self.turn += 1

    def at_answer(self, asked: Prompts) -> Tensor:
        """The vectors ``[n, d]`` that the encoder gives at [MASK]."""
        return asked.at_answer(Inside(self.encoder).states(asked.ids, asked.mask).hidden)

    def _content(self, features: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """The ids of texts, and which of them are the text's: no [CLS], no [SEP], no padding."""
        ids, special = features["input_ids"], Inside(self.encoder).special
        there = features["attention_mask"].bool()
        for token in (special.first, special.last):
            if token is not None:
                there = there & (ids != token)
        return ids, there

    def _prompts(self, ids: Tensor, there: Tensor, rows: Tensor, *, vary: bool) -> Prompts:
        chosen = torch.randint(len(self.templates), (len(ids),)).to(ids.device) if vary else None
        shown = self._drawn(rows, ids.device) if self.demonstrations else ()
        return prompts(
            ids,
            there,
            self.templates,
            Inside(self.encoder).special,
            chosen=chosen,
            demonstrations=shown,
            room=self.room,
        )

    def _drawn(self, rows: Tensor, device: torch.device) -> list[tuple[Tensor, Tensor, int]]:
        """For every label and every text of ``rows`` a text of the label, another one where there is one."""
        assert self.tokens is not None
        found = []
        for code, of_label in enumerate(self.of_label):
            place = torch.randint(len(of_label), (len(rows),))
            own = of_label[place] == rows.cpu()
            place = torch.where(own, (place + 1) % len(of_label), place)
            ids, there = self._content(self.tokens.batch(of_label[place].numpy()))
            found.append((ids.to(device), there.to(device), int(self.words[code])))
        return found


def label_words(encoder: SentenceTransformer, labels: Sequence[str], written: str = "") -> Tensor:
    """The tokens ``[labels]`` (int64) whose logits at [MASK] stand for the labels.

    ``written``: ``"label=word, label=word"``; labels that are not named stand for themselves. A word is encoded with
    the space before it. Raises UsageError for a label that there is not, DataError for a word that is not one token of
    the vocabulary, or one word for two labels.
    """
    words = {label: label for label in labels}
    for entry in filter(None, (part.strip() for part in written.split(","))):
        label, equals, word = (part.strip() for part in entry.partition("="))
        if not equals or label not in words or not word:
            raise UsageError(
                f"label_words has {entry!r}, which gives no word to a label of the data",
                where="--set label_words=...",
                hint=f"write label=word, label=word; the labels are {', '.join(labels[:8])}",
            )
        words[label] = word
    found: dict[str, int] = {}
    for label, word in words.items():
        ids = _encode(encoder, f" {word}")
        if len(ids) != 1 or ids[0] == getattr(encoder.tokenizer, "unk_token_id", None):
            raise DataError(
                f"the label {label!r} is to be told by the word {word!r}, which is no token of the encoder",
                where="--set label_words=...",
                hint=f"give it a word that is one: --set label_words='{label}=WORD, ...'",
            )
        if ids[0] in found.values():
            raise DataError(
                f"the word {word!r} would stand for two labels",
                where="--set label_words=...",
                hint=f"give each label a word of its own: --set label_words='{label}=WORD, ...'",
            )
        found[label] = ids[0]
    return torch.tensor([found[label] for label in labels])


def templates_of(encoder: SentenceTransformer, written: str) -> list[Template]:
    """The templates in ``written``, separated by ``|``, in the encoder's tokens. Raises UsageError for none."""
    parts = [part for part in written.split("|") if part.strip()]
    if not parts:
        raise UsageError("there is no template", where="--set templates=...", hint="write '{text} It was {mask}.'")
    return [Template.parse(part, lambda text: _encode(encoder, text)) for part in parts]


def _encode(encoder: SentenceTransformer, text: str) -> list[int]:
    tokenizer: Any = encoder.tokenizer
    return [int(token) for token in tokenizer.encode(text, add_special_tokens=False)]


def _room(
    encoder: SentenceTransformer, templates: Sequence[Template], demonstrations: int, inside: Inside
) -> int | None:
    """How many tokens each text of a prompt may have, for prompts of all templates to fit; None: any number."""
    limit = token_limit(encoder)
    if limit is None:
        return None
    around = sum(token is not None for token in (inside.special.first, inside.special.last))
    parts = 1 + demonstrations
    room = (limit - around - parts * max(template.tokens for template in templates)) // parts
    if room < LEAST_ROOM:
        raise UsageError(
            f"a prompt of {parts} texts leaves {max(room, 0)} of {limit} tokens for each of them",
            where="--max-length",
            hint="allow longer prompts (--max-length)"
            + (", or do without demonstrations: --set demonstrations=false" if demonstrations else ""),
        )
    return room
