"""The code that a measurement depends on, as a hash: a record is good for as long as this stays the same.

Found without running anything: the recipe's file, every nearfar module that it imports, and what those import, inside
functions too. A package that hands a name on is passed through to the module that defines it, so that a new objective
does not make every record old. Comments, docstrings, blank lines and the recipe's text cannot change a measurement and
are left out.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import io
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import nearfar
from nearfar.errors import DataError
from nearfar.recipes import Recipe

_ROOT = Path(nearfar.__file__).parent
_PACKAGE = nearfar.__name__
_LOOKED_UP = {f"nearfar.objectives.registry.{name}": "nearfar.objectives" for name in ("get", "find", "catalogue")}
"""Functions that find by name at run time what is registered in a package: who imports one depends on all of it."""


def fingerprint(recipe: Recipe) -> str:
    """Sixteen hexadecimal digits that change when code changes that the recipe's experiment may run.

    A recipe in a file of its own outside nearfar may import modules of the same folder; these count as well.
    """
    found = hashlib.sha256()
    for name, path in sorted(closure(source_file(recipe)).items()):
        found.update(f"{name}\0{_read(name, path).code}\0".encode())
    return found.hexdigest()[:16]


def source_file(recipe: Recipe) -> Path:
    """The file that the recipe is written in. Raises :class:`~nearfar.errors.DataError` when it is in none."""
    path = getattr(sys.modules.get(recipe.module), "__file__", None)
    if path is None or not Path(path).is_file():
        raise DataError(
            f"the recipe {recipe.id!r} is in no file", where=recipe.module, hint="write it into a file name.py"
        )
    return Path(path).resolve()


def closure(start: Path) -> dict[str, Path]:
    """The file ``start`` and the modules that hold what it imports, directly or not, by name."""
    own = start.parent
    found: dict[str, Path] = {}
    waiting = [(_name_of(start), start)]
    while waiting:
        name, path = waiting.pop()
        if name not in found:
            found[name] = path
            waiting += [held for wanted in _read(name, path).imports for held in _holders(wanted, own)]
    return found


def _holders(wanted: tuple[str, str | None], own: Path) -> Iterator[tuple[str, Path]]:
    """The module that an import gets: ``(module, None)`` the module itself, ``(module, name)`` who defines the name."""
    module, name = wanted
    if name is not None and (inner := _place(f"{module}.{name}", own)) is not None:
        yield f"{module}.{name}", inner
        return
    place = _place(module, own)
    if place is None:
        return
    if (
        place.name == "__init__.py"
        and name is not None
        and (onward := _read(module, place).hands_on.get(name)) is not None
    ):
        yield from _holders(onward, own)
        return
    yield module, place
    if (package := _LOOKED_UP.get(f"{module}.{name}")) is not None:
        yield from _holders((package, None), own)


class _Source:
    """What of one file matters: its code, normalised, and the names that it may import."""

    def __init__(self, name: str, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        try:
            tree = ast.parse(text, filename=str(path))
        except SyntaxError as error:
            raise DataError(f"the module cannot be read: {error}", where=str(path)) from error
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        described = _description(tree)
        nodes = [node for node in _run(tree) if node is not described]
        if described is not None:
            nodes = _without(nodes, described)
        self.imports = sorted(set(_imports(nodes, package)), key=str)
        self.hands_on: dict[str, tuple[str, str | None]] = {
            alias.asname or alias.name: (_base(node, package), alias.name)
            for node in tree.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        self.code = _code(text, tree)


def _read(name: str, path: Path) -> _Source:
    stat = path.stat()
    return _read_once(name, path, stat.st_mtime_ns, stat.st_size)


@functools.cache
def _read_once(name: str, path: Path, modified: int, size: int) -> _Source:
    return _Source(name, path)


def _name_of(path: Path) -> str:
    """``nearfar.data.lines`` of a file of the package, the stem of any other."""
    if not path.is_relative_to(_ROOT):
        return path.stem
    parts = [_PACKAGE, *path.relative_to(_ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _place(name: str, own: Path) -> Path | None:
    """The file of a module of nearfar, or of one beside the recipe; None for any other."""
    head, *rest = name.split(".")
    stem = _ROOT.joinpath(*rest) if head == _PACKAGE else own.joinpath(head, *rest)
    for place in (stem.with_name(stem.name + ".py"), stem / "__init__.py"):
        if place.is_file():
            return place
    return None


def _imports(nodes: list[ast.AST], package: str) -> Iterator[tuple[str, str | None]]:
    whole: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
            whole.update({alias.asname or alias.name for alias in node.names if alias.name == _PACKAGE})
        elif isinstance(node, ast.ImportFrom):
            yield from ((_base(node, package), alias.name) for alias in node.names)
    for node in nodes:  # import nearfar as nf; nf.objectives
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in whole:
            yield _PACKAGE, node.attr


def _base(node: ast.ImportFrom, package: str) -> str:
    """The module that ``from ... import`` names, absolute."""
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    above = ".".join(parts[: len(parts) - node.level + 1])
    return ".".join(filter(None, [above, node.module]))


def _description(tree: ast.Module) -> ast.Assign | None:
    """``RECIPE = ...`` where nothing else reads it."""
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "RECIPE"]
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and statement.targets == names:
            return statement
    return None


def _without(nodes: list[ast.AST], described: ast.Assign) -> list[ast.AST]:
    """``nodes`` without those of the description, and without the names that are imported for it alone."""
    inside = set(ast.walk(described))
    outside = [node for node in nodes if node not in inside]
    used = {node.id for node in outside if isinstance(node, ast.Name)}
    said = {node.id for node in inside if isinstance(node, ast.Name)}

    def kept(alias: ast.alias) -> bool:
        name = alias.asname or alias.name
        return name in used or name not in said

    left: list[ast.AST] = []
    for node in outside:
        if not isinstance(node, ast.ImportFrom):
            left.append(node)
        elif names := [alias for alias in node.names if kept(alias)]:
            left.append(ast.ImportFrom(module=node.module, names=names, level=node.level))
    return left


def _run(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under ``if TYPE_CHECKING:``, which never run."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting.extend(node.orelse)
        else:
            waiting.extend(ast.iter_child_nodes(node))


def _code(text: str, tree: ast.Module) -> str:
    """``text`` without comments, docstrings, blank lines and the recipe's description."""
    lines = text.splitlines()
    if "#" in text:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                row, column = token.start
                lines[row - 1] = lines[row - 1][:column]
    for first, last in _words(tree):
        lines[first - 1 : last] = [""] * (last - first + 1)
    return "\n".join(filter(None, map(str.rstrip, lines)))


def _words(tree: ast.Module) -> Iterator[tuple[int, int]]:
    """First and last line of every string that stands alone, and of the recipe's description."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
            and node.end_lineno is not None
        ):
            yield node.lineno, node.end_lineno
    described = _description(tree)
    if described is not None and described.end_lineno is not None:
        yield described.lineno, described.end_lineno
