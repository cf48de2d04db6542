"""Trainings that a command does: what it is given, what its losses come to, and that it ends."""

import dataclasses
import io
import json
import os
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from recipes import CODE, tiny
from rich.console import Console

from metatune import artefact
from metatune.fit import outer_loop
from metatune.fit.outer_loop import fit
from metatune.fit.run_folder import RunFolder
from metatune.fit.searching import hypergradients as hypergradients_of
from metatune.fit.searching.points import taken
from metatune.fit.trainers import external
from metatune.fit.trainers.commands import Given, run_all
from metatune.fit.trainers.external import CommandFailed
from metatune.fit.trainers.failure import NotFinite
from metatune.hypergrad.forward.directions import draw
from metatune.inner import prepare
from metatune.inner.seeds import direction_key
from metatune.recipe import reading, schema, writing
from metatune.recipe.faults import RecipeError

TARGET = (0.3, -0.2)
TRAIN = f"""
import json, math, os, sys
given = json.load(sys.stdin)
assert given["steps"] == 6 and 0 <= given["seed"] < 2**32
with open(os.environ["METATUNE_TUNED"]) as file:
    tuned = json.load(file)
assert {{**tuned, "seed": given["seed"], "steps": 6}} == given
(factors,) = given["learning_rates"]["multipliers"]["groups"].values()
loss = sum((math.log(m) - target) ** 2 for m, target in zip(factors, {TARGET}))
print("some text first", flush=True)
print("and of warnings a few", file=sys.stderr)
"""
TRUE_LOSS = 'print(loss + given["seed"] % 7)'


@pytest.fixture
def recipe(tmp_path):
    """A recipe whose command runs `TRAIN`, then what is given."""

    def recipe(last=TRUE_LOSS, outer=(), **changes):
        script = tmp_path / "train.py"
        script.write_text(TRAIN + last)
        options = {"directions": 2, "distribution": "orthogonal", "step": 0.1, **changes}
        of_trainer = {key: options.pop(key) for key in ("timeout_seconds",) if key in options}
        trainer = schema.TrainerSpec((sys.executable, "-S", str(script)), **of_trainer)
        sections = {
            "steps": 2,
            "estimator": schema.ZerothOrderSpec(**options),
            "validation": schema.ValidationSpec(seeds=1),
            "test": schema.FinalTestSpec(seeds=2),
            **dict(outer),
        }
        return tiny(
            data={"domains": {"code": CODE}},
            tune=schema.TuneSpec(schema.LearningRatesSpec(per="global", windows=2)),
            outer=schema.OuterSpec(**sections),
            trainer=trainer,
        )

    return recipe


@pytest.fixture
def nowhere():
    with open(os.devnull, "w") as file:
        yield Console(file=file)


def commands(folder: RunFolder):
    return [line["what"] for line in folder.read_commands()]


def test_a_run_by_a_command_alone(recipe, tmp_path, nowhere, monkeypatch):
    """All orthogonal directions of a quadratic: the exact gradient, by hand."""
    for module, name in ((hypergradients_of, "hypergradient"), (outer_loop, "held_out_loss")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("trained here"))
    wanted = recipe(outer={"optimizer": schema.AdamSpec(learning_rate=0.1), "clip_norm": None})
    done = fit(prepare(wanted), tmp_path / "run", console=nowhere)
    first, second, last = done.folder.read_metrics()
    assert last["held_out"] < second["held_out"]
    assert first["hypergradient_norm"]["learning_rates"] == pytest.approx(
        2 * np.linalg.norm(TARGET), rel=1e-4
    )
    assert first["inner_loss"] is None
    assert (first["lost_directions"], first["diverged_sides"]) == (0, 0)
    # Adam's first step has the size of its rate, towards the target.
    moved = np.array([0.1, -0.1])
    assert first["held_out"] - second["held_out"] == pytest.approx(
        np.sum(np.square(TARGET)) - np.sum(np.square(TARGET - moved)), rel=1e-4
    )
    result = done.artefact.result
    assert result["unit"] == "of the command's loss"
    assert result["standard_error"] == pytest.approx(0, abs=1e-6)  # pairs share their seeds
    multipliers = done.artefact.learning_rates.multipliers
    assert multipliers is not None
    best = np.log(list(multipliers.groups.values()))
    distance = np.sum(np.square(TARGET - best)) - np.sum(np.square(TARGET))
    assert result["difference"] == pytest.approx(distance, abs=1e-5)
    assert result["best_outer_step"] == 2
    assert commands(done.folder)[:5] == [
        *(f"point 0, direction {at} {sign}" for at in (1, 2) for sign in "+-"),
        "validation seed 1",
    ]
    assert not done.folder.scratch.exists()


