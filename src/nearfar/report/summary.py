"""A training run in plain words: what was trained on what, and how it ended up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from markupsafe import Markup

from nearfar.report import alignment
from nearfar.report import format as fmt
from nearfar.report.figures.values import Estimate, estimate, mapping, sequence
from nearfar.report.folder import RunFolder, find
from nearfar.report.page import Fact, code, strong
from nearfar.report.style import clean

BEFORE, AFTER = "before training", "after training"


@dataclass(frozen=True)
class Summary:
    """The run's systems (before, baselines, after), its main measure, and what is known of its making."""

    title: str
    systems: Mapping[str, Mapping[str, Any]]
    main: str | None
    config: Mapping[str, Any]
    seconds: Mapping[str, Any]
    rate: float | None
    before_name: str = BEFORE
    after_name: str = AFTER
    general: Mapping[str, Any] = field(default_factory=dict)
    """metrics.json's measures of the general check."""
    made: Markup | None = None
    """What was done, where it was not the training of an encoder."""

    @classmethod
    def of(cls, folder: RunFolder) -> Summary:
        """Read the summary off a run folder."""
        metrics = folder.mapping("metrics.json")
        systems: dict[str, Mapping[str, Any]] = {}
        if mapping(metrics.get("before")):
            systems[BEFORE] = mapping(metrics["before"])
        for name, measures in mapping(metrics.get("baselines")).items():
            if mapping(measures):
                systems[fmt.measure_name(name)] = mapping(measures)
        if mapping(metrics.get("after")):
            systems[AFTER] = mapping(metrics["after"])
        last = mapping(metrics.get("after")) or mapping(metrics.get("before"))
        main = metrics.get("main")
        if not isinstance(main, str) or main not in last:
            main = next((name for name, value in last.items() if estimate(value).value is not None), None)
        rates = [
            rate for record in folder.records if (rate := fmt.as_finite(record.get("examples_per_second"))) is not None
        ]
        return cls(
            title=clean(folder.path.resolve().name) or "Training run",
            systems=systems,
            main=main,
            config=folder.mapping("config.json"),
            seconds=mapping(metrics.get("seconds")),
            general=mapping(metrics.get("general")),
            made=alignment.making(folder, fmt.as_finite(mapping(metrics.get("seconds")).get("training")))
            if alignment.is_alignment(folder)
            else None,
            rate=sorted(rates)[len(rates) // 2] if rates else None,
        )

    def point(self, system: str) -> Estimate:
        """The main measure of a system, with its interval."""
        return estimate(mapping(self.systems.get(system)).get(self.main or ""))

    @property
    def baselines(self) -> list[str]:
        """Names of the systems that the trained model is held against, other than itself before training."""
        return [name for name in self.systems if name not in (BEFORE, AFTER) and self.point(name).value is not None]

    def lead(self) -> list[Markup | str]:
        """How it ended up, then what was done: two paragraphs."""
        return [paragraph for paragraph in (self._outcome(), self._making()) if paragraph]

    def _outcome(self) -> Markup | str:
        before, after = self.point(BEFORE).value, self.point(AFTER).value
        if self.main is None or (before is None and after is None):
            return "This run has no evaluation recorded."
        name = fmt.measure_name(self.main)
        others = ", ".join(f"{baseline}: {fmt.number(self.point(baseline).value)}" for baseline in self.baselines)
        tail = f" ({others})." if others else "."
        if before is None:
            return Markup("{} is {} after training{}").format(name, strong(fmt.number(after)), tail)
        if after is None:
            return Markup("{} was {} before training; there is no evaluation after it{}").format(
                name, fmt.number(before), tail
            )
        if fmt.number(before) == fmt.number(after):
            return Markup("{} stayed at {}{}").format(name, strong(fmt.number(after)), tail)
        return Markup("{} went from {} to {}{}").format(name, fmt.number(before), strong(fmt.number(after)), tail)

    def _making(self) -> Markup | str:
        if self.made is not None:
            return self.made
        encoder = _name(find(self.config, "encoder", "model"))
        recipe = find(self.config, "recipe")
        objective = (
            PurePath(recipe).name if isinstance(recipe, str) else _name(find(self.config, "objective", "method"))
        )
        rows, source, shape = self._data()
        if not (encoder or objective or rows):
            return ""
        text = Markup("{} was trained").format(Markup("The encoder {}").format(code(encoder)) if encoder else "A model")
        if objective:
            text += Markup(" with {}{}").format("the recipe " if isinstance(recipe, str) else "", code(objective))
        if rows is not None:
            text += f" on {fmt.integer(rows)} {shape}"
            if source:
                text += Markup(" from {}").format(code(source))
        training = fmt.as_finite(self.seconds.get("training"))
        if training is not None:
            text += f" in {fmt.duration(training)}"
        count = self.point(AFTER).items or self.point(BEFORE).items
        if count is not None:
            text += f", and measured on {fmt.integer(count)} held-out items"
        return text + "."

    def _data(self) -> tuple[float | None, str, str]:
        data = find(self.config, "data")
        first: Any = find(data, "train", "training") or data
        first = sequence(first)[0] if sequence(first) else first
        rows = fmt.as_finite(find(first, "rows"))
        source = find(first, "path", "source", "paths")
        shape = find(first, "shape")
        names = [PurePath(str(item)).name for item in (sequence(source) or [source]) if item]
        written = names[0] + (f" and {len(names) - 1:,} more" if len(names) > 1 else "") if names else ""
        return rows, written, shape if isinstance(shape, str) else "rows"

    def facts(self) -> list[Fact]:
        """The few figures worth seeing first."""
        facts = []
        before, after = self.point(BEFORE), self.point(AFTER)
        name = fmt.measure_name(self.main) if self.main else ""
        if after.value is not None:
            detail = f"95 %: {fmt.interval(after.low, after.high)}" if after.low is not None else "after training"
            facts.append(Fact(f"{name} after training", fmt.number(after.value), detail))
            if before.value is not None:
                change = after.value - before.value
                facts.append(Fact("Against before", fmt.signed(change), f"{fmt.number(before.value)} before training"))
            for baseline in self.baselines[:1]:
                other = self.point(baseline).value or 0.0
                facts.append(
                    Fact(f"Against {baseline}", fmt.signed(after.value - other), f"{baseline} has {fmt.number(other)}")
                )
        training, total = (fmt.as_finite(self.seconds.get(key)) for key in ("training", "total"))
        if training is not None:
            detail = f"{fmt.duration(total)} in all" if total is not None else ""
            if self.rate is not None:
                detail = f"{fmt.integer(self.rate)} examples/s"
            facts.append(Fact("Training time", fmt.duration(training), detail))
        return facts

    def general_sentence(self) -> str:
        """How the general check went, in a sentence; empty where it was not made."""
        before, after = (estimate(mapping(self.general.get(when)).get("spearman")) for when in ("before", "after"))
        if before.value is None or after.value is None or after.items is None:
            return ""
        return (
            f"On {fmt.integer(after.items)} pairs of everyday English, which have nothing to do with these data, "
            f"Spearman's correlation was {fmt.number(before.value)} before training and is {fmt.number(after.value)} "
            f"after it (95 %: {fmt.interval(after.low, after.high)})."
        )

    def comparisons(self) -> Sequence[str]:
        """Whether the interval after training overlaps those before it and of the baselines, in a sentence."""
        after = self.point(AFTER)
        if self.main is None or after.value is None or after.low is None or after.high is None:
            return []
        apart: dict[str, list[str]] = {"above": [], "below": [], "overlaps": []}
        for name in [BEFORE, *self.baselines]:
            other = self.point(name)
            if other.low is None or other.high is None:
                continue
            label = "the one before training" if name == BEFORE else f"{name}'s"
            side = "above" if after.low > other.high else "below" if after.high < other.low else "overlaps"
            apart[side].append(label)
        words = {
            "above": "lies above {}",
            "below": "lies below {}",
            "overlaps": "overlaps with {}",
        }
        parts = [words[side].format(" and ".join(names)) for side, names in apart.items() if names]
        if not parts:
            return []
        return [f"The 95 % interval of {fmt.measure_name(self.main)} after training {', and '.join(parts)}."]


def _name(value: Any) -> str:
    """The name of a part that settings give as text or as an object with a name."""
    if isinstance(value, Mapping):
        value = next((value[key] for key in ("name", "path", "objective", "encoder", "model") if value.get(key)), None)
    return fmt.shorten(clean(value), 60) if isinstance(value, str) else ""
