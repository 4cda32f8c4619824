"""Draws ``docs/scaling.svg`` from ``benchmarks/scaling.json``: time and memory over the batch size, log-log.

``python -m benchmarks.picture``; needs matplotlib, as ``make bench`` installs it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("scaling.json")
PICTURE = Path(__file__).parent.parent / "docs" / "scaling.svg"
COLOURS = {
    "InfoNCE": "#1f6feb",
    "SupCon": "#d1242f",
    "triplet-hard": "#1a7f37",
    "multi-similarity": "#9a6700",
    "DCL": "#8250df",
    "Barlow Twins": "#57606a",
    "lambda-rank": "#bf3989",
}


def curves(rows: list[dict[str, Any]], what: str) -> dict[tuple[str, str], tuple[list[int], list[float]]]:
    """``{(objective, library): (batch sizes, values)}`` of "seconds" or "peak" (in GiB), of what was measured."""
    found: dict[tuple[str, str], tuple[list[int], list[float]]] = {}
    for row in rows:
        if what not in row:
            continue
        sizes, values = found.setdefault((row["objective"], row["library"]), ([], []))
        sizes.append(row["n"])
        values.append(row[what] / 2**30 if what == "peak" else row[what])
    return found


def draw(results: dict[str, Any], path: Path) -> None:
    """Two panels; full lines are nearfar's, dashed ones a peer's, a cross is the last size a peer fitted at."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "nearfar"  # the same picture from the same numbers, byte for byte
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.6))
    stopped = {(row["objective"], row["library"]) for row in results["rows"] if "failed" in row}
    for panel, (what, title) in zip(
        panels, [("peak", "peak memory, GiB"), ("seconds", "forward + backward, seconds")], strict=True
    ):
        for (objective, library), (sizes, values) in curves(results["rows"], what).items():
            own = library == "nearfar"
            panel.plot(
                sizes,
                [max(value, 1e-3) for value in values],
                color=COLOURS[objective],
                linestyle="-" if own else (0, (4, 2)),
                linewidth=2 if own else 1.2,
                marker="o" if own else None,
                markersize=3,
                label=objective if own else f"{objective}, {library}",
            )
            if (objective, library) in stopped:
                panel.plot(sizes[-1], max(values[-1], 1e-3), "x", color=COLOURS[objective], markersize=8)
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_xticks(sorted({row["n"] for row in results["rows"]}))
        panel.set_xticklabels([f"{size:,}" for size in sorted({row["n"] for row in results["rows"]})], rotation=45)
        panel.set_xlabel("batch size")
        panel.set_title(title, loc="left", fontsize=11)
        panel.grid(True, which="major", alpha=0.25)
    panels[0].axhline(20, color="black", linewidth=0.8, linestyle=":")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="center right", fontsize=8, frameon=False)
    figure.suptitle(f"d = {results['dimension']}, float32; {results['machine']}", fontsize=9, x=0.01, ha="left")
    figure.tight_layout(rect=(0, 0, 0.76, 1))
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    draw(json.loads(RESULTS.read_text()), PICTURE)
    print(PICTURE)
