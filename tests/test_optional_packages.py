"""Tests that lack a package are skipped by name and counted; others run."""

import os
import subprocess
import sys
from pathlib import Path

CONFTEST = """
import optional_packages

pytest_plugins = ["optional_packages"]
optional_packages.absent = lambda: frozenset({"torch", "trl"})
"""
WHOLE = """
import pytest
from torch import nn

class Model(nn.Module): ...

@pytest.mark.parametrize("size", [1, 2])
def test_parametrised(size): ...

def test_plain(): ...
"""
PARTLY = """
import pytest

@pytest.fixture
def model():
    import torch.nn

@pytest.fixture
def deeper(model): ...

def test_by_a_fixture(deeper): ...

def test_by_itself():
    from torch import nn

@pytest.mark.needs("trl", "torch")
def test_by_its_mark(): ...

@pytest.mark.parametrize("target", ["json", pytest.param("x", marks=pytest.mark.needs("torch"))])
def test_by_its_case(target): ...

def test_without(): ...
"""
EXPECTED = {
    "test_whole.py::test_parametrised SKIPPED (for want of torch)",
    "test_whole.py::test_plain SKIPPED (for want of torch)",
    "test_partly.py::test_by_a_fixture SKIPPED (for want of torch)",
    "test_partly.py::test_by_itself SKIPPED (for want of torch)",
    "test_partly.py::test_by_its_mark SKIPPED (for want of torch and trl)",
    "test_partly.py::test_by_its_case[json] PASSED",
    "test_partly.py::test_by_its_case[x] SKIPPED (for want of torch)",
    "test_partly.py::test_without PASSED",
}


def test_they_are_named_and_counted(tmp_path):
    files = {"conftest.py": CONFTEST, "test_whole.py": WHOLE, "test_partly.py": PARTLY}
    for name, text in {**files, "pytest.ini": "[pytest]\nmarkers = needs(names...)"}.items():
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), "COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = done.stdout.splitlines()
    found = {line.rsplit(" [", 1)[0].rstrip() for line in lines if line.startswith("test_")}
    assert found == EXPECTED, done.stdout + done.stderr
    assert done.returncode == 0
    *_, torch, both, _, _ = lines
    assert torch == "skipped for want of torch: 5 tests in 2 files"
    assert both == "skipped for want of torch and trl: 1 test in 1 file"
