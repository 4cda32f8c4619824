"""Methods that learn from the order of sentences: which of them are neighbours (Quick-Thoughts)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nearfar.contrast import Adjacent
from nearfar.encoders.sentence_modules import is_static
from nearfar.errors import UsageError
from nearfar.negatives.running_text import RunningText
from nearfar.objectives import QuickThoughts
from nearfar.training import static
from nearfar.training.method import Batch, Logs
from nearfar.training.processes import process_group
from nearfar.training.text_training import Option, TextMethod, TextSetting

if TYPE_CHECKING:
    from nearfar.data import Examples

QUICK_THOUGHTS: Mapping[str, Option] = {
    "window": 1,
    "boundaries": True,
    "encoders": "auto",
    "score": "cosine",
    "temperature": 0.0,
}
"""Options of :class:`ContextPrediction`."""

_TEMPERATURES = {"dot": 1.0, "cosine": 0.05}


class ContextPrediction(TextMethod):
    """Each sentence finds its neighbours in a batch of running text, by two encoders f and g (Quick-Thoughts;
    Logeswaran & Lee, 2018): see :class:`~nearfar.objectives.QuickThoughts`.

    Options:
        window: how many places a neighbour may be away, default 1 (the paper's).
        boundaries: whether the sentences of other documents are no neighbours, default True (the official code knows
            no documents).
        encoders: "two": g is a copy of the encoder, trained beside it and dropped; f is exported. "halves": f is the
            first half of the encoder's dimensions and g the second, and all of it is exported, as the paper
            concatenates the two. The halves of a static encoder are two encoders that share nothing; those of a
            transformer share its layers. "auto" (default): halves of a static encoder, else two.
        score: "cosine" (default) or "dot" (the paper's, for encoders that are trained from the start: the vectors of a
            pretrained one are so long that the softmax of their dot products is saturated).
        temperature: 0 (default) means 0.05 for cosines and 1 for dot products (the paper's).

    Raises UsageError for options that do not exist, and for halves of an odd dimension.
    """

    distributed = True

    def __init__(self, setting: TextSetting) -> None:
        options = setting.options
        encoders = _chosen(options, "encoders", ("auto", "two", "halves"))
        if encoders == "auto":
            encoders = "halves" if is_static(setting.encoder) else "two"
        score = _chosen(options, "score", tuple(_TEMPERATURES))
        temperature = float(options["temperature"]) or _TEMPERATURES[score]
        super().__init__(setting, QuickThoughts(int(options["window"]), score=score, temperature=temperature))
        self.boundaries = bool(options["boundaries"])
        if encoders == "halves" and setting.dimension % 2:
            raise UsageError(
                f"{setting.dimension} dimensions have no halves",
                where="--set encoders=halves",
                hint="use --set encoders=two, or an even --dimension",
            )
        # "encoder" in its name: it learns at the rate of the encoder that it is a copy of
        self.context_encoder: nn.Module | None = copy.deepcopy(setting.encoder) if encoders == "two" else None

    def embed(self, features: dict[str, Any]) -> Tensor:
        """f and g of tokenised texts, side by side."""
        own = static.embed(self.encoder, features)
        if self.context_encoder is None:
            return own
        return torch.cat([own, static.embed(self.context_encoder, features)], 1)  # type: ignore[arg-type]

    def contrast(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Logs]:
        query, key = embeddings.chunk(2, 1)
        document = batch["documents"].to(query.device) if self.boundaries else None
        relation = Adjacent(self.objective.window, document=document, position=batch["rows"].to(query.device))
        loss: Tensor = self.objective(query, key, relation=relation, memory=self.memory, group=process_group())
        return loss, {}


def _chosen(options: Mapping[str, Option], name: str, choices: tuple[str, ...]) -> str:
    value = str(options[name])
    if value not in choices:
        raise UsageError(
            f"there is no {name} {value!r}", where=f"--set {name}={value}", hint=f"choose one of {', '.join(choices)}"
        )
    return value


def running_text(
    examples: Examples,
    options: Mapping[str, Option],
    batch_size: int,
    *,
    seed: int = 0,
    rank: int = 0,
    processes: int = 1,
) -> RunningText:
    """The batches of documents: running text, of several documents where they are short."""
    return RunningText(examples.documents(), batch_size, seed=seed, rank=rank, processes=processes)
