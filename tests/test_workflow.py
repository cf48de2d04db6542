"""What runs elsewhere asks for what is here: the workflow, and the hooks before a commit."""

import re
import tomllib
from pathlib import Path

import yaml

PROJECT = Path(__file__).parents[1]
WORKFLOWS = PROJECT / ".github/workflows"
FACTS = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def workflow(name):
    return yaml.safe_load((WORKFLOWS / f"{name}.yml").read_text(encoding="utf-8"))


JOBS = workflow("ci")["jobs"]
WEEKLY = workflow("thorough")["jobs"]


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


def commands(jobs):
    return [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]


def test_commands_are_scripts_that_are_there():
    assert commands(JOBS) == ["bash .ci/run", "./scripts/test"]
    assert commands(WEEKLY) == ["./scripts/test -m thorough"]
    for command in commands(JOBS | WEEKLY):
        assert (PROJECT / command.removeprefix("bash ").split()[0]).exists()


def test_what_is_left_out_is_run_each_week():
    options = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    assert options["tool"]["pytest"]["ini_options"]["addopts"].endswith("-m 'not thorough'")
    # YAML 1.1 reads `on` as true.
    assert workflow("thorough")[True]["schedule"]


def test_nothing_may_write_and_every_action_has_a_version():
    for path in WORKFLOWS.iterdir():
        found = workflow(path.stem)
        assert found["permissions"] == {"contents": "read"}
        for job in found["jobs"].values():
            assert job["timeout-minutes"] <= 60
            for step in job["steps"]:
                assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step.get("uses", "actions/none@v1"))


def test_the_hooks_have_the_ruff_of_the_tests():
    text = (PROJECT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    (repo,) = yaml.safe_load(text)["repos"]
    assert f"ruff=={repo['rev'].removeprefix('v')}" in FACTS["optional-dependencies"]["test"]
    assert [hook["id"] for hook in repo["hooks"]] == ["ruff-check", "ruff-format"]
