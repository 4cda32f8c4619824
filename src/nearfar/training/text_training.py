"""How a recipe trains on a user's file: what data it takes, what it asks of the encoder, and the method it makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from torch import Tensor, nn

from nearfar.training.method import Batch, ContrastiveMethod, Logs, Method

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from nearfar.data import Examples
    from nearfar.encoders.classifier_files import EmbeddingClassifier
    from nearfar.negatives import Batches
    from nearfar.objectives import Objective

Option: TypeAlias = float | int | str | bool

Need = Literal["transformer", "dropout", "masked-lm", "attentions"]
"""What an encoder must have: layers of a transformer that can be looked into; dropout; a head that predicts masked
tokens; attention maps."""


@dataclass
class TextSetting:
    """What a recipe's method is made for.

    ``encoder`` is trained and exported; ``examples`` are the training data; ``options`` the recipe's options, checked
    and complete; ``batch_size``, ``steps``, ``steps_per_epoch`` and ``seed`` those of the run. ``source`` is the folder
    that the encoder was loaded from, where what the encoder leaves out (a masked-LM head) can be found; None for an
    encoder that was made. A method is made anew when a run is resumed, with the encoder as it began, and its weights
    and buffers are then those of the checkpoint.
    """

    encoder: SentenceTransformer
    examples: Examples
    options: Mapping[str, Option]
    batch_size: int
    steps: int
    steps_per_epoch: int
    seed: int = 0
    source: Path | None = None

    @property
    def dimension(self) -> int:
        """Of the encoder's embeddings."""
        from nearfar.encoders.sentence_modules import dimension_of

        return dimension_of(self.encoder)


@dataclass(frozen=True)
class TextTraining:
    """How ``nearfar train FILE --recipe NAME`` trains.

    Arguments:
        method: makes what is trained; see :class:`TextMethod`.
        shapes: the shapes of data it takes, each with what it does with it in a sentence.
        options: the recipe's options and their defaults (``--set name=value``); types follow from the defaults.
        settings: defaults of :class:`~nearfar.training.TrainingSettings` that the paper sets (learning_rate,
            batch_size, max_length, epochs, objective_learning_rate, warmup, schedule, weight_decay); what the user sets
            stands before them. ``max_length`` is for training alone: the exported encoder reads as much of a text as it
            did before.
        needs: what the encoder must have.
        cached: whether a batch may be embedded in chunks with cached gradients: the loss is a function of the
            embeddings of its texts alone.
        passes: how often each text that is embedded passes through an encoder with a gradient, where there are several
            of them; what fits in memory is reckoned so.
        in_order: rows stay in their order within a batch (documents), instead of being shuffled.
        batches: makes the batches where they are not those of the shape; called with the examples, the options and the
            batch size, and with ``seed``, ``rank`` and ``processes`` by name.
    """

    method: Callable[[TextSetting], TextMethod]
    shapes: Mapping[str, str]
    options: Mapping[str, Option] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[Need, ...] = ()
    cached: bool = True
    passes: int = 1
    in_order: bool = False
    batches: Callable[..., Batches] | None = None


class TextMethod(ContrastiveMethod):
    """Base of the methods that recipes make: embeds the texts of a batch and costs them by :meth:`contrast`.

    A subclass keeps its heads, teachers and memories as modules (they are saved in checkpoints, not in the exported
    encoder) and overrides :meth:`contrast`, or :meth:`forward` where the embeddings are not enough. ``batch`` is as
    :class:`~nearfar.training.loading.TextBatches` makes it; embeddings come by column (texts: all texts, then all
    again with other dropout; pairs: anchors, positives, negatives).

    ``distributed`` says whether the loss is that of the global batch over several processes; without it a run over
    several is refused.
    """

    distributed: ClassVar[bool] = False
    objective: Any

    def __init__(self, setting: TextSetting, objective: Objective | nn.Module | None = None) -> None:
        Method.__init__(self)
        self.encoder = setting.encoder
        self.objective = nn.Module() if objective is None else objective
        self.shape = setting.examples.shape
        self.chunk_size = None
        self.memory = "auto"
        self.embeddings = None
        self.embedding_gradient = None

    def contrast(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Logs]:
        raise NotImplementedError

    def classifier(self) -> EmbeddingClassifier | None:
        """What tells classes apart by the encoder's embeddings, as they are: saved beside the encoder, where there is
        one."""
        return None
