"""The catalogue: names, aliases, what each entry says of itself, and what importing it costs."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
import torch

from nearfar import objectives
from nearfar.contrast import Temperature
from nearfar.errors import UsageError
from nearfar.objectives import (
    DCL,
    Combination,
    InfoNCE,
    Objective,
    PointObjective,
    PreferenceObjective,
    RowObjective,
    Triplet,
    ViewObjective,
    catalogue,
    find,
    get,
    register,
)

BASES = {
    "row": RowObjective,
    "view": ViewObjective,
    "point": PointObjective,
    "preference": PreferenceObjective,
    "combination": Combination,
}


def test_the_first_objectives_are_there() -> None:
    assert {cls.name for cls in catalogue()} >= {
        "info-nce", "supcon", "dcl", "dclw", "triplet", "pairwise-logistic", "alignment", "uniformity", "barlow-twins",
        "vicreg", "binary-nce",
    }  # fmt: skip
    kinds = [cls.kind for cls in catalogue()]
    assert kinds == sorted(kinds, key=[*BASES].index)


@pytest.mark.parametrize("cls", catalogue(), ids=lambda cls: cls.name)
def test_each_says_what_it_is(cls: type[Objective]) -> None:
    assert issubclass(cls, BASES[cls.kind])
    assert cls.name == cls.name.lower()
    assert " " not in cls.name
    assert any(letter in cls.formula for letter in "()|"), cls.formula
    assert any(year in cls.paper for year in map(str, range(1950, 2030))), cls.paper
    own = cls.__doc__ or ""
    assert own != (cls.__mro__[1].__doc__ or "")
    assert len(own) > 200
    for name in inspect.signature(cls).parameters:
        assert name in own or name in (InfoNCE.__doc__ or ""), f"{cls.name}: the docstring does not name {name}"
    assert getattr(objectives, cls.__name__) is cls
    assert cls.__name__ in objectives.__all__


@pytest.mark.parametrize("cls", catalogue(), ids=lambda cls: cls.name)
def test_each_is_found_by_all_its_names(cls: type[Objective]) -> None:
    for name in (cls.name, *cls.aliases):
        for spelling in (name, name.upper(), name.replace("-", "_"), name.replace("-", ""), name.replace("-", " ")):
            found = get(spelling)
            assert type(found) is cls
            for argument, value in cls.aliases.get(name, {}).items():
                if argument != "temperature":
                    assert getattr(found, argument) == value


@pytest.mark.parametrize("cls", catalogue(), ids=lambda cls: cls.name)
def test_each_can_be_pickled_into_a_state_and_printed(cls: type[Objective]) -> None:
    objective = cls()
    copy = cls()
    copy.load_state_dict(objective.state_dict())
    assert cls.__name__ in repr(objective)
    assert isinstance(getattr(objective, "temperature", None), (Temperature, type(None)))  # which runs print and step


def test_what_is_printed_tells_options_apart() -> None:
    assert "mining='hard', margin=0.5" in repr(get("triplet", mining="hard", margin=0.5))
    assert repr(get("dpo", divergence="alpha", alpha=0.3)) == "DPO(divergence='alpha', alpha=0.3)"
    assert repr(get("vicreg", invariance=10.0)) == "VICReg(invariance=10.0)"
    assert "two_sided=True" in repr(get("clip"))
    assert "classes=3, dimension=4, margin=0.3" in repr(get("arcface", classes=3, dimension=4, margin=0.3))
    assert "margin" not in repr(get("triplet"))


def test_aliases_stand_for_arguments_and_give_way_to_given_ones() -> None:
    clip = get("clip")
    assert clip.two_sided
    assert clip.temperature.learned
    assert clip.temperature.value == pytest.approx(0.07)
    assert get("NT-Xent").temperature.value == 0.5
    assert get("nt_xent", temperature=0.1).temperature.value == 0.1
    assert get("clip") is not clip
    assert get("clip").temperature is not clip.temperature
    assert find("CLIP") == (InfoNCE, {"two_sided": True, "temperature": "learned:0.07"})


def test_arguments_are_passed_on() -> None:
    shared = Temperature(0.3)
    assert get("dcl", temperature=shared).temperature is shared
    triplet = get("triplet", mining="semi-hard", margin=0.7)
    assert isinstance(triplet, Triplet)
    assert (triplet.mining, triplet.margin) == ("semi-hard", 0.7)
    loss = get("info-nce", temperature=0.05)(torch.eye(3), torch.eye(3))
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_unknown_names() -> None:
    with pytest.raises(UsageError, match="no objective called 'infonse'") as caught:
        get("infonse")
    assert "did you mean" in caught.value.hint
    assert "info-nce" in caught.value.hint
    with pytest.raises(UsageError, match="no objective called 'qqqq'") as caught:
        get("qqqq")
    assert "did you mean" not in caught.value.hint


def test_unknown_arguments() -> None:
    with pytest.raises(UsageError, match="info-nce takes no 'margin'") as caught:
        get("info-nce", margin=0.2)
    assert "temperature" in caught.value.hint
    assert "self" not in caught.value.hint
    with pytest.raises(UsageError, match="triplet takes no 'temperature'"):
        get("triplet", temperature=0.1)
    with pytest.raises(UsageError, match="takes no 'self'"):
        get("info-nce", self=1)
    with pytest.raises(UsageError, match="finite number > 0"):
        get("info-nce", temperature=0)


def test_names_are_taken_once() -> None:
    with pytest.raises(ValueError, match="two objectives are called 'DC_L'"):
        register(type("Other", (DCL,), {"name": "DC_L", "aliases": {}}))
    assert find("dcl")[0] is DCL


def test_importing_the_core_imports_nothing_heavy() -> None:
    heavy = [
        "transformers",
        "sentence_transformers",
        "datasets",
        "pandas",
        "sklearn",
        "scipy",
        "pyarrow",
        "faiss",
        "plotly",
    ]
    code = (
        "import sys, torch; before = set(sys.modules)\n"
        "import nearfar, nearfar.contrast, nearfar.objectives\n"
        "nearfar.objectives.get('info-nce')\n"
        f"print([name for name in {heavy} if name in set(sys.modules) - before])\n"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} & "
        "{'nearfar', 'typer', 'rich', 'bm25s', 'numpy'}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines() == ["[]", "['nearfar']"]


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("NTXentLoss", "nt-xent"), ("SupConLoss", "supcon"), ("DCLWLoss", "dclw"), ("MACLLoss", "macl"),
        ("NPairsLoss", "n-pairs"), ("ClipLoss", "clip"), ("SigLipLoss", "siglip"), ("TripletMarginLoss", "triplet"),
        ("MultipleNegativesRankingLoss", "mnrl"), ("BatchHardTripletLoss", "batch-hard-triplet"), ("SimCLR", "nt-xent"),
        ("NegativeCosineSimilarity", "negative-cosine"), ("SignalToNoiseRatioContrastiveLoss", "snr"),
        ("DistillKLDivLoss", "kl"), ("aot_pair", "aot"), ("robust", "robust-dpo"), ("sigmoid_norm", "dpo-norm"),
        ("CosineSimilarityLoss", "claif"), ("ap-loss", "smooth-ap"),
    ],
)  # fmt: skip
def test_class_names_of_other_libraries_are_understood(name: str, known: str) -> None:
    assert find(name) == find(known)
    with pytest.raises(UsageError, match="there is no objective called 'loss'"):
        find("loss")
