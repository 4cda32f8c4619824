"""The text views by name: what each does, how it is usually set, where it comes from.

After the review of Bhattacharjee et al. (2022), whose list of transformations is numbered from 1 to 39 here.
"""

from __future__ import annotations

from collections.abc import Mapping

from nearfar.views.text.entry import LEVELS, Entry, Level
from nearfar.views.text.in_encoders import IN_ENCODERS
from nearfar.views.text.on_strings import STRINGS

CATALOGUE: tuple[Entry, ...] = (*STRINGS, *IN_ENCODERS)
"""All of them, by level."""

ELSEWHERE: Mapping[int, str] = {
    26: "pairs in the data: linked documents, titles, answers, translations (`nearfar train pairs.jsonl`)",
    37: "the layers of one encoder: the recipe sg-bert",
    38: "two encoders, one a moving mean: `nearfar.encoders.MomentumCopy`, the objective moco",
}
"""What of the list is no transformation of a text, and where it is."""

__all__ = ["CATALOGUE", "ELSEWHERE", "LEVELS", "Entry", "Level"]
