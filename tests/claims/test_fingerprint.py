"""The fingerprint changes with code that a measurement may run, and with nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nearfar.claims.fingerprint import closure, fingerprint, source_file
from nearfar.errors import DataError
from nearfar.recipes import find, registry


def of(path: Path) -> str:
    return fingerprint(registry.of_file(path))


@pytest.fixture(autouse=True)
def importable(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(own.parent))
    monkeypatch.delitem(sys.modules, "beside", raising=False)


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_code_of_the_recipe_counts(own: Path) -> None:
    before = of(own)
    assert of(own) == before
    replace(own, "quick=0.1", "quick=0.2")
    assert of(own) != before


def test_code_that_it_imports_counts(own: Path) -> None:
    before = of(own)
    replace(own.parent / "beside.py", "2.0", "2.5")
    assert of(own) != before


def test_code_imported_inside_a_function_by_what_it_imports_counts(own: Path) -> None:
    (own.parent / "further.py").write_text("def more():\n    return 2.0\n")
    (own.parent / "beside.py").write_text("def gain():\n    from further import more\n\n    return more()\n")
    before = of(own)
    replace(own.parent / "further.py", "2.0", "2.5")
    assert of(own) != before


def test_a_module_that_is_not_imported_does_not_count(own: Path) -> None:
    before = of(own)
    (own.parent / "stranger.py").write_text("x = 1\n")
    assert of(own) == before


def test_words_do_not_count(own: Path) -> None:
    before = of(own)
    replace(own, '"""Each call leaves a line in calls.txt."""', '"""Otherwise\n\n    said."""\n    # and explained')
    replace(own, 'sabotage="the gain is left out"', 'sabotage="no gain", not_asserted="anything else"')
    assert of(own) == before


def test_the_description_counts_where_the_experiment_reads_it(own: Path) -> None:
    replace(own, "+ (0.0 if sabotage else gain())", "+ (0.0 if sabotage else gain() + len(RECIPE.id))")
    before = of(own)
    replace(own, 'id="own"', 'id="mine"')
    assert of(own) != before


def test_what_is_imported_for_the_description_alone_does_not_count(own: Path) -> None:
    (own.parent / "told.py").write_text("WORLD = 'numbers'\n")
    replace(own, "from beside import gain\n", "from beside import gain\nfrom told import WORLD\n")
    replace(own, 'world="numbers"', "world=WORLD")
    before = of(own)
    replace(own.parent / "told.py", "numbers", "other numbers")
    assert of(own) == before
    replace(own, "1 + float(noise[0])", "len(WORLD) + float(noise[0])")
    before = of(own)
    replace(own.parent / "told.py", "other", "odd")
    assert of(own) != before


def test_types_that_are_never_imported_do_not_count(own: Path) -> None:
    replace(
        own, "import torch\n", "import torch\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import hints\n"
    )
    (own.parent / "hints.py").write_text("x = 1\n")
    before = of(own)
    replace(own.parent / "hints.py", "1", "2")
    assert of(own) == before


def test_relative_imports_and_packages(tmp_path: Path) -> None:
    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("from .held import thing, other\n")
    (package / "held.py").write_text("from . import deep\nthing = other = 1\n")
    (package / "deep.py").write_text("")
    (package / "unused.py").write_text("")
    start = tmp_path / "start.py"
    start.write_text("from pack import thing as renamed\n")
    assert set(closure(start)) == {"start", "pack.held", "pack.deep"}
    start.write_text("import pack\n")
    assert set(closure(start)) == {"start", "pack", "pack.held", "pack.deep"}


def test_a_package_that_hands_a_name_on_is_passed_through(tmp_path: Path) -> None:
    start = tmp_path / "start.py"
    start.write_text("from nearfar.objectives import SupCon\n")
    found = closure(start)
    assert {"nearfar.objectives.softmax", "nearfar.objectives.base", "nearfar.contrast.engine"} <= set(found)
    assert "nearfar.objectives.geometry" not in found
    assert "nearfar.objectives" not in found


@pytest.mark.parametrize(
    "line",
    [
        "from nearfar.objectives import get",
        "from nearfar.objectives.registry import find",
        "import nearfar as nf\nnf.objectives.SupCon",
        "import nearfar.objectives",
        "from nearfar import objectives",
    ],
)
def test_what_finds_objectives_by_name_depends_on_all(tmp_path: Path, line: str) -> None:
    start = tmp_path / "start.py"
    start.write_text(line + "\n")
    assert {"nearfar.objectives.softmax", "nearfar.objectives.geometry"} <= set(closure(start))


def test_a_recipe_of_the_library_depends_on_its_world_but_not_on_other_recipes_or_pages() -> None:
    found = set(closure(source_file(find("supcon"))))
    assert {"nearfar.data.synthetic.content_style", "nearfar.training.steps", "nearfar.evaluation.probes"} <= found
    others = {name for name in found if name.startswith("nearfar.recipes.representation.")}
    assert others == {"nearfar.recipes.representation.supcon"}
    assert not [name for name in found if name.startswith(("nearfar.report", "nearfar.cli", "nearfar.claims"))]


def test_a_file_that_is_no_python_is_named(tmp_path: Path) -> None:
    start = tmp_path / "start.py"
    start.write_text("import other\n")
    (tmp_path / "other.py").write_text("def\n")
    with pytest.raises(DataError, match=r"(?s)cannot be read.*other\.py"):
        closure(start)
