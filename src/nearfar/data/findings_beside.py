"""What can be found beside the texts: documents too short, images that say nothing, domains without labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nearfar.data.findings import Facts, Finding
from nearfar.data.values import shorten
from nearfar.errors import UsageError

_MOSTLY = 0.5


def documents(facts: Facts) -> Iterator[Finding]:
    """Documents without two sentences that follow each other, sentences that follow themselves."""
    offsets = facts.examples.documents()
    sizes = np.diff(offsets)
    single = np.flatnonzero(sizes == 1)
    if len(single) == len(sizes):
        detail = "every document is a single sentence: none has a neighbour"
        yield Finding("error", "single-sentence-documents", len(single), 1.0, detail)
    elif len(single):
        share = len(single) / len(sizes)
        detail = f"of {len(sizes):,} documents are a single sentence, which has no neighbour"
        severity = "warning" if share > _MOSTLY else "info"
        yield Finding(severity, "single-sentence-documents", len(single), share, detail, facts.show(offsets[single]))
    texts = facts.hashes["text"]
    inside = np.ones(len(texts), bool)
    inside[offsets[:-1]] = False
    again = np.flatnonzero(inside & (texts == np.roll(texts, 1)))
    if len(again):
        detail = "sentences are the one before them once more"
        yield Finding("warning", "repeated-sentences", len(again), len(again) / facts.rows, detail, facts.show(again))


def captions(facts: Facts) -> Iterator[Finding]:
    """Texts without an image, images of zeros, one image for all."""
    ids = facts.examples.image_ids()
    there = ids >= 0
    without = facts.rows - int(there.sum())
    if without:
        detail = "texts have no image: of them, words alone are learned from"
        yield Finding("info", "without-image", without, without / facts.rows, detail)
    if ids.max(initial=-1) == 0 and there.sum() > 1:
        detail = "all images are the same: there is nothing to tell apart"
        yield Finding("warning", "one-image", int(there.sum()), float(there.mean()), detail)
    rows = np.flatnonzero(facts.examples.zero_images())
    if len(rows):
        detail = "images are nothing but zeros, which have no direction: was the picture not found?"
        yield Finding("warning", "zero-images", len(rows), len(rows) / facts.rows, detail, facts.show(rows))


def domains(facts: Facts) -> Iterator[Finding]:
    """No labels to learn from, labels of the target that are not used, texts of both domains."""
    labelled = facts.codes >= 0
    names = facts.examples.labels()[1]
    if not labelled.any():
        yield Finding("error", "no-labels", facts.rows, 1.0, "no text has a label: there is nothing to transfer")
        return
    if len(names) == 1:
        detail = f"there is one class only, {shorten(names[0], 40)!r}: there is nothing to classify"
        yield Finding("warning", "one-class", int(labelled.sum()), float(labelled.mean()), detail)
    try:
        target, (source, other) = facts.examples.domains()
    except UsageError as error:
        yield Finding("warning", "which-target", facts.rows, 1.0, f"{error.message}; {error.hint}")
        target = np.unique(facts.examples.hashes("domain"), return_inverse=True)[1]
    else:
        if not (labelled & (target == 0)).any():
            detail = f"no text of the source, {shorten(source, 40)!r}, has a label: there is nothing to transfer"
            yield Finding("error", "no-labels", int((target == 0).sum()), 1.0, detail)
        used = labelled & (target == 1)
        if used.any():
            detail = f"labels of the target, {shorten(other, 40)!r}, are not trained on"
            yield Finding("info", "target-labels", int(used.sum()), float(used.mean()), detail)
    texts = facts.hashes["text"]
    both = np.isin(texts, np.intersect1d(texts[target == 0], texts[target == 1]))
    if both.any():
        detail = "texts are of both domains"
        yield Finding(
            "info", "both-domains", int(both.sum()), float(both.mean()), detail, facts.show(np.flatnonzero(both))
        )
