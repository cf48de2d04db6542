"""The command line, as a user types it."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cells import cells
from safetensors.numpy import save_file
from typer.testing import CliRunner

from metatune import artefact, check
from metatune.artefact.exporters import EXPORTERS
from metatune.cli.commands import app
from metatune.fit import outer_loop
from metatune.fit.comparing.shapes import shapes_of_artefact
from metatune.fit.trainers.failure import NotFinite
from metatune.hypergrad import CheckpointError
from metatune.recipe import file_errors, shipped

SMALL = [
    "model.config.hidden_size=8",
    "model.config.intermediate_size=16",
    "model.config.num_hidden_layers=1",
    "model.config.num_attention_heads=2",
    "data.batch_size=4",
    "data.sequence_length=16",
    "inner.steps=6",
    "outer.estimator={kind: auto}",
    "outer.steps=2",
    "outer.objective.sequences=8",
    "outer.validation={seeds: 1, sequences: 8}",
    "outer.test={seeds: 2, sequences: 8}",
]


def metatune(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, and what `fit` printed."""
    out = tmp_path_factory.mktemp("cli") / "run"
    done = metatune("fit", "quickstart", *SMALL, "--out", out)
    assert done.exit_code == 0, done.output
    return out, done.output


def test_fit_tells_how_it_went_and_what_to_do_next(run):
    out, output = run
    assert "estimator mixflow, because it is exact, and the fastest that fits" in output
    assert "point 0/2" in output
    assert "test seed 2/2" in output
    assert f"metatune export {out}" in output
    assert (out / "artefact" / "tuned.json").exists()


def test_a_run_is_not_overwritten_unasked(run):
    out, _ = run
    before = (out / "artefact" / "tuned.json").read_bytes()
    again = metatune("fit", "quickstart", *SMALL, "--out", out)
    assert again.exit_code == 2
    assert "estimator mixflow" not in again.output
    assert (
        "holds a run already; --resume to go on with it, --overwrite to delete it" in again.output
    )
    assert (out / "artefact" / "tuned.json").read_bytes() == before


def test_a_finished_run_may_lie_where_nothing_can_be_written(run, monkeypatch):
    out, _ = run
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    monkeypatch.setattr(file_errors.os, "access", lambda _, mode, **__: mode != os.W_OK)
    again = metatune("fit", "quickstart", *SMALL, "--out", out, "--resume")
    assert again.exit_code == 0, again.output
    assert "this run is finished; nothing is left to do" in again.output.replace("\n", " ")
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_the_resolved_recipe_is_a_recipe(run):
    out, _ = run
    checked = metatune("validate", out / "recipe.yaml")
    assert checked.exit_code == 0, checked.output
    assert "valid; tokens: code" in checked.output
    resumed = metatune("fit", out / "recipe.yaml", "--out", out, "--resume")
    assert resumed.exit_code == 0, resumed.output


def test_what_was_chosen_when_a_run_began_stays(run, monkeypatch):
    out, _ = run
    assert "kind: mixflow" in (out / "recipe.yaml").read_text()
    monkeypatch.setattr("metatune.plan.choice.candidates", lambda *_: pytest.fail("chosen again"))
    resumed = metatune("fit", "quickstart", *SMALL, "--out", out, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert "estimator mixflow, as when the run began" in resumed.output


def test_show_prints_result_and_schedules(run):
    out, _ = run
    shown = metatune("show", out)
    assert shown.exit_code == 0, shown.output
    result = json.loads((out / "artefact" / "tuned.json").read_text())["result"]
    assert f"{result['objective_after']:.4f}" in shown.output
    assert "mixture" in shown.output
    assert metatune("show", out / "artefact").exit_code == 0


def test_a_certificate_is_printed_and_written(tmp_path):
    file = tmp_path / "certificates" / "quickstart.json"
    few = ("--seeds", 2, "--directions", 1)
    done = metatune("check", "quickstart", *SMALL, *few, "--steps", 6, "--json", "--out", file)
    document = json.loads(done.stdout)
    assert done.exit_code == (1 if document["verdict"] == "red" else 0), done.output
    assert json.loads(file.read_text()) == document
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]
    assert document["format"] == "metatune-certificate"
    assert document["version"] == 1
    assert document["steps"] == document["recipe_steps"] == 6
    assert document["meta_parameters"] == 5 * 12 + 5 * 3
    assert set(document["checks"]) == {
        "training",
        "differences",
        "agreement",
        "signal",
        "metasmoothness",
        "horizons",
        "growth",
        "linearity",
    }
    for its in document["checks"].values():
        assert its["level"] in ("green", "amber", "red")
        assert isinstance(its["causes"], list)
    assert document["checks"]["training"]["level"] != "red"
    assert document["checks"]["differences"]["relative_error"] < 0.25
    assert document["checks"]["agreement"]["relative_error"] < 1e-3
    assert set(document["checks"]["signal"]["tunables"]) == {"learning_rates", "mixture"}
    assert len(document["checks"]["signal"]["tunables"]["mixture"]["windows"]) == 5
    assert "as long as 24 trainings" in done.stderr


