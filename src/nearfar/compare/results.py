"""From finished runs to results: means, differences, verdict, and everything a reader may want to see, as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nearfar.compare.comparison import Comparison
from nearfar.compare.costs import Plan
from nearfar.compare.runs import Bench, Done
from nearfar.compare.settings import Budget
from nearfar.compare.verdict import judge
from nearfar.evaluation.comparison import against_reference, all_pairs, mean_over_seeds_and_items

FORMAT = 1
"""Of results.json."""


def assemble(
    *,
    folder: Path,
    bench: Bench,
    reference: str,
    untrained: Mapping[str, Any],
    plans: Sequence[Plan],
    notes: Sequence[str],
    searched: Sequence[Done],
    final: Sequence[Done],
    seconds: float,
) -> Comparison:
    """The comparison that these runs make."""
    names = [entry.name for entry in bench.entries]
    seeds = list(range(bench.settings.seeds))
    runs = {(run.entry, run.seed): run for run in final}
    values = np.stack([np.stack([_items(runs[name, seed]) for seed in seeds]) for name in names])
    differences = against_reference(values, names, reference)
    pairs = all_pairs(values, names)
    means = {name: mean_over_seeds_and_items(values[place]) for place, name in enumerate(names)}
    lowest = -1.0 if bench.judge.measure == "spearman" else 0.0
    means = {name: replace(each, low=max(each.low, lowest), high=min(each.high, 1.0)) for name, each in means.items()}
    verdict = judge(
        differences,
        pairs,
        {name: mean.value for name, mean in means.items()},
        reference=reference,
        measure=bench.judge.measure,
    )
    sizes = bench.parts.sizes()
    quickest = min((plan.seconds for plan in plans if plan.seconds is not None), default=None)
    results: dict[str, Any] = {
        "format": FORMAT,
        "measure": bench.judge.measure,
        "measured": bench.judge.describe(),
        "reference": reference,
        "seeds": seeds,
        "items": int(values.shape[2]),
        "rows": sizes,
        "shape": bench.parts.training.shape,
        "encoder": bench.prepared.settings.encoder,
        "batch_size": bench.prepared.resolved.batch_size,
        "budget": None if bench.settings.budget is None else str(Budget.parse(bench.settings.budget)),
        "searched": bench.settings.search,
        "verdict": verdict.to_dict(),
        "untrained": untrained,
        "entries": [
            {
                **entry.to_dict(),
                "mean": means[entry.name].value,
                "low": means[entry.name].low,
                "high": means[entry.name].high,
                "by_seed": [float(value) for value in values[place].mean(1)],
                "chosen": runs[entry.name, 0].options,
                "steps": plans[place].steps,
                "step_seconds": (took := plans[place].seconds),
                "times_the_quickest": None if took is None or quickest is None else took / quickest,
                "seconds": float(np.mean([runs[entry.name, seed].seconds for seed in seeds])),
                "measures": {
                    name: [runs[entry.name, seed].measures[name] for seed in seeds]
                    for name in runs[entry.name, 0].measures
                },
            }
            for place, entry in enumerate(bench.entries)
        ],
        "differences": [each.to_dict() for each in differences],
        "pairs": [each.to_dict() for each in pairs],
        "search": [run.to_dict() for run in searched],
        "runs": [run.to_dict() for run in final],
        "notes": [*bench.parts.notes, *notes],
        "seconds": {
            "estimated": sum(plan.whole for plan in plans),
            "search": float(sum(run.seconds for run in searched)),
            "training": float(sum(run.seconds for run in final)),
            # runs may be of earlier calls
            "total": max(seconds, float(sum(run.seconds for run in [*searched, *final]))),
        },
    }
    return Comparison(
        folder=folder,
        names=names,
        seeds=seeds,
        measure=bench.judge.measure,
        values=values,
        differences=differences,
        pairs=pairs,
        verdict=verdict,
        results=results,
    )


def _items(run: Done) -> Any:
    assert run.items is not None
    return run.items
