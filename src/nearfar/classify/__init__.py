"""Few-shot classification: a handful of labelled texts a class, an encoder tuned on their pairs, a linear classifier.

::

    from nearfar.classify import ClassifySettings, TextClassifier, classify

    done = classify(ClassifySettings(data="train.csv", shots=8, encoder="minilm", output="runs/intents"))
    done.results["measures"]["setfit"]["accuracy"]         # {"value": ..., "low": ..., "high": ..., "n": ...}
    model = TextClassifier.load("runs/intents")
    model.predict(["my card has not arrived yet"])
"""

from __future__ import annotations

from nearfar.classify.model import TextClassifier
from nearfar.classify.run import Classified, classify
from nearfar.classify.settings import BASELINES, ClassifySettings

__all__ = [
    "BASELINES",
    "Classified",
    "ClassifySettings",
    "TextClassifier",
    "classify",
]