def test_standard_errors_are_those_of_the_directions(recipe, tmp_path, nowhere, monkeypatch):
    """Those of three samples (dF·v) v, whose derivatives are known by hand."""
    found = []
    estimate = external.ExternalTrainer.estimate
    monkeypatch.setattr(
        external.ExternalTrainer,
        "estimate",
        lambda self, *given: found.append(estimate(self, *given)) or found[-1],
    )
    wanted = recipe(outer={"steps": 1}, distribution="gaussian", directions=3)
    training = prepare(wanted)
    fit(training, tmp_path / "run", console=nowhere)
    (only,) = found
    drawn = np.asarray(draw(direction_key(0, 0), training.initial_eta(), 3, "gaussian"))
    samples = (drawn @ (-2 * np.array(TARGET)))[:, None] * drawn
    for told, true in (
        (only.gradient, samples.mean(axis=0)),
        (only.diagnostics.standard_errors, samples.std(axis=0, ddof=1) / 3**0.5),
    ):
        np.testing.assert_allclose(told["learning_rates"][:, 0], true, rtol=1e-4)


COUNT = """
with open(sys.argv[0] + ".runs", "a+") as file:
    file.write("x")
    file.flush()
    run = file.tell() - 1
"""


def fails_at(*runs):
    """The end of a script that fails in some of its runs, counted from 0."""
    return COUNT + f"if run in {runs}: sys.exit('out of memory')\n" + TRUE_LOSS


def test_a_command_that_fails_is_run_once_more(recipe, tmp_path, nowhere):
    done = fit(prepare(recipe(fails_at(1))), tmp_path / "run", console=nowhere)
    log = done.folder.read_commands()
    failed = [line for line in log if line["problem"]]
    assert [line["problem"] for line in failed] == ["ended with status 1"]
    assert failed[0]["stderr"].endswith("and of warnings a few\nout of memory")
    again = [line for line in log if line["key"] == failed[0]["key"]]
    assert [line["attempt"] for line in again] == [1, 2]
    assert [line["lost_directions"] for line in taken(done.folder.read_metrics())] == [0, 0]


def test_an_outer_step_goes_on_with_half_of_its_pairs(recipe, tmp_path, nowhere):
    """Of four runs the second fails, and again as the fifth."""
    wanted = recipe(fails_at(1, 4), outer={"steps": 1, "clip_norm": None})
    done = fit(prepare(wanted), tmp_path / "run", console=nowhere)
    (line,) = taken(done.folder.read_metrics())
    assert line["lost_directions"] == 1
    assert 0 < line["hypergradient_norm"]["learning_rates"] < np.inf


def test_a_side_that_diverges_is_turned_away_from_and_told_of(recipe, tmp_path):
    """By hand: the four sides of a basis in two dimensions, of which one has no finite loss."""
    wanted = recipe(
        COUNT + "print('inf' if run == 1 else loss)", outer={"steps": 1, "clip_norm": None}
    )
    training, said = prepare(wanted), io.StringIO()
    done = fit(training, tmp_path / "run", console=Console(file=said, width=1000))
    (line,) = taken(done.folder.read_metrics())
    assert (line["lost_directions"], line["diverged_sides"]) == (0, 1)
    directions = np.asarray(draw(direction_key(0, 0), training.initial_eta(), 2, "orthogonal"))
    sides = np.stack([0.1 * directions, -0.1 * directions], axis=1)
    losses = np.sum((sides - TARGET) ** 2, axis=-1)
    finite = losses.ravel()[[0, 2, 3]]
    losses[0, 1] = 2 * finite.max() - finite.min()
    derivatives = (losses[:, 0] - losses[:, 1]) / 0.2
    norm = np.linalg.norm(np.mean(derivatives[:, None] * directions, axis=0))
    assert line["hypergradient_norm"]["learning_rates"] == pytest.approx(norm, rel=1e-4)
    assert line["objective"] == pytest.approx(finite.mean(), rel=1e-5)
    assert "point 0: 1 of the trainings on either side of the meta-parameters diverged" in (
        said.getvalue()
    )


