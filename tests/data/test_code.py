from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

from nearfar.data import code
from nearfar.data.code import CodeItem, collect_code, normalised_code, normalised_summary, split_by_module
from nearfar.data.python_source import (
    CODE_LIMIT,
    SUMMARY_LIMIT,
    Function,
    functions,
    is_generated,
    read_source,
    summary_of,
)
from nearfar.errors import DataError, UsageError

SOURCE = '''
@register("adds")
def add(left, right):
    """Add two numbers together.

    Longer text that is not part of the summary.
    """
    total = left + right  # a comment stays

    def inner():
        """Say nothing of interest here."""
        return "a text that is no docstring"

    class Local:
        """Only a docstring lives here."""

    return total


class Outer:
    """A class docstring makes no pair."""

    async def fetch(self):
        \'\'\'Fetch the next item. And more.\'\'\'
        return await self.next()

    class Nested:
        def deep(self): "Return the deep value"; return self.value

    def empty(self):
        """Do nothing at all here."""
        pass

    def abstract(self):
        """Be overridden by the subclasses."""
        raise NotImplementedError("no")

    def undocumented(self):
        return 1

    def short(self):
        """Two words."""
        return 2

    def leaking(self):
        """Return the leaked value."""
        # Return the leaked value
        return 3


if True:
    def conditional(ümläut):
        r"""Return what ümläut is."""; return "é" + ümläut
'''


def test_functions_are_found_with_their_summary_and_without_docstrings() -> None:
    found = {function.qualified_name: function for function in functions(SOURCE)}
    assert {name: item.summary for name, item in found.items()} == {
        "add": "Add two numbers together.",
        "Outer.fetch": "Fetch the next item.",
        "Outer.Nested.deep": "Return the deep value",
        "conditional": "Return what ümläut is.",
    }
    assert found["add"].code == (
        "def add(left, right):\n"
        "    total = left + right  # a comment stays\n\n"
        "    def inner():\n"
        '        return "a text that is no docstring"\n\n'
        "    class Local:\n"
        "        pass\n\n"
        "    return total"
    )
    assert found["Outer.fetch"].code == "async def fetch(self):\n    return await self.next()"
    assert found["Outer.Nested.deep"].code == "def deep(self): return self.value"
    assert found["conditional"].code == 'def conditional(ümläut):\n    return "é" + ümläut'
    assert SOURCE.split("\n")[found["add"].line - 1] == "def add(left, right):"


def test_code_of_the_standard_library_is_the_same_tree_without_docstrings() -> None:
    checked = 0
    for name in ("argparse", "textwrap", "statistics", "inspect", "tempfile"):
        specification = importlib.util.find_spec(name)
        assert specification is not None
        assert specification.origin is not None
        source = read_source(specification.origin)
        assert source is not None
        nodes = {
            node.lineno: node
            for node in ast.walk(ast.parse(source))
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        }
        for function in functions(source):
            if len(function.code) > CODE_LIMIT - 200:
                continue
            expected = nodes[function.line]
            for inner in ast.walk(expected):
                if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                    first = inner.body[0]
                    if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
                        inner.body = inner.body[1:] or [ast.Pass()]
            expected.decorator_list = []
            assert ast.unparse(ast.parse(function.code)) == ast.unparse(expected), function.qualified_name
            checked += 1
    assert checked > 100


@pytest.mark.parametrize(
    ("docstring", "summary"),
    [
        ("Return the\n    mean value of it.\n\n    More.", "Return the mean value of it."),
        ("Use :class:`~a.b.Thing` and ``x`` well.", "Use a.b.Thing and x well."),
        ("See the `guide <https://x.org>`_ for more.", "See the guide for more."),
        ("See [the guide](https://x.org) for more.", "See the guide for more."),
        ("Take i.e. The first e.g. Three of them. Then stop.", "Take i.e. The first e.g. Three of them."),
        ("Sort it. In place and stably. Fast.", "Sort it. In place and stably."),
        (
            "relu(input, inplace=False) -> Tensor\n\nApplies the rectifier elementwise to it.",
            "Applies the rectifier elementwise to it.",
        ),
        ("Make a new one\n    :param x: not this\n", "Make a new one"),
        ("Make a new one\nArgs:\n    x: not this\n", "Make a new one"),
        ("Make a new one\n>>> make()\n", "Make a new one"),
        ("Make a new one\n- with a list\n", "Make a new one"),
        ("Args:\n    x: the value of interest here\n", None),
        ("x (`Tensor` of shape `(batch, length)`):\n    The value of interest here.", None),
        ("Two words", None),
        ("https://example.org/a/long/path-of-words", None),
        ("Return the %(name)s of it all", None),
        ("Return the {name} of it all", None),
        ("Return the \x00 of it all", None),
        ("", None),
        ("\n\n", None),
        ("Вернуть среднее значение списка.", "Вернуть среднее значение списка."),
    ],
)
def test_summary(docstring: str, summary: str | None) -> None:
    assert summary_of(docstring) == summary