def test_a_certificate_lies_beside_the_result_of_its_run(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run[0], copy)
    tuned = json.loads((copy / "artefact" / "tuned.json").read_text())
    few = ("--seeds", 2, "--directions", 1)
    done = metatune("check", copy / "recipe.yaml", *few, "--run", copy)
    assert done.exit_code in (0, 1), done.output
    document = json.loads((copy / "artefact" / "certificate.json").read_text())
    verdict = f"gradient certificate: {document['verdict']}"
    assert verdict in done.output
    assert verdict in metatune("show", copy).output
    assert metatune("report", copy).exit_code == 0
    assert '"certificate-directions"' in (copy / "report.html").read_text(encoding="utf-8")
    readme = (copy / "artefact" / "README.md").read_text()
    assert f"`certificate.json`: **{document['verdict']}**" in readme
    assert "| metasmoothness |" in readme
    certified = json.loads((copy / "artefact" / "tuned.json").read_text())
    assert "certificate.json" in certified.pop("integrity")["files"]
    assert tuned.pop("integrity")["files"].keys() >= {"README.md", "recipe.yaml", "replay.json"}
    assert certified == tuned
    resumed = metatune("fit", copy / "recipe.yaml", "--out", copy, "--resume")
    assert verdict in resumed.output


@pytest.mark.parametrize(("verdict", "code"), [("green", 0), ("amber", 0), ("red", 1)])
def test_a_red_certificate_has_an_exit_code_of_its_own(monkeypatch, tmp_path, verdict, code):
    document = {"verdict": verdict, "causes": []}
    monkeypatch.setattr(check, "check", lambda *_, **__: document)
    done = metatune("check", "quickstart", *SMALL, "--json", "--out", tmp_path)
    assert (done.exit_code, json.loads(done.stdout)) == (code, document)
    assert json.loads((tmp_path / "certificate.json").read_text()) == document


