"""What a report says of an alignment run: who trained what on which preferences, and what became of the chosen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from markupsafe import Markup

from nearfar.report import format as fmt
from nearfar.report.figures.preferences import preference_curves
from nearfar.report.figures.values import estimate, mapping, sequence
from nearfar.report.folder import RunFolder
from nearfar.report.page import Section, code
from nearfar.report.style import clean

_MEANING = {
    "accuracy": "accuracy: of pairs with different scores, how many have the better response ahead by implicit reward",
    "log_p_accuracy": "log p accuracy: the same by log-probability alone",
    "auc": "auc: how often a good response is ahead of a bad one by implicit reward",
    "margin": "margin: the implicit reward of the good less that of the bad, in nats and without beta",
    "log_ratio": "log ratio: the mean of log p - log p_ref of responses in the data; it estimates a divergence from "
    "the reference only where the policy wrote them",
    "log_p_token": "log p token: the log-probability of a demonstration's tokens",
}


def is_alignment(folder: RunFolder) -> bool:
    """Whether the run aligned a language model."""
    return folder.mapping("config.json").get("kind") == "alignment"


def making(folder: RunFolder, seconds: float | None) -> Markup:
    """What was done, in a sentence."""
    config = folder.mapping("config.json")
    settings, train = mapping(config.get("settings")), mapping(mapping(config.get("data")).get("train"))
    model = PurePath(str(settings.get("model") or "a model")).name
    text = Markup("{} was aligned with {}").format(code(model), code(str(config.get("objective") or "an objective")))
    if settings.get("lora"):
        text += f", by a LoRA adapter of rank {fmt.integer(settings.get('rank'))},"
    rows, paths = fmt.as_finite(train.get("rows")), sequence(train.get("path")) or [train.get("path")]
    if rows is not None:
        text += f" on {fmt.integer(rows)} rows of {clean(str(train.get('shape') or 'preferences'))}"
    if paths and paths[0]:
        text += Markup(" from {}").format(code(PurePath(str(paths[0])).name))
    if seconds is not None:
        text += f" in {fmt.duration(seconds)}"
    return text + "."


def preferences(section: Section, folder: RunFolder) -> None:
    """The section on chosen and rejected responses."""
    metrics = folder.mapping("metrics.json")
    warning = metrics.get("warning")
    if isinstance(warning, str):
        section.note(warning, "warning")
    before, after = mapping(metrics.get("before")), mapping(metrics.get("after"))
    sentence = _change(before, after)
    if sentence:
        section.text(sentence)
    tokens = mapping(mapping(folder.mapping("config.json")).get("tokens"))
    if tokens:
        section.text(_tokens(tokens))
    figure = preference_curves(folder.records)
    if figure is None:
        section.note("metrics.jsonl holds nothing of chosen and rejected responses.", "absent")
    else:
        section.figure(figure)
    known = [text for name, text in _MEANING.items() if name in after or name in before]
    if known:
        section.text(". ".join(text[:1].upper() + text[1:] for text in known) + ".")


def _change(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """How log-probabilities of held-out responses changed, in a sentence."""
    parts = []
    for key, name in (("log_p_chosen", "chosen"), ("log_p_rejected", "rejected")):
        was, now = estimate(before.get(key)).value, estimate(after.get(key)).value
        if was is not None and now is not None:
            parts.append(f"that of {name} responses went from {fmt.number(was)} to {fmt.number(now)}")
    return f"On held-out data the mean log-probability: {', '.join(parts)} nats." if parts else ""


def _tokens(tokens: Mapping[str, Any]) -> str:
    responses, cut = fmt.as_finite(tokens.get("responses")), fmt.as_finite(tokens.get("responses cut"))
    if not responses or cut is None:
        return ""
    text = (
        f"{fmt.integer(responses)} responses were trained on; {fmt.integer(cut)} of them lost their end to the budget"
    )
    dropped = fmt.as_finite(tokens.get("rows dropped"))
    return text + (f", and {fmt.integer(dropped)} rows were dropped." if dropped else ".")
