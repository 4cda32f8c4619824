"""One draw of a few examples: the encoder tuned on their pairs, the baselines, what each says of the asked texts."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from nearfar.classify.model import TextClassifier
from nearfar.classify.settings import LINEAR_HEAD, SETFIT, UNTUNED, ClassifySettings
from nearfar.encoders.linear_classifier import LinearClassifier, logistic_regression
from nearfar.errors import MissingExtraError, TrainingError
from nearfar.training import TrainingSettings
from nearfar.training.by_recipe import RecipeRun, complete
from nearfar.training.methods import label_pairs, linear_head
from nearfar.training.text_training import TextMethod, TextSetting, TextTraining

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from nearfar.data import Examples

Codes = npt.NDArray[np.int64]


@dataclass
class Draw:
    """What came of a draw: its ``rows`` of the pool, what each method ``predicted`` (codes of the labels, by method),
    ``seconds`` by method, and the ``steps`` of tuning."""

    rows: list[int]
    predicted: dict[str, list[int]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    steps: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return dict(self.__dict__)


class Bench:
    """What all draws share: the encoder and where it begins, the texts to be asked, the labels.

    ``asked`` are texts with labels among ``labels``. The encoder is put back before each training.
    """

    def __init__(self, settings: ClassifySettings, encoder: SentenceTransformer, asked: Examples, labels: list[str]):
        from nearfar.encoders.sentence_modules import is_static

        self.settings, self.encoder, self.labels = settings, encoder, labels
        self.asked = asked.column("text")
        self.static = is_static(encoder)
        self._initial = {name: value.detach().clone() for name, value in encoder.state_dict().items()}
        self._untuned: npt.NDArray[Any] | None = None

    def begin(self) -> None:
        """Put the encoder to where it was loaded."""
        self.encoder.load_state_dict(self._initial)
        self.encoder.eval()

    def draw(self, examples: Examples, rows: Codes, number: int, folder: Path, keep: Path | None) -> Draw:
        """Everything of one draw; ``examples`` are its labelled texts, ``rows`` where they are from, ``folder`` for
        checkpoints; the tuned classifier is saved to ``keep``."""
        made = Draw(rows.tolist())
        codes = examples.labels(self.labels)[0]
        for method in (SETFIT, *self.settings.baselines):
            began = perf_counter()
            if method == SETFIT:
                predicted = self._setfit(examples, codes, number, folder, keep, made)
            elif method == UNTUNED:
                predicted = self._untouched(examples, codes)
            elif method == LINEAR_HEAD:
                predicted = self._linear_head(examples, codes, number, folder, made.steps)
            else:
                predicted = self._tf_idf(examples, codes)
            made.predicted[method] = predicted.tolist()
            made.seconds[method] = perf_counter() - began
        return made

    def _setfit(
        self, examples: Examples, codes: Codes, number: int, folder: Path, keep: Path | None, made: Draw
    ) -> Codes:
        settings = self.settings
        options = {
            "strategy": settings.strategy,
            "iterations": settings.iterations or 0,
            "pairs": 0 if settings.iterations else settings.pairs,
            "itself": settings.itself,
        }
        made.steps = self._trained(SETFIT, label_pairs.TRAINING, options, examples, number, folder)
        head = self._fitted(examples, codes)
        if keep is not None:
            TextClassifier(self.encoder, head).save(keep, overwrite=True)
        return self._answers(head, self._embedded(self.asked))

    def _untouched(self, examples: Examples, codes: Codes) -> Codes:
        self.begin()
        if self._untuned is None:
            self._untuned = self._embedded(self.asked)
        return self._answers(self._fitted(examples, codes), self._untuned)

    def _linear_head(self, examples: Examples, codes: Codes, number: int, folder: Path, steps: int) -> Codes:
        kept: list[linear_head.LinearHead] = []

        def method(setting: TextSetting) -> TextMethod:
            kept.append(linear_head.LinearHead(setting))
            return kept[-1]

        training = replace(linear_head.TRAINING, method=method)
        self._trained(LINEAR_HEAD, training, {}, examples, number, folder, steps=steps)
        with torch.inference_mode():
            # the layer saw embeddings as the encoder gives them
            points = torch.from_numpy(self._embedded(self.asked, normalize=False)).to(self.encoder.device)
            found = kept[-1].head(points).argmax(1).cpu().numpy()
        known = np.unique(codes)  # the examples' labels in the order of their names, which is that of their codes
        return np.asarray(known[found], np.int64)

    def _tf_idf(self, examples: Examples, codes: Codes) -> Codes:
        try:
            from sklearn.feature_extraction.text import TfidfVectorizer
        except ImportError as error:
            raise MissingExtraError("scikit-learn", "text") from error
        words = TfidfVectorizer(sublinear_tf=True)
        try:
            seen = words.fit_transform(examples.column("text"))
        except ValueError:  # no text has a word
            return np.full(len(self.asked), np.bincount(codes).argmax())
        model = logistic_regression(seen, codes, penalty=self.settings.penalty)
        return np.asarray(model.predict(words.transform(self.asked)), np.int64)

    def _trained(
        self,
        name: str,
        training: TextTraining,
        options: Mapping[str, Any],
        examples: Examples,
        number: int,
        folder: Path,
        *,
        steps: int | None = None,
    ) -> int:
        """Train the encoder from where it begins; how many steps that took."""
        from nearfar.training.fit import fit
        from nearfar.training.prepare import prepare

        settings = self.settings
        self.begin()
        place = folder / name.replace(" ", "-")
        place.mkdir(parents=True, exist_ok=True)
        asked = TrainingSettings(
            output=str(place),
            encoder=settings.encoder,
            max_length=settings.max_length,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate or (2e-2 if self.static else 2e-5),
            objective_learning_rate=settings.head_learning_rate,
            steps=steps,
            epochs=None if steps is not None else float(settings.epochs),
            seed=settings.seed + number,
            device=settings.device,
            general_check=False,
        )
        recipe = RecipeRun(name, "", training, complete(name, training, options))
        with warnings.catch_warnings():
            # batches of a handful of examples are larger than the data; what the space looks like on the way does not
            # matter to a classifier
            warnings.simplefilter("ignore", UserWarning)
            run = prepare(asked, examples, None, encoder=self.encoder, recipe=recipe)
            fitted = fit(place, run, main=None, console=None, keep=False)
        if fitted.interrupted:
            raise ClassificationInterruptedError(fitted.ended)
        shutil.rmtree(place, ignore_errors=True)
        self.encoder.eval()
        return fitted.steps

    def _fitted(self, examples: Examples, codes: Codes) -> LinearClassifier:
        embedded = self._embedded(examples.column("text"))
        return LinearClassifier.fit(embedded, codes, self.labels, penalty=self.settings.penalty)

    def _answers(self, head: LinearClassifier, embedded: npt.NDArray[Any]) -> Codes:
        code = {label: place for place, label in enumerate(self.labels)}
        known = np.array([code[label] for label in head.labels], np.int64)
        answers: Codes = known[head.probabilities(embedded).argmax(1)]
        return answers

    def _embedded(self, texts: list[str], *, normalize: bool = True) -> npt.NDArray[Any]:
        from nearfar.encoders import encode

        return encode(self.encoder, texts, normalize=normalize)


class ClassificationInterruptedError(TrainingError):
    """A signal asked for an end."""

    def __init__(self, ended: str) -> None:
        super().__init__(f"the classification was interrupted ({ended})", hint="the same command goes on from there")
