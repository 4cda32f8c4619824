"""A corpus that is already on the machine: what the functions installed here say they do, and how they do it.
 Every pair is the first sentence of a docstring and the code of that function without it, from the standard library
and the packages of the running environment. Source is parsed, never imported or run.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from nearfar.data import python_source
from nearfar.errors import DataError, UsageError

_TEST_FOLDERS = {"test", "tests", "_test", "_tests", "testing", "_testing", "idle_test", "__pycache__"}
_COPIED_FOLDERS = {"_vendor", "vendor", "vendored", "_vendored", "extern", "externals", "_externals"}
_SKIPPED_FOLDERS = _TEST_FOLDERS | _COPIED_FOLDERS | {"third_party", "thirdparty", "_distutils"}
# This package is left out so that the corpus is the same whether it is installed from a wheel or from a checkout.
_SKIPPED_PACKAGES = frozenset({"nearfar"})
# Installed packages hold about one usable function in so many bytes: a limit is reached in a few rounds of reading.
_BYTES_PER_ITEM = 3_500


@dataclass(frozen=True, slots=True)
class CodeItem:
    """One function: what it says (``summary``), its ``code`` without docstring and decorators, and where it stands.

    ``module`` is the dotted name of the file, ``package`` its first part, ``qualified_name`` the name inside the file
    (``Class.method``), ``line`` the line of ``def`` in ``file``.
    """

    summary: str
    code: str
    module: str
    package: str
    qualified_name: str
    file: str
    line: int


class _Source(NamedTuple):
    module: str
    path: str
    size: int


def collect_code(
    packages: Iterable[str] | None = None, *, limit: int | None = None, seed: int = 0, processes: int | None = None
) -> list[CodeItem]:
    """Pairs of docstring summary and code from the standard library and the installed packages.

    Functions and methods (``async`` too) with a summary of at least three words and a body that does something; code
    is cut after 2,000 characters at a line, a summary after 300. Tests, vendored copies, files whose header says they
    are generated and files that do not decode or parse are skipped. Of items with equal code (without comments and
    white space) or equal summary (without case and punctuation) the first is kept. The order is that of the files:
    standard library first, then packages, each sorted by path.

    ``packages``: names of top-level modules to read (``["json", "torch"]``); None reads everything but nearfar
    itself. ``limit``: at most so many items; files are then drawn with ``seed`` and read until there are enough, so
    half of the items take half of the time. ``processes``: parsers that run side by side (default: one a core, at
    most 4); the result does not depend on it.

    Raises :class:`~nearfar.errors.UsageError` for a package that has no Python source here or a limit below 1, and
    :class:`~nearfar.errors.DataError` when nothing usable is found.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"the limit is {limit}; it must be at least 1")
    sources = _find_sources(None if packages is None else list(packages))
    order = list(range(len(sources)))
    if limit is not None:
        random.Random(seed).shuffle(order)
    functions: dict[int, list[python_source.Function]] = {}
    items: list[tuple[int, CodeItem]] = []
    while len(functions) < len(order) and (limit is None or len(items) < limit):
        wanted = None if limit is None else max(limit - len(items), limit // 20)  # no long tail of tiny rounds
        wave = _next_files(sources, order[len(functions) :], wanted)
        parsed = _parse([sources[index] for index in wave], processes)
        functions.update(zip(wave, parsed, strict=True))
        items = _distinct(sources, functions)
    if not items:
        raise DataError("no documented functions were found in the Python source of this environment")
    if limit is not None:
        drawn = {index: place for place, index in enumerate(order)}
        items = sorted(sorted(items, key=lambda pair: drawn[pair[0]])[:limit], key=lambda pair: pair[0])
    return [item for _, item in items]


def _next_files(sources: Sequence[_Source], rest: Sequence[int], wanted: int | None) -> list[int]:
    """As many of the files in ``rest``, from its start, as ``wanted`` more items will probably take."""
    if wanted is None:
        return list(rest)
    chosen, size = [], 0
    for index in rest:
        chosen.append(index)
        size += sources[index].size
        if size >= wanted * _BYTES_PER_ITEM:
            break
    return chosen


def _distinct(
    sources: Sequence[_Source], functions: Mapping[int, list[python_source.Function]]
) -> list[tuple[int, CodeItem]]:
    """Items with the index of their file, in the order of the files; of equal ones the first."""
    items: list[tuple[int, CodeItem]] = []
    codes: set[str] = set()
    summaries: set[str] = set()
    for index in sorted(functions):
        source = sources[index]
        for function in functions[index]:
            code, summary = normalised_code(function.code), normalised_summary(function.summary)
            if code in codes or summary in summaries:
                continue
            codes.add(code)
            summaries.add(summary)
            item = CodeItem(
                summary=function.summary,
                code=function.code,
                module=source.module,
                package=source.module.split(".")[0],
                qualified_name=function.qualified_name,
                file=source.path,
                line=function.line,
            )
            items.append((index, item))
    return items


def split_by_module(
    items: Sequence[CodeItem], held_out: int = 1_500, seed: int = 0
) -> tuple[list[CodeItem], list[CodeItem]]:
    """Split into ``(training, held out)`` items so that no module is on both sides; both keep the order of ``items``.

    Modules are shuffled with ``seed`` and held out one by one while they fit into ``held_out`` items, so exactly that
    many are held out unless the modules are too large for it. Training items whose normalised code or summary equals
    a held-out one's are dropped, so nothing that is asked was seen.

    Raises :class:`~nearfar.errors.DataError` when ``held_out`` leaves one side empty.
    """
    if held_out < 1:
        raise UsageError(f"{held_out} items to hold out; at least 1 is needed")
    sizes: dict[str, int] = {}
    for item in items:
        sizes[item.module] = sizes.get(item.module, 0) + 1
    modules = sorted(sizes)
    random.Random(seed).shuffle(modules)
    chosen: set[str] = set()
    room = held_out
    for module in modules:
        if sizes[module] <= room:
            chosen.add(module)
            room -= sizes[module]
        if room == 0:
            break
    held = [item for item in items if item.module in chosen]
    codes = {normalised_code(item.code) for item in held}
    summaries = {normalised_summary(item.summary) for item in held}
    training = [
        item
        for item in items
        if item.module not in chosen
        and normalised_code(item.code) not in codes
        and normalised_summary(item.summary) not in summaries
    ]
    if not held or not training:
        raise DataError(
            f"{len(items)} items of {len(sizes)} modules cannot be split with {held_out} items held out",
            hint="collect from more packages, or hold out another number",
        )
    return training, held


def normalised_code(code: str) -> str:
    """``code`` without comments and white space: what two copies of a function have in common."""
    return "".join(re.sub(r"#[^\n]*", "", code).split())


def normalised_summary(summary: str) -> str:
    """``summary`` without case and punctuation: its words, joined by blanks."""
    return " ".join(re.findall(r"\w+", summary.casefold()))


def _roots() -> list[str]:
    """The folders that hold the standard library and the installed packages, without repetition."""
    paths = sysconfig.get_paths()
    roots = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    roots += [entry for entry in sys.path if os.path.basename(entry) in ("site-packages", "dist-packages")]
    distinct: dict[str, str] = {}
    for root in roots:
        if os.path.isdir(root):
            distinct.setdefault(os.path.realpath(root), root)
    return list(distinct.values())


def _find_sources(packages: list[str] | None) -> list[_Source]:
    wanted = None if packages is None else set(packages)
    found: list[_Source] = []
    seen: set[str] = set()
    for root in _roots():
        before = len(found)
        for name in sorted(os.listdir(root)):
            top = name.removesuffix(".py")
            # What is no identifier (site-packages, *.dist-info, config-3.11) cannot be imported and is no package.
            if not top.isidentifier() or top in _SKIPPED_FOLDERS:
                continue
            if top not in wanted if wanted is not None else top in _SKIPPED_PACKAGES:
                continue
            path = os.path.join(root, name)
            if os.path.isdir(path):
                found += _walk(path, top)
            elif name.endswith(".py") and _is_wanted_file(top):
                found.append(_Source(top, path, os.path.getsize(path)))
        # A module that stands in two roots is the one that import would find first.
        found[before:] = [source for source in found[before:] if source.module not in seen]
        seen.update(source.module for source in found[before:])
    if wanted is not None:
        missing = wanted - {source.module.split(".")[0] for source in found}
        if missing:
            raise UsageError(
                f"no Python source of {', '.join(sorted(missing))} in this environment",
                hint="name top-level modules that are installed here and written in Python",
            )
    return found


def _walk(folder: str, package: str) -> list[_Source]:
    found: list[_Source] = []
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        if entry.is_dir(follow_symlinks=False):
            if entry.name.isidentifier() and entry.name not in _SKIPPED_FOLDERS:
                found += _walk(entry.path, f"{package}.{entry.name}")
        elif entry.name.endswith(".py") and entry.is_file():
            stem = entry.name[:-3]
            if stem.isidentifier() and _is_wanted_file(stem):
                module = package if stem == "__init__" else f"{package}.{stem}"
                found.append(_Source(module, entry.path, entry.stat().st_size))
    return found


def _is_wanted_file(stem: str) -> bool:
    return not (stem.startswith("test_") or stem.endswith(("_test", "_tests")) or stem in ("conftest", "tests"))


def _parse(sources: Sequence[_Source], processes: int | None) -> list[list[python_source.Function]]:
    """The functions of every source, in order. Small work and one process are done here, the rest in helper
    processes."""
    count = min(4, _usable_cores()) if processes is None else processes
    if count < 1:
        raise UsageError(f"{count} processes; at least 1 is needed")
    if count == 1 or len(sources) < 200 or not sys.executable:
        return [python_source.read_functions(source.path) for source in sources]
    # Large files first and dealt in turn: every helper gets about the same number of bytes.
    order = sorted(range(len(sources)), key=lambda index: -sources[index].size)
    shares = [order[start::count] for start in range(count)]
    results: list[list[python_source.Function]] = [[] for _ in sources]
    with ThreadPoolExecutor(count) as pool:
        for share, parsed in zip(
            shares, pool.map(_run_helper, [[sources[i].path for i in s] for s in shares]), strict=True
        ):
            for index, functions in zip(share, parsed, strict=True):
                results[index] = functions
    return results


def _run_helper(paths: list[str]) -> list[list[python_source.Function]]:
    """Parse ``paths`` in a process of its own, started from the file so that it imports neither torch nor the
    caller's script."""
    process = subprocess.run(
        [sys.executable, "-I", "-S", python_source.__file__],
        input=json.dumps(paths).encode("ascii"),
        stdout=subprocess.PIPE,
        check=True,
    )
    return [[python_source.Function(*fields) for fields in json.loads(line)] for line in process.stdout.splitlines()]


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
