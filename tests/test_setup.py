"""What scripts/setup.sh installs, and when: with a pip that only says what it was asked for."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
PYTHON = f"""#!/usr/bin/env bash
case "$*" in
  *'version("torch")'*) [[ -n $HELD ]] && echo "$HELD" ;;
  *sys.prefix* | *sysconfig*) echo "$PWD/.venv" ;;
  *"pip --version") ;;
  *--dry-run*) echo "$*" >>asked; [[ -n $OFFERED ]] ;;
  *"pip install"*) echo "$*" >>installed; echo Collecting that; echo no wheel >&2; exit "$CODE" ;;
  *) exec {sys.executable} "$@" ;;
esac
"""
TORCH = "torch==2.13.0" if sys.platform == "darwin" else "torch==2.13.0+cpu"


@pytest.fixture
def setup(tmp_path):
    """Runs `install EXTRA` in a folder of its own; gives the process and what pip was asked for."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(PROJECT / "scripts" / "setup.sh", tmp_path / "scripts")
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)

    def run(extra="", held="", offered="", code=0):
        (tmp_path / "installed").unlink(missing_ok=True)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"source scripts/setup.sh; install {extra}"],
            cwd=tmp_path,
            env={**os.environ, "HELD": held, "OFFERED": offered, "CODE": str(code)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        installed = tmp_path / "installed"
        asked = installed.read_text().split("--progress-bar off ")[1] if installed.exists() else ""
        return done, asked.strip()

    return run


def test_torch_is_taken_for_the_cpu_alone(setup, tmp_path):
    done, asked = setup("test", offered="yes")
    assert (done.returncode, asked) == (0, f"-e .[test,test-torch] {TORCH}")
    assert (tmp_path / "asked").read_text().split()[-1] == TORCH


def test_without_such_a_torch_nothing_that_pulls_another_is_installed(setup):
    done, asked = setup("test")
    assert (done.returncode, asked) == (0, "-e .[test]")
    assert f"pip finds no {TORCH} here, so the tests that need torch will be skipped" in done.stdout


def test_the_torch_that_is_there_stays(setup, tmp_path):
    assert setup("test", held="2.12.1")[1] == "-e .[test,test-torch] torch==2.12.1"
    assert not (tmp_path / "asked").exists()


def test_users_need_no_extra(setup):
    assert setup()[1] == "-e ."


def test_what_is_installed_is_not_installed_again(setup, tmp_path):
    assert setup("test")[1]
    assert setup("test")[1] == setup("")[1] == ""
    with (tmp_path / "pyproject.toml").open("a") as file:
        file.write("\n")
    assert setup("")[1] == "-e ."
    assert setup("test")[1] == "-e .[test]"


def test_an_install_that_failed_is_said_and_done_again(setup, tmp_path):
    stamp = tmp_path / ".venv" / "metatune.installed"
    setup()
    assert stamp.read_text().split()[0] == (
        hashlib.sha256((tmp_path / "pyproject.toml").read_bytes()).hexdigest()
    )
    done, _ = setup("test", code=3)
    assert done.returncode == 1 and not stamp.exists()
    assert "no wheel\n" in done.stderr and "Collecting that\n" in done.stderr
    assert "error: pip ended with exit code 3; its last words are above" in done.stderr
    assert setup()[1] == "-e ."