def test_an_interrupted_check_has_the_exit_code_of_shells(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(check, "check", interrupted)
    done = metatune("check", "quickstart", *SMALL)
    assert (done.exit_code, done.stderr) == (130, "interrupted\n")


def test_a_full_disk_that_nobody_names_is_no_other_one(monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(check, "check", full)
    done = metatune("check", "quickstart", *SMALL)
    assert done.exit_code == 1
    assert done.stderr.startswith("error: a disk is full, of one of those that are written to (the")


def test_a_full_disk_where_states_wait_is_one_whoever_met_it(monkeypatch):
    def full(*_, **__):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise CheckpointError("states-x: needs 9 bytes; 4 bytes are free; make room") from error

    monkeypatch.setattr(check, "check", full)
    done = metatune("check", "quickstart", *SMALL)
    assert (done.exit_code, done.stderr) == (
        1,
        "error: states-x: needs 9 bytes; 4 bytes are free; make room; then go on with the same "
        "command, with --resume if it had begun: what was kept before is whole\n",
    )


SIGNALLED = """
import os, sys, threading, time
from metatune.cli import main
def hook(event, arguments):
    if event == "import" and arguments[0] == {module!r}:
        threading.Thread(target=time.sleep, args=[60]).start()  # as one that compiles
        os.kill(os.getpid(), {number})
sys.addaudithook(hook)
main(["plan", "quickstart"])
"""


SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
IMPORTS = "typer", "metatune.plan", "jaxlib.xla_client", "jax.numpy"


HEARD = {f"{n.name}, {module}": (n, module) for n in SIGNALS for module in IMPORTS}
TELLING = {
    "SIGINT, typer",
    "SIGTERM, metatune.plan",
    "SIGHUP, jaxlib.xla_client",
    "SIGINT, jax.numpy",
}
"""Each signal and each import once."""


@pytest.mark.parametrize(("number", "module"), cells(HEARD, HEARD.keys() - TELLING))
def test_a_signal_while_a_command_is_importing_is_answered_in_a_line(number, module):
    program = SIGNALLED.format(module=module, number=int(number))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50
    )
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", "interrupted\n")


def test_a_certificate_of_another_recipe_or_horizon_is_refused(run, tmp_path):
    out, _ = run
    other = metatune("check", "quickstart", *SMALL, "seed=1", "--run", out)
    assert other.exit_code == 2
    assert "give the recipe.yaml of the run folder, and no changes to it" in other.output
    assert not (out / "artefact" / "certificate.json").exists()
    long = metatune("check", "quickstart", *SMALL, "--steps", 7, "--out", tmp_path / "c.json")
    assert long.exit_code == 2
    assert "--steps = 7: must be from 5, a step for each window, to inner.steps, 6" in long.output
    assert not (tmp_path / "c.json").exists()


@pytest.mark.parametrize("target", EXPORTERS)
def test_every_export_is_written_once(run, tmp_path, target):
    out, _ = run
    arguments = ("export", out, "--to", target, "--out", tmp_path / "tuned")
    arguments += ("--lossy", "--sequences-per-step", 2048)
    first = metatune(*arguments)
    assert first.exit_code == 0, first.output
    assert (tmp_path / "tuned" / "tuned.json").exists()
    second = metatune(*arguments)
    assert second.exit_code == 2
    third = metatune(*arguments, "--overwrite")
    assert third.exit_code == 0, third.output


def test_what_a_target_can_not_express_is_refused_or_dropped(run, tmp_path):
    out, _ = run
    arguments = ("export", out, "--to", "llama-factory", "--out", tmp_path / "tuned")
    refused = metatune(*arguments)
    assert refused.exit_code == 2
    for what in ("rates", "curves", "moving_mixture"):
        assert f"{what} = 'llama-factory': llama-factory can't express it" in refused.output
    # Arguments of the function are options here.
    assert "go on without it (--lossy), or choose another target (metatune export --list)" in (
        " ".join(refused.output.split())
    )
    assert not (tmp_path / "tuned").exists()
    lossy = metatune(*arguments, "--lossy")
    assert lossy.exit_code == 0
    assert "dropped: shares that change at" in lossy.output


def test_the_horizon_of_an_export(run, tmp_path):
    out, _ = run
    arguments = ("export", out, "--to", "torch", "--out", tmp_path / "tuned")
    far = metatune(*arguments, "--steps", 1000, "--warmup", "steps")
    assert far.exit_code == 0, far.output
    assert "warning: 167 times the updates" in far.output
    assert "exported for 1,000 updates" in (tmp_path / "tuned" / "README.md").read_text()
    wrong = metatune(*arguments, "--overwrite", "--warmup", "step", "--steps", 12)
    assert wrong.exit_code == 2
    assert "--warmup = 'step': unknown rule; did you mean steps?" in wrong.output


def test_an_export_says_that_its_search_isn_t_finished(run, tmp_path):
    out, _ = run
    tuned = artefact.load(out)
    unmeasured = replace(tuned, result={**tuned.result, "status": "unfinished"})
    artefact.write(tmp_path / "so", unmeasured, "")
    told = metatune("export", tmp_path / "so", "--to", "json", "--out", tmp_path / "out")
    assert told.exit_code == 0, told.output
    assert f"warning: {artefact.UNFINISHED}" in told.output


def test_targets_are_listed():
    listed = metatune("export", "--list")
    assert listed.exit_code == 0, listed.output
    for target in EXPORTERS:
        assert target in listed.output
    assert metatune("export").exit_code == 2


def test_show_against_the_recipe_and_another(run):
    out, _ = run
    same = metatune("show", out, "--against", out / "recipe.yaml")
    assert same.exit_code == 0, same.output
    assert "matches the artefact" in same.output
    other = metatune("show", out, "--against", "quickstart")
    assert other.exit_code == 1, other.output
    assert "parameters of quickstart that the artefact doesn't have:" in other.output
    assert "(nearest: model.layers.0." in other.output


def test_show_names_what_it_was_made_from(run):
    out, _ = run
    shown = " ".join(metatune("show", out).output.split())
    for said in ("recipe ", "tokenizer ", "data code ", "model config ", "packages ", "machine "):
        assert said in shown


def test_rates_are_carried_to_a_wider_and_a_deeper_model(run, tmp_path):
    out, _ = run
    config = json.loads((out / "artefact" / "tuned.json").read_text())["provenance"]["model_config"]
    wide = {**config, "hidden_size": 16, "intermediate_size": 32, "vocab_size": 300}
    (tmp_path / "config.json").write_text(json.dumps(wide))
    arguments = ("export", out, "--to", "torch", "--out", tmp_path / "tuned")
    done = metatune(*arguments, "--against", tmp_path, "--rule", "mup")
    assert done.exit_code == 0, done.output
    assert "note: **fitted**, not tuned: the rates were carried from the tuned" in done.stderr
    before = json.loads((out / "artefact" / "tuned.json").read_text())["learning_rates"]
    after = json.loads((tmp_path / "tuned" / "tuned.json").read_text())["learning_rates"]
    for name, factor in (("lm_head.weight", 0.5), ("model.norm.weight", 1.0)):
        expected = np.multiply(factor, before["parameters"][name])
        np.testing.assert_allclose(after["parameters"][name], expected, rtol=1e-15)
    (tmp_path / "config.json").write_text(json.dumps({**wide, "num_hidden_layers": 2}))
    deeper = metatune(*arguments, "--overwrite", "--against", tmp_path)
    assert deeper.exit_code == 0, deeper.output
    assert "by Complete(d)P" in deeper.stderr
    after = json.loads((tmp_path / "tuned" / "tuned.json").read_text())["learning_rates"]
    assert "model.layers.1.mlp.up_proj.weight" in after["parameters"]
    alone = metatune(*arguments, "--overwrite", "--rule", "mup")
    assert alone.exit_code == 2 and "add --against MODEL_DIR" in alone.stderr
    old = metatune(*arguments, "--overwrite", "--widths", "mup")
    assert old.exit_code == 2 and "--widths is --rule now: --rule mup" in old.stderr


def test_a_rule_without_schedules_is_refused(tmp_path):
    refused = metatune("train", "quickstart", "--out", tmp_path / "out", "--rule", "mup")
    assert refused.exit_code == 2
    assert "--rule mup needs --with RUN, whose schedules it carries" in refused.stderr


def test_what_is_smoother_makes_no_certificate(tmp_path):
    refused = metatune("check", "quickstart", "--smoother", "--out", tmp_path)
    assert refused.exit_code == 2
    assert "--smoother with --out: it makes no certificate" in refused.stderr


def test_an_option_of_before_is_refused_with_its_name_of_now(tmp_path):
    refused = metatune("train", "quickstart", "--out", tmp_path / "out", "--report-seed", "3")
    assert refused.exit_code == 2
    assert "--report-seed is --test-seed now: --test-seed 3" in refused.stderr
    assert not (tmp_path / "out").exists()


def test_a_certificate_is_not_put_beside_an_artefact_without_its_hash(run):
    out, _ = run
    refused = metatune("check", "quickstart", *SMALL, "--out", out / "artefact")
    assert refused.exit_code == 2
    assert "write into it with --run, or name another" in refused.stderr
    assert not (out / "artefact" / "certificate.json").exists()


def test_show_against_a_model(run, tmp_path):
    out, _ = run
    shapes = shapes_of_artefact(artefact.load(out))
    assert shapes["model.embed_tokens.weight"] == (259, 8)
    tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    assert metatune("show", out, "--against", tmp_path).exit_code == 0
    tensors["lm_head.weight"] = np.zeros((300, 8), np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    wider = metatune("show", out, "--against", tmp_path)
    assert wider.exit_code == 1
    assert wider.output.splitlines() == [
        "1 parameters of another shape:",
        f"  lm_head.weight: [259, 8] of the artefact, [300, 8] of {tmp_path}",
    ]
    tensors["model.final.weight"] = tensors.pop("model.norm.weight")
    save_file(tensors, tmp_path / "model.safetensors")
    differs = metatune("show", out, "--against", tmp_path)
    assert differs.exit_code == 1
    assert "  model.norm.weight (nearest:" in differs.output
    missing = metatune("show", out, "--against", tmp_path / "none")
    assert missing.exit_code == 2 and "Traceback" not in missing.output


def test_an_unknown_target_is_refused(run, tmp_path):
    out, _ = run
    refused = metatune("export", out, "--to", "pytorch", "--out", tmp_path / "tuned")
    assert refused.exit_code == 2
    assert "torch" in refused.output
    assert not (tmp_path / "tuned").exists()


def test_a_damaged_artefact_is_refused(run, tmp_path):
    out, _ = run
    damaged = tmp_path / "tuned.json"
    text = (out / "artefact" / "tuned.json").read_text()
    damaged.write_text(text.replace('"steps": 6', '"steps": 7'))
    for arguments in (("show", damaged), ("export", damaged, "--to", "json", "--out", tmp_path)):
        refused = metatune(*arguments)
        assert refused.exit_code == 2
        assert "Traceback" not in refused.output
        assert str(damaged) in refused.output


def test_all_faults_of_a_recipe_come_together(tmp_path):
    recipe = tmp_path / "bad.yaml"
    text = (shipped.folder() / "quickstart.yaml").read_text()
    text = text.replace("shipped: code_stdlib", "path: /no/such/file.txt")
    text = text.replace("learning_rate: 4e-3", "learning_rate: -4e-3")
    text = text.replace("per: tensor, windows: 5", "per: [no_such_tensor], windows: 500")
    recipe.write_text(text + "colour: red\n")
    refused = metatune("fit", recipe, "outer.steps=two", "--out", tmp_path / "run")
    assert refused.exit_code == 2
    assert "Traceback" not in refused.output
    for said in (
        f"{recipe}: 6 faults",
        "colour = 'red': unknown key",
        "inner.optimizer.learning_rate = -0.004: must be a number above 0",
        "outer.steps = 'two': must be a whole number",
        "tune.learning_rates.windows = 500: must be at most inner.steps, 100",
        "data.domains.code.path = '/no/such/file.txt': no such file",
    ):
        assert said in refused.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("inner.micro_batch=0", "inner.micro_batch = 0: must be"),
        ("inner.optimizer={groups: []}", "inner.optimizer.groups = (): must be"),
        ("data.domains={}", "data.domains = {}: names no domain"),
        ('inner.train=["a{99999999999999}"]', "not a regular expression: the repetition"),
    ],
)
def test_a_value_that_breaks_rules_between_fields_is_a_plain_error(override, said):
    """What is told already keeps rules that meet it from nothing but telling more."""
    refused = metatune("validate", "quickstart", override)
    assert refused.exit_code == 2 and said in refused.output and "Traceback" not in refused.output


