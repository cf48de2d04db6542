"""Skips by name the tests that need what isn't installed: of the extra `test-torch`, or a browser.

On some machines pip only has builds of torch for GPUs, gigabytes of them, so that the tests must do
without; and no package brings a Chromium. A test needs what it, its module or a fixture of its
module imports, and what `@pytest.mark.needs("torch")` names: what it exports or starts imports
that. Where all of them are installed, nothing is skipped.
"""

import ast
import functools
import os
import re
import shutil
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

EXTRA = "test-torch"
BROWSER = "playwright"
"""The package that drives a browser."""
CHROMIUM = "chromium"
"""What stands for the browser itself among the packages."""
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
"""Its names in PATH."""
WANT = "for want of "
"""Begins the reason of each of these skips."""


@functools.cache
def absent() -> frozenset[str]:
    """The packages that cannot be imported here, and `CHROMIUM` where there is none."""
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    extras = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    names = {re.split(r"[^\w.]", requirement)[0] for requirement in extras[EXTRA]}
    lacking = {name for name in (*names, BROWSER) if find_spec(name) is None}
    return frozenset(lacking if chromium() else {*lacking, CHROMIUM})


def chromium() -> str | None:
    """The browser's program: `METATUNE_CHROMIUM`, else the first in PATH; None for none."""
    if told := os.environ.get("METATUNE_CHROMIUM"):
        if not os.access(told, os.X_OK):
            raise pytest.UsageError(f"METATUNE_CHROMIUM is {told!r}, no program; unset or mend it")
        return told
    return next(filter(None, map(shutil.which, CHROMIUMS)), None)


def imported(nodes: list[ast.stmt]) -> Iterator[str]:
    """The packages that these statements import, however deep within."""
    for node in (found for statement in nodes for found in ast.walk(statement)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


@functools.cache
def imports(path: Path) -> tuple[frozenset[str], dict[str, frozenset[str]], dict[str, int]]:
    """What a module imports by itself, what each of its functions imports, and their lines."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    functions = [node for node in body if isinstance(node, ast.FunctionDef)]
    return (
        frozenset(imported([node for node in body if node not in functions])),
        {function.name: frozenset(imported(function.body)) for function in functions},
        {function.name: function.lineno for function in functions},
    )


def reason(packages: frozenset[str]) -> str:
    return WANT + " and ".join(sorted(packages))


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"


class Unimportable(pytest.File):
    """A module that cannot be imported here: its tests by name, a parametrised one once."""

    def collect(self):
        own, _, lines = imports(self.path)
        for name, line in lines.items():
            if name.startswith("test"):
                yield Absent.from_parent(self, name=name, line=line, packages=own & absent())


class Absent(pytest.Item):
    """A test of a module that cannot be imported here."""

    def __init__(self, *, line: int, packages: frozenset[str], **rest):
        super().__init__(**rest)
        self.line = line
        self.add_marker(pytest.mark.skip(reason=reason(packages)))

    def runtest(self):
        raise AssertionError("it is skipped")

    def reportinfo(self):
        return self.path, self.line - 1, self.name


def pytest_pycollect_makemodule(module_path, parent):
    if imports(module_path)[0] & absent():
        return Unimportable.from_parent(parent, path=module_path)
    return None


def pytest_itemcollected(item):
    if isinstance(item, pytest.Function):
        marked = frozenset(name for mark in item.iter_markers("needs") for name in mark.args)
        _, by_function, _ = imports(item.path)
        used = (by_function.get(name, ()) for name in (item.originalname, *item.fixturenames))
        if wanted := marked.union(*used) & absent():
            item.add_marker(pytest.mark.skip(reason=reason(wanted)))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter):
    """Counts them after all else: `skipped for want of torch: 213 tests in 14 files`."""
    outcome = yield
    found = defaultdict(list)
    for report in terminalreporter.stats.get("skipped", ()):
        _, _, why = report.longrepr
        if why.removeprefix("Skipped: ").startswith(WANT):
            found[why.removeprefix("Skipped: ")].append(report.nodeid)
    for why, tests in sorted(found.items()):
        files = {test.split("::")[0] for test in tests}
        terminalreporter.write_line(
            f"skipped {why}: {counted(len(tests), 'test')} in {counted(len(files), 'file')}"
        )
    if found:
        terminalreporter.write_line(
            f"(in the extra {EXTRA}, a Chromium in PATH or METATUNE_CHROMIUM; a parametrised test "
            "of a file that imports one counts once)"
        )
    return outcome
