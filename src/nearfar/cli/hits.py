"""Documents that were found, on the terminal."""

from __future__ import annotations

from typing import Any

from nearfar.cli import console


def show_hits(hits: list[Any], width: int = 88) -> None:
    """The hits as a readable table."""
    rows = []
    for hit in hits:
        place = hit.fields.get("where") or hit.fields.get("title") or hit.id
        rows.append((hit.rank, f"{hit.score:.3f}", str(place), one_line(hit.text, width)))
    console.out.print(console.table(["", "score", "document", "text"], rows, right=[0, 1]))


def one_line(text: str, width: int) -> str:
    """``text`` on one line of at most ``width`` characters."""
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"