def test_a_regex_that_matches_nothing_is_refused():
    refused = metatune("validate", "quickstart", "tune.learning_rates.per=[no_such_tensor]")
    assert refused.exit_code == 2
    assert "tune.learning_rates.per = 'no_such_tensor': matches no parameter" in refused.output


def test_what_diverges_is_a_plain_error(tmp_path, monkeypatch):
    def diverging(*_, **__):
        raise NotFinite("point 0 of the search, inner step 3: the inner loss is nan")

    monkeypatch.setattr(outer_loop, "fit", diverging)
    exact = "outer.estimator={kind: mixflow}"  # nothing to choose
    failed = metatune("fit", "quickstart", *SMALL, exact, "--out", tmp_path / "run")
    assert failed.exit_code == 2
    assert failed.stderr.endswith("inner step 3: the inner loss is nan\n")
    assert "Traceback" not in failed.output


# One that does, by what it is told; its words are in tests/fit/test_outer_loop.py, too.
@pytest.mark.thorough
def test_a_diverging_training_is_a_plain_error(tmp_path):
    diverging = "inner.optimizer={kind: sgd, learning_rate: 1e30, clip_norm: null}"
    exact = "outer.estimator={kind: mixflow}"  # nothing to choose
    failed = metatune("fit", "quickstart", *SMALL, exact, diverging, "--out", tmp_path / "run")
    assert failed.exit_code == 2
    assert "point 0 of the search, inner step" in failed.output
    assert "lower inner.optimizer.learning_rate" in failed.output
    assert metatune("show", tmp_path / "run").exit_code == 0


