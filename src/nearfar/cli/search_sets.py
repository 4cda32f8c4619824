"""What ``nearfar search`` does with files of examples instead of a question."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearfar.cli import console
from nearfar.cli.hits import show_hits
from nearfar.errors import DataError

if TYPE_CHECKING:
    from nearfar.search.set_queries import Tuning


def by_sets(
    place: Path, like: Sequence[Path], unlike: Sequence[Path], *, k: int, tuning: Tuning, as_json: bool
) -> None:
    """Search the index in ``place`` by the files of examples, and print what was found."""
    from nearfar import search

    wanted, unwanted = ([_texts(path) for path in paths] for paths in (like, unlike))
    index = search.Index.open(place)
    with console.progress("looking") as update:
        hits = search.search_sets(index, wanted, unwanted, k=k, tuning=tuning, progress=update)
    if as_json:
        said: dict[str, Any] = {"like": [str(path) for path in like], "unlike": [str(path) for path in unlike]}
        for hit in hits:
            console.emit_json_line({**said, "tuning": tuning, **hit.to_dict()})
        return
    asked = [f"like {path.name}" for path in like] + [f"unlike {path.name}" for path in unlike]
    console.out.print(f"\n{', '.join(asked)}", style="bold", markup=False)
    show_hits(hits)


def _texts(path: Path) -> list[str]:
    """The texts of a file, one a line or in a column ``text``."""
    from nearfar import data

    examples = data.read(path, shapes=data.PLAIN_SHAPES)
    if examples.shape not in ("texts", "labelled texts"):
        raise DataError(
            f"a set is a file of texts, and these are {examples.shape}",
            where=str(path),
            hint="write one example a line into a .txt file",
        )
    return list(examples.column("text"))
