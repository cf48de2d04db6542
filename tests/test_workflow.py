"""What runs elsewhere asks for what is here: the workflow, and the hooks before a commit."""

import re
import tomllib
from pathlib import Path

import yaml

PROJECT = Path(__file__).parents[1]
FACTS = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
JOBS = yaml.safe_load((PROJECT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]


def test_every_python_that_is_promised_is_tested():
    promised = {
        found[1]
        for line in FACTS["classifiers"]
        if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line))
    }
    (setup,) = (s for s in JOBS["all"]["steps"] if "setup-python" in s.get("uses", ""))
    whole = setup["with"]["python-version"].split()[-1]
    assert {whole, *JOBS["tests"]["strategy"]["matrix"]["python"]} == promised
    assert FACTS["requires-python"] == f">={whole}"


def test_commands_are_scripts_that_are_there():
    commands = [step["run"] for job in JOBS.values() for step in job["steps"] if "run" in step]
    assert commands == ["bash .ci/run", "./scripts/test"]
    for command in commands:
        assert (PROJECT / command.removeprefix("bash ")).exists()


def test_nothing_may_write_and_every_action_has_a_version():
    workflow = (PROJECT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    assert yaml.safe_load(workflow)["permissions"] == {"contents": "read"}
    for job in JOBS.values():
        assert job["timeout-minutes"] <= 60
        for step in job["steps"]:
            assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step.get("uses", "actions/none@v1"))


def test_the_hooks_have_the_ruff_of_the_tests():
    text = (PROJECT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    (repo,) = yaml.safe_load(text)["repos"]
    assert f"ruff=={repo['rev'].removeprefix('v')}" in FACTS["optional-dependencies"]["test"]
    assert [hook["id"] for hook in repo["hooks"]] == ["ruff-check", "ruff-format"]