def test_recipes_are_listed_and_copied(tmp_path):
    listed = metatune("ls")
    assert listed.exit_code == 0
    assert "quickstart" in listed.output
    copied = metatune("cp", "quickstart", tmp_path / "mine.yaml")
    assert copied.exit_code == 0
    original = (shipped.folder() / "quickstart.yaml").read_bytes()
    assert (tmp_path / "mine.yaml").read_bytes() == original
    (tmp_path / "mine.yaml").write_text("mine")
    again = metatune("cp", "quickstart", tmp_path / "mine.yaml")
    assert again.exit_code == 2
    assert "exists already" in again.output
    assert (tmp_path / "mine.yaml").read_text() == "mine"


def test_an_unknown_recipe_gets_a_suggestion(tmp_path):
    for arguments in (("validate", "quikstart"), ("cp", "quikstart", tmp_path / "mine.yaml")):
        refused = metatune(*arguments)
        assert refused.exit_code == 2
        assert "did you mean quickstart?" in refused.output


def test_commands_import_nothing_heavy_that_they_have_no_use_for():
    script = textwrap.dedent("""
        import sys
        from typer.testing import CliRunner
        from metatune.cli.commands import app
        for option in ("--help", "--version"):
            assert CliRunner().invoke(app, [option]).exit_code == 0
        heavy = {"jax", "numpy", "optax", "transformers", "datasets", "tensorboard", "torch"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
        import jax.monitoring
        computed = []
        jax.monitoring.register_event_duration_secs_listener(
            lambda event, seconds, **_: computed.append(event) if "backend_compile" in event else 0
        )
        assert CliRunner().invoke(app, ["validate", "quickstart"]).exit_code == 0
        heavy = {"transformers", "datasets", "tensorboard", "torch", "orbax", "matplotlib"}
        heavy |= {"huggingface_hub", "pyarrow", "plotly", "optuna"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
        assert not computed, computed
        import jax.numpy
        jax.jit(lambda x: x + 1)(jax.numpy.ones(3))
        assert computed  # the listener hears of programs
    """)
    subprocess.run([sys.executable, "-c", script], check=True)


