"""Builders of preferences that nobody labelled: from contrasts, from revisions, from ranked candidates.

::

    from nearfar.alignment.builders import ElicitiveContrast, RefineContrast, popalign

    pairs = popalign(prompts, [ElicitiveContrast(write), RefineContrast(write)])      # write(prompt) -> text
    print(pairs.describe())
    pairs.write("pairs.jsonl")
"""

from nearfar.alignment.builders.candidates import BeamCandidates, SampledCandidates, ranked_candidates
from nearfar.alignment.builders.contrastiveness import contrastiveness, edit_distance, token_overlap
from nearfar.alignment.builders.contrasts import (
    STRATEGIES,
    DemonstrationContrast,
    ElicitiveContrast,
    ModelContrast,
    PrefixContrast,
    RefineContrast,
    popalign,
)
from nearfar.alignment.builders.pairs import BuiltPair, BuiltPairs
from nearfar.alignment.builders.revisions import (
    WrittenRevision,
    clair,
    off_policy_judge,
    on_policy_judge,
    stronger_preferred,
)
from nearfar.alignment.builders.writing import Judge, PolicyWriter, Score, Writer, both_ways, by_score

__all__ = [
    "STRATEGIES",
    "BeamCandidates",
    "BuiltPair",
    "BuiltPairs",
    "DemonstrationContrast",
    "ElicitiveContrast",
    "Judge",
    "ModelContrast",
    "PolicyWriter",
    "PrefixContrast",
    "RefineContrast",
    "SampledCandidates",
    "Score",
    "Writer",
    "WrittenRevision",
    "both_ways",
    "by_score",
    "clair",
    "contrastiveness",
    "edit_distance",
    "off_policy_judge",
    "on_policy_judge",
    "popalign",
    "ranked_candidates",
    "stronger_preferred",
    "token_overlap",
]