def test_a_pair_that_diverged_is_left_out_and_all_of_them_end_the_run(recipe, tmp_path, nowhere):
    one = recipe(COUNT + "print('nan' if run in (0, 1) else loss)", outer={"steps": 1})
    done = fit(prepare(one), tmp_path / "one", console=nowhere)
    (line,) = taken(done.folder.read_metrics())
    assert (line["lost_directions"], line["diverged_sides"]) == (1, 2)
    with pytest.raises(NotFinite, match="point 0: of all 2 pairs .* both diverged; lower outer"):
        fit(prepare(recipe("print('nan')")), tmp_path / "all", console=nowhere)


def test_with_less_than_half_it_stops_and_goes_on_where_it_was(recipe, tmp_path, nowhere):
    whole = fit(prepare(recipe()), tmp_path / "whole", console=nowhere)
    # Point 0 takes five runs, the validation of point 1 one; then both pairs fail twice.
    with pytest.raises(CommandFailed, match="point 1: 2 of 2 pairs .*commands.jsonl") as stop:
        fit(prepare(recipe(fails_at(6, 8, 10, 11))), tmp_path / "run", console=nowhere)
    assert str(stop.value).endswith("out of memory")
    assert artefact.load(tmp_path / "run").result["status"] == "unfinished"
    before = len(RunFolder(tmp_path / "run").read_commands())
    resumed = fit(prepare(recipe()), tmp_path / "run", resume=True, console=nowhere)
    assert resumed.artefact.result == whole.artefact.result
    log = resumed.folder.read_commands()
    found = [line["key"] for line in log if line["loss"] is not None]
    assert len(log) > before and len(found) == len(set(found))  # no training is done twice


def test_a_training_that_diverges_is_never_the_best(recipe, tmp_path, nowhere):
    """The runs of an outer step are two pairs and a judgement."""
    first = recipe(COUNT + "print('nan' if run == 4 else loss)")
    with pytest.raises(NotFinite, match="validation training 0: the command printed nan"):
        fit(prepare(first), tmp_path / "first", console=nowhere)
    (tmp_path / "train.py.runs").unlink()
    later = recipe(COUNT + "print('inf' if run in (5, 10) else loss)")
    done = fit(prepare(later), tmp_path / "later", console=nowhere)
    assert done.artefact.result["best_outer_step"] == 0


@pytest.mark.parametrize(
    ("last", "changes", "problem"),
    [
        ("print('no number')", {}, "must print a number on its last line, but printed 'no number'"),
        ("os.kill(os.getpid(), 9)", {}, "was ended by signal 9"),
        ("import time; time.sleep(60)", {"timeout_seconds": 0.2}, "didn't end within 0.2 s"),
    ],
)
def test_what_went_wrong_is_said(recipe, tmp_path, nowhere, last, changes, problem):
    wanted = recipe(last, directions=1, **changes)
    with pytest.raises(CommandFailed, match=problem):
        fit(prepare(wanted), tmp_path / "run", console=nowhere)
    log = RunFolder(tmp_path / "run").read_commands()
    assert [line["problem"] for line in log] == [problem] * 4


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_when_stopped_nothing_that_was_started_lives_on(tmp_path):
    """A command, and a process that it started; the other command ends, and then Ctrl-C comes."""
    script = (
        "import os, subprocess, sys, time\n"
        "if sys.stdin.read() == 'short': time.sleep(0.3); print(1.0); sys.exit()\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(tmp_path / 'pids')!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(60)\n"
    )

    def stop(index, result):
        assert (index, result.loss) == (1, 1.0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all(
            [sys.executable, "-S", "-c", script],
            [Given("long", ""), Given("short", "")],
            tmp_path,
            stop,
            parallel=2,
            timeout_seconds=None,
        )
    pids = (tmp_path / "pids").read_text().split()
    deadline = time.monotonic() + 5
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(alive, pids))


MEET = "open(name, 'w').close()\nwhile len(os.listdir('.')) < 2 * 2: time.sleep(0.01)\n"
ALONE = "open('lock', 'x').close(); time.sleep(0.1); os.remove('lock')\n"


