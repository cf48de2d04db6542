"""`metatune transfer` from the command line: plan, climb, stop, go on, and what is refused."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
from recipes import tiny
from rich.console import Console
from typer.testing import CliRunner

from metatune.cli.commands import app
from metatune.fit.outer_loop import fit
from metatune.inner import prepare
from metatune.ladder import climb

METATUNE = (sys.executable, "-c", "from metatune.cli import main; main()")


def metatune(*arguments):
    return CliRunner().invoke(app, [str(word) for word in arguments])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("ladder") / "run"
    fit(prepare(tiny(outer={"steps": 1})), out, console=Console(quiet=True))
    return out


def test_a_plan_trains_nothing(run):
    done = metatune("transfer", run, "--ladder", "width=2", "steps=3", "--seeds", 2, "--plan")
    assert done.exit_code == 0, done.output
    assert (
        "rungs: proxy, width x2, steps x3; at each 13 to 20 candidates and 2 seeds" in done.output
    )
    assert "expected: about" in done.output
    assert not (run / "transfer.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--ladder", "widht=2"], "unknown axis; did you mean width?"),
        (["--rule", "mupp"], "unknown rule; did you mean mup?"),
        (["--seeds", "1"], "greater than or equal to 2"),
        (["--baselines", "topp"], "--baselines = 'topp': unknown choice; did you mean top?"),
        (["--retune", "all x3"], "did you mean all x2?"),
        (["--at", "big"], "--at MODEL_DIR and --steps N go together"),
        (["--steps", "10"], "--at MODEL_DIR and --steps N go together"),
    ],
)
def test_a_slip_is_told(run, words, said):
    done = metatune("transfer", run, *words)
    assert done.exit_code == 2
    assert said in done.output


def big_model(run, tmp_path):
    """A folder with the config of the tuned model."""
    tuned = json.loads((run / "artefact" / "tuned.json").read_text())["provenance"]
    model = tmp_path / "model"
    model.mkdir()
    config = tuned["model_config"] | {"vocab_size": tuned["vocab_size"]}
    (model / "config.json").write_text(json.dumps(config))
    return model


def words_of(run):
    return ["transfer", str(run), "--ladder", "steps=2", "--seeds", "2"]


# By a signal to a process; a fit is killed, and a training stopped, at each push.
@pytest.mark.thorough
def test_what_is_stopped_keeps_what_was_trained(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    record, deadline = copy / "transfer.jsonl", time.monotonic() + 120
    record.unlink(missing_ok=True)
    process = subprocess.Popen(
        [*METATUNE, *words_of(copy)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not record.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 143
    assert f"go on with\n  metatune transfer {copy} --ladder steps=2 --seeds 2" in told
    before = record.read_text()
    assert metatune(*words_of(copy)).exit_code == 0
    assert record.read_text().startswith(before)


def test_what_is_stopped_says_how_to_go_on_and_does(run, tmp_path, monkeypatch):
    words, record = words_of(run), run / "transfer.jsonl"
    measured = climb.held_out_loss
    calls = iter(range(1000))

    def stopped(*given, **options):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return measured(*given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(climb, "held_out_loss", stopped)
        done = metatune(*words)
    assert done.exit_code == 130
    assert "interrupted; what was trained is kept; go on with\n" in done.stderr
    assert f"metatune transfer {run} --ladder steps=2 --seeds 2" in done.stderr
    before = record.read_text()
    assert before
    done = metatune(*words, "--json")
    assert done.exit_code == 0, done.output
    assert record.read_text().startswith(before)
    document = json.loads(done.stdout)
    assert [rung["name"] for rung in document["rungs"]] == ["proxy", "steps x2"]
    shown = metatune("show", run)
    assert document["verdict"] in " ".join(shown.output.replace("│", " ").split())
    assert metatune("report", run).exit_code == 0
    assert '"transfer-gains"' in (run / "report.html").read_text(encoding="utf-8")
    model = big_model(run, tmp_path)
    done = metatune("transfer", run, "--at", model, "--steps", 100)
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"at {model}, 100 steps (")
    assert "a gain of" in done.output
    shown = metatune("show", run)
    assert done.output.strip()[:60] in " ".join(shown.output.replace("│", " ").split())


def test_an_export_counts_the_tokens_of_the_training_to_come(run, tmp_path):
    """Of so many steps, as many in each as the proxy has, where nothing else is said."""
    model = big_model(run, tmp_path)
    steps = json.loads((run / "artefact" / "tuned.json").read_text())["horizon"]["steps"]

    def warned(count):
        done = metatune(
            *("export", run, "--to", "json", "--against", model, "--steps", count),
            *("--out", tmp_path / f"out{count}"),
        )
        assert done.exit_code == 0, done.output
        told = ("whether the gain carries over", "times the compute of the largest rung")
        return any(words in done.stderr for words in told)

    assert not warned(2 * steps)
    assert warned(20 * steps)
