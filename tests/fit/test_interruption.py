"""An interrupted search says what is kept, and the very command that goes on."""

import shlex

import pytest
from typer.testing import CliRunner

from metatune import artefact, inner, plan
from metatune.cli.commands import app
from metatune.fit import outer_loop
from metatune.fit.run_folder import RunFolder
from metatune.fit.searching import hypergradients as hypergradients_of

SMALL = (
    "model.config={model_type: llama, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1,"
    " num_attention_heads: 2, initializer_range: 0.2}",
    "data.batch_size=4",
    "data.sequence_length=16",
    "inner.steps=6",
    "outer.steps=2",
    "outer.objective={sequences: 8, micro_batch: 8}",
    "outer.validation={seeds: 1, sequences: 8}",
    "outer.test={seeds: 1, sequences: 8}",
)


def fit(out, *options):
    """The exit code, and what was said of an interruption, of `metatune fit`."""
    arguments = ["fit", "quickstart", *SMALL, "--out", str(out), *options]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code in (0, 130), done.output
    return done.exit_code, done.stderr


def command(out, *options):
    return shlex.join(["metatune", "fit", "quickstart", *SMALL, "--out", str(out), *options])


def stop(*_, **__):
    raise KeyboardInterrupt


def stops_at(number, function):
    """A function that is interrupted when it is called for the `number`-th time, from 0."""
    calls = iter(range(1000))

    def counted(*args, **options):
        return stop() if next(calls) == number else function(*args, **options)

    return counted


@pytest.fixture
def out(tmp_path):
    return tmp_path / "a run; with spaces"


@pytest.fixture(autouse=True)
def unpredicted(monkeypatch):
    """Nothing is timed beforehand, which compiles programs that no test here needs."""

    def unknown(*_, **__):
        raise plan.NotPredicted("not predicted")

    monkeypatch.setattr(plan, "expected", unknown)


def test_while_the_data_is_read_nothing_is_begun(out, monkeypatch):
    monkeypatch.setattr(inner, "prepare_file", stop)
    told = "interrupted (reading the data): nothing is begun yet; begin again with"
    assert fit(out) == (130, f"{told}\n  {command(out)}\n")
    assert not out.exists()


def test_the_command_is_one_that_a_shell_reads_back(out):
    assert shlex.split(command(out)) == ["metatune", "fit", "quickstart", *SMALL, "--out", str(out)]


def test_at_each_stage_what_is_kept_is_said_and_the_command_goes_on(out, monkeypatch):
    """One run, interrupted once in every stage, and finished in the end."""
    go_on = f"; go on with\n  {command(out, '--resume')}\n"
    held = f"in {out / 'artefact'}"

    def interrupted(module, name, at, *options):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, stops_at(at, getattr(module, name)))
            return fit(out, *options)

    code, told = interrupted(outer_loop, "SearchLoop", 0)
    assert (code, told) == (
        130,
        f"interrupted (opening the run): 0 outer steps kept in {out}{go_on}",
    )
    code, told = interrupted(hypergradients_of, "hypergradient", 0, "--resume")
    assert told.startswith("interrupted (compiling the hypergradient): 0 outer steps kept in ")
    assert told.endswith(go_on)
    code, told = interrupted(outer_loop, "held_out_loss", 1, "--resume")
    assert told == (
        f"interrupted (validation 1): 1 outer step kept in {out}, and the best so far, point 0 of "
        f"1, {held}{go_on}"
    )
    code, told = interrupted(outer_loop, "measure", 0, "--resume")
    result_of = artefact.load(out).result
    assert told.endswith(
        f": the search is over, its 2 outer steps are kept, and the best so far, point "
        f"{result_of['best_outer_step']} of 2, {held}, but its result isn't measured{go_on}"
    )
    assert code == 130 and result_of["status"] == "unfinished"
    assert fit(out, "--resume") == (0, "")


def test_a_result_that_is_written_stays(out, monkeypatch):
    monkeypatch.setattr(outer_loop.Tracker, "finish", stop)
    code, told = fit(out)
    show = shlex.join(["metatune", "show", str(out)])
    said = "interrupted (writing the artefact): the run is complete all the same; see it with"
    assert (code, told) == (130, f"{said}\n  {show}\n")
    assert artefact.load(out).result["status"] == "complete"


def test_a_run_that_was_to_be_deleted_is_still_there(out, monkeypatch):
    fit(out)
    before = RunFolder(out).recipe.stat()
    monkeypatch.setattr(inner, "prepare_file", stop)
    assert fit(out, "--overwrite")[1] == (
        "interrupted (reading the data): nothing is begun yet; begin again with\n"
        f"  {command(out, '--overwrite')}\n"
    )
    assert RunFolder(out).recipe.stat() == before
    assert fit(out, "--resume")[1].startswith(
        "interrupted (reading the data): the run is complete all the same"
    )