def test_circles_are_looked_for_once_all_is_imported():
    script = textwrap.dedent("""
        import gc, sys
        from metatune.cli import main
        from metatune.recipe import shipped
        seen = []
        def find(name):
            seen.append((gc.isenabled(), gc.get_freeze_count() > 1000))
            raise shipped.RecipeError("x", [])
        shipped.find, before = find, gc.isenabled()
        try:
            main(["validate", "quickstart"])
        except SystemExit as ended:
            assert ended.code == 2, ended
        assert before and seen == [(True, True)], seen
    """)
    subprocess.run([sys.executable, "-c", script], check=True, stderr=subprocess.PIPE)


@pytest.mark.parametrize(
    "arguments",
    [
        ("fit", "quickstart", "--out", "file/run"),
        ("train", "quickstart", "--out", "file/run"),
        ("check", "quickstart", "--out", "file/run"),
        ("cp", "quickstart", "file/recipe.yaml"),
        ("score", "none", "text.txt", "--out", "file/scores"),
        ("export", "none", "--to", "json", "--out", "file/out"),
    ],
)
def test_a_file_where_a_folder_is_needed_is_told_in_words(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    refused = metatune(*arguments)
    assert refused.exit_code == 2
    assert refused.stderr == (
        f"error: {arguments[-1]}: file is a file, where a folder is needed; give another path\n"
    )


def test_explain_needs_neither_jax_nor_numpy():
    program = (
        "import sys; from metatune.cli import main\n"
        "try:\n    main(['explain', 'inner.optimizer.adamw'])\n"
        "except SystemExit as ended:\n    assert not ended.code\n"
        "print(sorted({'jax', 'numpy', 'transformers', 'rich.console'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.stderr == "" and ran.stdout.splitlines()[-1] == "[]"
    assert ran.stdout.startswith("inner.optimizer.adamw\n  AdamW (Loshchilov & Hutter, 2019)")


def test_explain_lists_sections_and_refuses_what_there_is_not():
    listed = metatune("explain")
    assert listed.exit_code == 0
    sections = [line for line in listed.output.splitlines() if line and line[0].islower()]
    assert sections == ["model", "data", "inner", "tune", "outer", "trainer", "devices", "seed"]
    refused = metatune("explain", "tune.mixtur")
    assert refused.exit_code == 2
    assert "tune.mixtur: unknown field; did you mean mixture?" in refused.stderr
