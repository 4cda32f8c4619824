"""Why did a classifier say so? Word weights by LIME: a linear model of what it says when words are left out.

::

    from nearfar.diagnostics import explain

    found = explain(model.probabilities, "my card has not arrived yet", labels=model.labels)
    print(found)                     # card_arrival 0.91: arrived +0.34, card +0.21, yet +0.05, ...; fidelity 0.87
    found.share_on({"arrived"})      # the share of the weight that lies on these words
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError, MissingExtraError, ModelError, UsageError

Probabilities = Callable[[Sequence[str]], npt.NDArray[np.floating[Any]]]
"""Texts to ``[n, classes]`` probabilities. It must take the empty text."""

SAMPLES, FEATURES = 1_000, 10


@dataclass(frozen=True)
class Explanation:
    """What speaks for ``label`` in ``text``, and what against it.

    ``probability``: what the classifier gives the label; ``words``: (word, weight), the largest in size first: by so
    much the probability falls, in the linear model, when all occurrences of the word are left out; ``fidelity``: the
    (weighted) R² of that model, at most 1: how much of what the classifier says it tells; ``samples``: texts with words
    left out that it was fitted to.
    """

    text: str
    label: str
    probability: float
    words: tuple[tuple[str, float], ...]
    fidelity: float
    samples: int

    def share_on(self, words: Iterable[str]) -> float:
        """The share of the absolute weight that lies on ``words`` (whatever their case), in [0, 1]; 0 without any."""
        wanted = {word.casefold() for word in words}
        weights = [(word.casefold() in wanted, abs(weight)) for word, weight in self.words]
        total = sum(weight for _, weight in weights)
        return sum(weight for there, weight in weights if there) / total if total > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {**self.__dict__, "words": [list(each) for each in self.words]}

    def __str__(self) -> str:
        words = ", ".join(f"{word} {weight:+.2f}" for word, weight in self.words)
        return f"{self.label} {self.probability:.2f}: {words}; fidelity {self.fidelity:.2f}"


def explain(
    probabilities: Probabilities,
    text: str,
    *,
    labels: Sequence[str],
    label: str | None = None,
    features: int = FEATURES,
    samples: int = SAMPLES,
    seed: int = 0,
) -> Explanation:
    """Explain what a classifier says of ``text`` by LIME (Ribeiro et al., 2016), as the package lime does.

    ``samples`` times (the text itself is the first) a number of its m distinct words, drawn uniformly from 1 to m, is
    drawn and left out, all occurrences of each. With w = exp(-d² / (2 · 25²)), d being 100 times the cosine distance of
    what is there from everything, a ridge regression (alpha 1) of the probability of ``label`` on what is there is
    fitted to the ``features`` words that matter most: up to six by forward selection, more by the size of their
    coefficients among all.

    ``labels`` name the columns of ``probabilities(texts)``; ``label`` is the one to explain (default: the most
    probable). Words are what stands between characters that are neither letters, digits nor underscores. Equal texts
    are asked once. The package's own default is 5,000 samples; a long text needs them sooner than a short one.

    Raises :class:`~nearfar.errors.DataError` for a text without a word, :class:`~nearfar.errors.UsageError` for a label
    that is not there, fewer than one feature or two samples, :class:`~nearfar.errors.ModelError` for probabilities that
    do not fit or are not finite, :class:`~nearfar.errors.MissingExtraError` without lime.
    """
    if features < 1 or samples < 2:
        raise UsageError(f"{features} features, {samples} samples; at least 1 and 2 are needed")
    if label is not None and label not in labels:
        raise UsageError(f"there is no label {label!r}", hint=f"choose one of {', '.join(labels)}")
    try:
        from lime.lime_text import IndexedString, LimeTextExplainer
    except ImportError as error:
        raise MissingExtraError("lime", "explain") from error
    if not IndexedString(text).num_words():
        raise DataError("there is no word in the text that could be left out", where=repr(text))

    def asked(texts: Sequence[str]) -> npt.NDArray[np.float64]:
        distinct = list(dict.fromkeys(texts))
        place = {each: row for row, each in enumerate(distinct)}
        found = np.asarray(probabilities(distinct), np.float64)
        if found.shape != (len(distinct), len(labels)) or not np.isfinite(found).all():
            raise ModelError(
                f"probabilities must be finite and [{len(distinct)}, {len(labels)}], got {list(found.shape)}"
            )
        return found[[place[each] for each in texts]]

    whole = asked([text])[0]
    chosen = int(whole.argmax()) if label is None else list(labels).index(label)
    explainer = LimeTextExplainer(class_names=list(labels), random_state=seed)
    made = explainer.explain_instance(text, asked, labels=(chosen,), num_features=features, num_samples=samples)
    words = tuple((str(word), float(weight)) for word, weight in made.as_list(label=chosen))
    return Explanation(text, str(labels[chosen]), float(whole[chosen]), words, float(made.score), samples)
