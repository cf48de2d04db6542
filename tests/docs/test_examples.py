"""The commands, recipes and code of the pages are true: they are read, or run."""

import re
import shlex
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import typer
from docs.pages import PROJECT, WRITTEN, blocks, name, prose, read

from metatune import api
from metatune.cli.commands import app
from metatune.recipe import document, reading, reference
from metatune.recipe.faults import RecipeError

COMMANDS: Any = typer.main.get_command(app)
SECTIONS = {entry.path for entry in reference.sections()}


def commands(page):
    """The command lines of metatune, in blocks and in backticks, as words."""
    text = re.sub(r"\\\n\s*", "", read(page))
    lines = re.findall(r"^ {4}(?:\.venv/bin/)?metatune (.*)", text, re.MULTILINE)
    inline = re.findall(r"`(?:\.venv/bin/)?metatune\s+([^`]+)`", text)
    return [shlex.split(line, comments=True) for line in [*lines, *inline]]


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_commands_and_their_options_are_there(page):
    for verb, *words in commands(page):
        if verb == "--help":
            continue
        assert verb in COMMANDS.commands, verb
        known = {option for p in COMMANDS.commands[verb].params for option in p.opts}
        for word in words:
            assert not word.startswith("--") or word.split("=")[0] in known, (verb, word)


def faults(path, value):
    """What a recipe's reader has against a value by a dotted path, sections and kinds by parts."""
    if isinstance(value, dict) and "kind" in value:
        kind, value = value["kind"], {k: v for k, v in value.items() if k != "kind"}
        return faults(f"{path}.{kind}", value)
    found = []
    try:
        entries = reference.find(path)
    except RecipeError as error:
        return [str(error)]
    if isinstance(value, dict) and any(entry.entries() for entry in entries):
        for key, inner in value.items():
            found += faults(f"{path}.{key}", inner)
    elif isinstance(value, list) and any(e.path.endswith("[0]") for e in entries[0].entries()):
        for inner in value:
            found += faults(f"{path}[0]", inner)
    else:
        against = []
        for entry in entries:
            said = []
            taken = reading._value(entry.expected, value, path, said)
            if not said and taken is not None and entry.rule and not entry.rule.holds(taken):
                said.append(f"{path} = {value!r}: must be {entry.rule.allowed}")
            against.append(said)
        found += min(against, key=len)
    return list(map(str, found))


def test_a_wrong_field_and_a_wrong_value_are_found():
    assert faults("tune.mixture", {"flor": 0.1})
    assert faults("outer.optimizer", {"kind": "sign", "momentum": 0.5})
    assert faults("outer.phases", [{"steps": -1}])
    assert not faults("outer.phases", [{"steps": 1, "unroll": {"kind": "truncated", "window": 5}}])


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_recipes_have_fields_and_values_that_there_are(page):
    for block in blocks(page, "yaml"):
        for path, value in document.load(block)[0].items():
            assert faults(path, value) == []


def said_inline(page):
    """`path: value` and `path=value` of a section's fields, in backticks."""
    for text in re.findall(r"`([^`]+)`", prose(page)):
        match = re.fullmatch(r"(\w+(?:\.[\w\[\]]+)+)(?:(?:: |=)(.+))?", " ".join(text.split()))
        if match and match[1].split(".")[0] in SECTIONS:
            yield match[1], None if match[2] is None else document.load(match[2])[0]


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_fields_that_are_named_are_there(page):
    for path, value in said_inline(page):
        reference.find(path)
        assert value is None or faults(path, value) == []


def test_every_tunable_s_example_is_read():
    page = PROJECT / "docs" / "tunables.md"
    rows = re.findall(r"^\| `(\w+: .*?)` \|", read(page), re.MULTILINE)
    examples = [document.load(row)[0] for row in rows]
    for example in examples:
        assert faults("tune", example) == []
    named = {key for example in examples for key in example}
    tunables = {entry.path.split(".")[1] for entry in reference.find("tune")[0].entries()}
    assert named == tunables


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_what_is_read_of_an_artefact_in_python_is_there(page):
    for block in blocks(page, "python"):
        for attribute in re.findall(r"\btuned\.(\w+)", block):
            assert hasattr(api.Tuned, attribute)
        for function in re.findall(r"\bapi\.(\w+)", block):
            assert function in api.__all__


def test_the_readme_s_hypergradient_is_that_of_whole_trainings(capsys):
    """Against central differences of the training, step by step, in double precision."""
    (code,) = (b for b in blocks(PROJECT / "README.md", "python") if "hypergradient(" in b)
    with jax.enable_x64(True):
        said = {}
        exec(compile(code, "README.md", "exec"), said)
        problem, eta, found, x = (said[each] for each in ("problem", "eta", "found", "x"))

        def trained(eta):
            w = jnp.zeros(4)
            for step in range(100):
                hyper = problem.hyper_at(eta, step)
                w, _ = problem.update(jax.grad(problem.loss)(w, hyper, x[step]), (), w, hyper)
            return problem.objective(w, x[-1])

        trained = jax.jit(trained)
        assert float(found.value) == pytest.approx(float(trained(eta)), rel=1e-10)
        assert found.gradient.keys() == eta.keys() == {"rate", "decay"}
        for key, gradient in found.gradient.items():
            for window in range(4):
                up, down = (
                    trained({**eta, key: eta[key].at[window].add(sign * 1e-5)}) for sign in (1, -1)
                )
                slope = float(up - down) / 2e-5
                assert float(gradient[window]) == pytest.approx(slope, rel=1e-4, abs=1e-9)
    assert "rate" in capsys.readouterr().out
    assert np.all(np.abs(found.gradient["rate"]) > 1e-4)


def test_the_pages_have_what_is_tested_of_them():
    """So that none of the tests above passes for want of examples."""
    assert sum(len(commands(page)) for page in WRITTEN) > 30
    assert sum(len(blocks(page, "yaml")) for page in WRITTEN) >= 4
    assert sum(len(list(said_inline(page))) for page in WRITTEN) > 20
    assert sum(len(blocks(page, "python")) for page in WRITTEN) >= 4