@pytest.mark.parametrize(("script", "parallel"), [(MEET, 2), (ALONE, 1)])
def test_commands_run_so_many_at_a_time(tmp_path, script, parallel):
    """Two wait for each other, beside their two folders; or each finds that it is alone."""
    script = f"import os, sys, time\nos.chdir({str(tmp_path)!r})\nname = sys.stdin.read()\n{script}"
    found = {}
    run_all(
        [sys.executable, "-S", "-c", script + "print(1)"],
        [Given("a.here", ""), Given("b.here", "")],
        tmp_path,
        lambda index, result: found.update({index: result.loss}),
        parallel=parallel,
        timeout_seconds=20,
    )
    assert found == {0: 1.0, 1: 1.0}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"command": "train 'it"}, 'trainer.command = "train \'it": must be a program'),
        ({"command": []}, "trainer.command = (): must be a program and its arguments"),
        ({"command": None}, "trainer.command = None: must be text or a list"),
        ({}, "trainer.command: missing; write a program and its arguments"),
        ({"command": "true", "parallel": 0}, "trainer.parallel = 0: must be a whole number of"),
        ({"command": "true", "timeout_seconds": 0}, "trainer.timeout_seconds = 0.0: must"),
    ],
)
def test_bad_trainers_are_refused(recipe, changes, fault):
    tree = writing.to_tree(recipe())
    tree["trainer"] = changes
    with pytest.raises(RecipeError) as refused:
        reading.parse(tree, "recipe")
    assert fault in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"unroll": {"kind": "truncated", "window": 2}}, "outer.unroll.kind = 'truncated': an ext"),
        ({"fresh": {"data": False}}, "has one seed, for initialisation and data; make both true"),
        (
            {"validation": {"sequences": 8}},
            "outer.validation.sequences = 8: has no effect on an external",
        ),
        ({"objective": {"measure": "accuracy"}}, "outer.objective.measure = 'accuracy': has no ef"),
        (
            {"estimator": {"kind": "zeroth_order", "segment": 4}},
            "outer.estimator.segment = 4: has no effect on an external trainer, which trains and",
        ),
        (
            {"estimator": {"kind": "mixflow"}},
            "outer.estimator.kind = 'mixflow': the loss of a trainer elsewhere has no derivative",
        ),
    ],
)
def test_what_would_have_no_effect_is_refused(recipe, changes, fault):
    tree = writing.to_tree(recipe())
    tree["outer"].update(changes)
    with pytest.raises(RecipeError) as refused:
        reading.parse(tree, "recipe")
    assert fault in str(refused.value)


def test_the_example_of_the_documentation_runs(recipe, tmp_path, nowhere):
    page = (Path(__file__).parents[2] / "docs" / "external.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (script,) = (block for block in blocks if "json.load(sys.stdin)" in block)
    wanted = recipe(outer={"optimizer": schema.AdamSpec(learning_rate=0.5)})
    (tmp_path / "train.py").write_text(script)
    result = fit(prepare(wanted), tmp_path / "run", console=nowhere).artefact.result
    assert result["difference"] < 0


def test_phases_share_the_command(recipe, tmp_path, nowhere):
    wanted = recipe(outer={"steps": None})
    one = wanted.outer.estimator
    phases = (
        schema.PhaseSpec(1),
        schema.PhaseSpec(1, dataclasses.replace(one, directions=1, step=0.2)),
    )
    outer = dataclasses.replace(wanted.outer, phases=phases)
    done = fit(prepare(dataclasses.replace(wanted, outer=outer)), tmp_path / "run", console=nowhere)
    of_second = [what for what in commands(done.folder) if "point 1" in what]
    assert of_second == ["point 1, direction 1 +", "point 1, direction 1 -"]
    other = dataclasses.replace(outer, phases=(*phases, schema.PhaseSpec(1, schema.MixFlowSpec())))
    tree = writing.to_tree(dataclasses.replace(wanted, outer=other))
    with pytest.raises(RecipeError, match=r"phases\[2\].estimator.kind = 'mixflow': the loss of a"):
        reading.parse(tree, "recipe")


def test_a_program_that_is_not_there_is_refused_before_anything_runs(recipe):
    wanted = dataclasses.replace(recipe(), trainer=schema.TrainerSpec("no-such-program --now"))
    with pytest.raises(RecipeError, match="no program no-such-program can be run here; write its"):
        prepare(wanted)


def test_text_is_split_without_a_shell(recipe, tmp_path, nowhere):
    wanted = recipe(outer={"steps": 1})
    command = " ".join(map(str, wanted.trainer.command)) + " '$HOME; exit 1'"
    wanted = dataclasses.replace(wanted, trainer=schema.TrainerSpec(command))
    assert not fit(prepare(wanted), tmp_path / "run", console=nowhere).interrupted


def test_json_is_what_a_command_reads(recipe):
    """Written out and read again, the recipe is the same."""
    wanted = recipe()
    assert reading.parse(json.loads(json.dumps(writing.to_tree(wanted))), "recipe") == wanted
