"""Logistic regression on embeddings: what tells classes apart once the encoder is as it is."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError, MissingExtraError, ModelError

PENALTY = 10.0
"""Inverse strength of the L2 penalty: embeddings of length 1 differ by little, and with scikit-learn's 1.0 a handful of
examples hardly moves the classifier."""

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class LinearClassifier:
    """``softmax(W z + b)`` of an embedding z: ``weight [classes, d]``, ``bias [classes]``, ``labels`` of the rows."""

    labels: tuple[str, ...]
    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]

    @classmethod
    def fit(
        cls, embeddings: Floats, codes: npt.NDArray[np.int64], labels: Sequence[str], *, penalty: float = PENALTY
    ) -> LinearClassifier:
        """Logistic regression (scikit-learn, multinomial, L2 with C = ``penalty``) of ``codes [n]``, which index
        ``labels``, on ``embeddings [n, d]``. Labels without an example are left out of the classifier.

        Raises :class:`~nearfar.errors.DataError` for fewer than two labels with examples,
        :class:`~nearfar.errors.ModelError` for embeddings that are not finite.
        """
        model = logistic_regression(embeddings, codes, penalty=penalty)
        weight, bias = model.coef_, model.intercept_
        if len(model.classes_) == 2:  # scikit-learn keeps the second class's alone
            weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
        known = tuple(str(labels[int(code)]) for code in model.classes_)
        return cls(known, weight.astype(np.float32), bias.astype(np.float32))

    def probabilities(self, embeddings: Floats) -> npt.NDArray[np.float64]:
        """``[n, classes]``, each row summing to 1."""
        logits = np.asarray(embeddings, np.float64) @ self.weight.T.astype(np.float64) + self.bias
        logits -= logits.max(1, keepdims=True)
        raised = np.exp(logits)
        found: npt.NDArray[np.float64] = raised / raised.sum(1, keepdims=True)
        return found


def logistic_regression(features: Any, codes: npt.NDArray[np.int64], *, penalty: float = PENALTY) -> Any:
    """scikit-learn's, fitted to ``features [n, d]`` (dense or sparse) and ``codes [n]``.

    Raises :class:`~nearfar.errors.DataError` for one class only, :class:`~nearfar.errors.ModelError` for features that
    are not finite.
    """
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "text") from error
    if len(np.unique(codes)) < 2:
        raise DataError("there are examples of one label only, so there is nothing to tell apart")
    if not np.isfinite(features.data if hasattr(features, "indptr") else features).all():
        raise ModelError("an embedding is not finite", hint="has the model diverged?")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=penalty, max_iter=1_000).fit(features, codes)