def test_long_texts_are_cut_at_a_word_and_at_a_line() -> None:
    summary = summary_of("word " * 200)
    assert summary is not None
    assert SUMMARY_LIMIT - 5 <= len(summary) <= SUMMARY_LIMIT
    assert set(summary.split()) == {"word"}
    body = "\n".join(f"    value_{number} = {number}" for number in range(500))
    (function,) = functions(f'def long():\n    """Make many values at once."""\n{body}\n')
    assert CODE_LIMIT - 40 < len(function.code) <= CODE_LIMIT
    assert function.code.split("\n")[-1].strip() in body.replace("    ", "").split("\n")


def test_broken_sources_give_nothing(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    assert functions('def broken(:\n    """Say three words."""') == []
    assert functions('x = """a\0b"""') == []
    assert functions('x = """a"""\n' + "(" * 5_000 + ")" * 5_000) == []
    undecodable = tmp_path / "undecodable.py"
    undecodable.write_bytes(b'def f():\n    """Caf\xe9 au lait now."""\n    return 1\n')
    assert read_source(str(undecodable)) is None
    undecodable.write_bytes(
        b'# -*- coding: latin-1 -*-\r\ndef f():\r\n    """Caf\xe9 au lait now."""\r\n    return 1\r\n'
    )
    source = read_source(str(undecodable))
    assert source is not None
    assert [(item.summary, item.code) for item in functions(source)] == [
        ("Café au lait now.", "def f():\n    return 1")
    ]
    undecodable.write_bytes(b"# coding: nonsense\n")
    assert read_source(str(undecodable)) is None
    assert read_source(str(tmp_path / "absent.py")) is None
    # An invalid escape makes the parser warn; the reader of somebody else's source must not hear of it.
    assert len(functions('def f():\n    """Match a digit here."""\n    return "\\d"\n')) == 1
    assert not recwarn.list


def test_generated_files_are_told_by_their_head() -> None:
    assert is_generated("#!/usr/bin/env python\n\n# This file was automatically generated from x.\nimport os\n")
    assert is_generated("# Code generated by protoc. DO NOT EDIT.\n")
    assert not is_generated("# Written by hand.\nimport os\n# generated by nobody\n")


def write_environment(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def function_text(name: str, summary: str, body: str) -> str:
    return f'def {name}():\n    """{summary}"""\n    return {body}\n'


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    first, second = tmp_path / "lib", tmp_path / "site-packages"
    one = function_text("one", "Return the number one.", "1")
    write_environment(
        first,
        {
            "alpha/__init__.py": one,
            "alpha/inner.py": function_text("two", "Return the number two.", "2"),
            "alpha/tests/helper.py": function_text("hidden", "Live in a test folder.", "3"),
            "alpha/test_inner.py": function_text("hidden", "Live in a test file.", "4"),
            "alpha/_vendor/other.py": function_text("hidden", "Live in a vendored copy.", "5"),
            "alpha/made.py": "# @generated\n" + function_text("hidden", "Live in generated code.", "6"),
            "single.py": function_text("three", "Return the number three.", "3"),
            "not-a-package/x.py": function_text("hidden", "Live nowhere one imports.", "7"),
        },
    )
    write_environment(
        second,
        {
            # equal code but for space and comment; equal summary but for case and punctuation; a module seen already
            "beta.py": 'def one():\n    """Give a one back."""\n    return  1  # one\n'
            + function_text("other", "return the number -- Two", "22"),
            "single.py": function_text("shadow", "Be shadowed by the first.", "8"),
            "nearfar/x.py": function_text("self_reference", "Live in this library.", "9"),
            "zeta.py": function_text("last", "Return the last one.", "10"),
        },
    )
    monkeypatch.setattr(code, "_roots", lambda: [str(first), str(second)])
    return tmp_path


def test_collect_skips_and_removes_duplicates_in_order(environment: Path) -> None:
    items = collect_code()
    assert [(item.module, item.qualified_name, item.package) for item in items] == [
        ("alpha", "one", "alpha"),
        ("alpha.inner", "two", "alpha"),
        ("single", "three", "single"),
        ("zeta", "last", "zeta"),
    ]
    assert items[1] == CodeItem(
        "Return the number two.",
        "def two():\n    return 2",
        "alpha.inner",
        "alpha",
        "two",
        str(environment / "lib" / "alpha" / "inner.py"),
        1,
    )
    assert [item.module for item in collect_code(["beta"])] == ["beta", "beta"]
    with pytest.raises(UsageError, match="gamma"):
        collect_code(["alpha", "gamma"])
    limited = collect_code(limit=2, seed=1)
    assert limited == collect_code(limit=2, seed=1)
    assert limited == sorted(limited, key=lambda item: item.file)
    assert len(limited) == 2
    assert collect_code(limit=99) == items
    with pytest.raises(UsageError):
        collect_code(limit=0)


def test_helper_processes_give_the_same_items(environment: Path) -> None:
    write_environment(
        environment / "lib",
        {
            f"many/module_{number}.py": function_text(
                f"f{number}", f"Return the größte {number} of all.", f"'\u2028{number}'"
            )
            for number in range(230)
        },
    )
    items = collect_code(processes=1)
    assert len(items) == 234
    assert collect_code(processes=2) == items
    assert collect_code(processes=3) == items


def test_a_limit_reads_no_more_than_it_needs(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_environment(
        environment / "lib",
        {
            f"many/m{number:03}.py": function_text(f"f{number}", f"Return the number {number} of all.", f"'{number}'")
            + "#" * 3_000
            for number in range(60)
        },
    )
    everything = collect_code()
    read: list[str] = []
    parse = code._parse

    def counted(sources: list[code._Source], processes: int | None) -> list[list[Function]]:
        read.extend(source.module for source in sources)
        return parse(sources, processes)

    monkeypatch.setattr(code, "_parse", counted)
    items = collect_code(["many"], limit=20, seed=2)
    assert len(items) == 20
    assert len(read) == len(set(read)) < 40
    assert items == [item for item in everything if item in items]
    assert items != collect_code(["many"], limit=20, seed=3)
    assert collect_code(limit=1_000) == everything


def test_an_environment_without_functions_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "_roots", lambda: [str(tmp_path)])
    with pytest.raises(DataError):
        collect_code()


def test_the_real_standard_library_is_not_imported() -> None:
    absent = [name for name in ("turtle", "nturl2path", "pyclbr") if name not in sys.modules]
    items = collect_code(["turtle", "pyclbr", "argparse"])
    assert len(items) > 100
    assert [name for name in absent if name in sys.modules] == []
    assert len({normalised_code(item.code) for item in items}) == len(items)
    assert len({normalised_summary(item.summary) for item in items}) == len(items)
    for item in items:
        assert normalised_summary(item.summary) not in normalised_summary(item.code)
        lines = Path(item.file).read_text(encoding="utf-8").split("\n")
        assert lines[item.line - 1].strip() == item.code.split("\n")[0].strip()


def make_item(module: str, summary: str, text: str) -> CodeItem:
    return CodeItem(summary, text, module, module.split(".")[0], "f", f"/{module}.py", 1)


def test_split_by_module_is_honest() -> None:
    items = [make_item(f"package.m{index // 3}", f"Summary number {index}", f"return {index}") for index in range(90)]
    for seed in range(5):
        training, held = split_by_module(items, 20, seed)
        assert len(held) == 18  # modules of three: the largest multiple that fits
        assert len(training) == 72
        assert not {item.module for item in training} & {item.module for item in held}
        assert training == sorted(training, key=items.index)
        assert (training, held) == split_by_module(items, 20, seed)
    assert split_by_module(items, 20, 0)[1] != split_by_module(items, 20, 1)[1]


def test_what_is_held_out_was_not_seen_under_another_name() -> None:
    items = []
    for index in range(40):
        items.append(make_item(f"a{index}", f"Summary number {index}", f"return {index}"))
        items.append(make_item(f"b{index}", f"summary: NUMBER {index}!", f"return {1000 + index}"))
        items.append(make_item(f"c{index}", f"Other words {index}", f"return  {index}  # copied"))
    training, held = split_by_module(items, 20, 3)
    assert len(held) == 20
    assert len(training) < 100  # some were dropped
    assert not {normalised_summary(item.summary) for item in training} & {
        normalised_summary(item.summary) for item in held
    }
    assert not {normalised_code(item.code) for item in training} & {normalised_code(item.code) for item in held}


def test_a_split_that_leaves_a_side_empty_is_an_error() -> None:
    one_module = [make_item("m", f"Summary {index}", f"return {index}") for index in range(10)]
    with pytest.raises(DataError):
        split_by_module(one_module, 5)
    with pytest.raises(DataError):
        split_by_module(one_module, 10)
    with pytest.raises(DataError):
        split_by_module([], 5)
    with pytest.raises(UsageError):
        split_by_module(one_module, 0)
