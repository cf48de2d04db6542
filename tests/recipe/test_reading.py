import dataclasses
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from metatune.recipe import reading, schema, writing
from metatune.recipe.faults import RecipeError

SHIPPED = Path(__file__).parents[2] / "recipes"


def said(tree):
    """The faults of `tree`, a line each."""
    _, faults = reading.collect(tree)
    return [str(fault) for fault in faults]


def test_every_shipped_recipe_is_sound():
    paths = sorted(SHIPPED.rglob("*.yaml"))
    assert len(paths) >= 1
    for path in paths:
        assert isinstance(reading.read(path), schema.Recipe), path


def test_defaults_are_filled_in(tree):
    recipe = reading.parse(tree, "memory")
    assert recipe.inner.optimizer == schema.AdamWSpec(learning_rate=0.003)
    assert recipe.tune == schema.TuneSpec(learning_rates=schema.LearningRatesSpec(windows=2))
    assert recipe.outer == schema.OuterSpec(steps=3)
    assert recipe.data.domains["prose"] == schema.SourceSpec(path="prose.txt")
    assert recipe.seed == 0


def test_the_kind_chooses_the_class(tree):
    tree["inner"]["optimizer"] = {
        "kind": "sgd",
        "learning_rate": 1,
        "schedule": {"kind": "wsd", "decay": 0.5},
    }
    tree["outer"]["optimizer"] = {"kind": "sign"}
    tree["outer"]["estimator"] = {"segment": 4}  # no kind: that of the default
    recipe = reading.parse(tree, "memory")
    wsd = schema.WarmupStableDecaySpec(decay=0.5)
    assert recipe.inner.optimizer == schema.SGDSpec(learning_rate=1.0, schedule=wsd)
    assert recipe.outer.optimizer == schema.SignSpec()
    assert recipe.outer.estimator == schema.MixFlowSpec(segment=4)


@pytest.mark.parametrize("keep", ["all", "sqrt", "recursive", 3])
def test_checkpoints_are_kept_by_name_or_number(tree, keep):
    tree["outer"]["estimator"] = {"checkpoints": {"keep": keep, "store": "disk"}}
    recipe = reading.parse(tree, "memory")
    expected = schema.MixFlowSpec(checkpoints=schema.CheckpointsSpec(keep=keep, store="disk"))
    assert recipe.outer.estimator == expected
    assert reading.parse(writing.to_tree(recipe), "memory") == recipe


def test_a_budget_is_a_number_of_bytes_however_it_is_spelled(tree):
    tree["outer"]["estimator"] = {"checkpoints": {"budget_bytes": "4e9"}}
    estimator = reading.parse(tree, "memory").outer.estimator
    assert isinstance(estimator, schema.MixFlowSpec)
    assert estimator.checkpoints == schema.CheckpointsSpec(keep="auto", budget_bytes=4_000_000_000)


@pytest.mark.parametrize(
    "section",
    [
        schema.ForwardSpec(chunk=4, clip_tangents=1.0, budget_bytes=10**9),
        schema.ForwardGradientSpec(directions=3, distribution="orthogonal", chunk=1),
        schema.ZerothOrderSpec(directions=2, step=0.05, distribution="gaussian", chunk=2),
        schema.PersistentESSpec(pairs=2, step=0.05, distribution="rademacher", chunk=2),
    ],
)
def test_estimators_without_a_backward_sweep(tree, section):
    tree["outer"]["estimator"] = dataclasses.asdict(section)
    tree["outer"]["unroll"] = {"kind": "online", "window": 1}
    recipe = reading.parse(tree, "memory")
    assert recipe.outer.estimator == section
    assert reading.parse(writing.to_tree(recipe), "memory") == recipe


def test_numbers_of_estimators_are_above_zero(tree):
    tree["outer"]["estimator"] = {
        "kind": "zeroth_order",
        "directions": 0,
        "step": 0.0,
        "chunk": -1,
        "distribution": "normal",
    }
    with pytest.raises(RecipeError) as raised:
        reading.parse(tree, "memory")
    assert {fault.path for fault in raised.value.faults} == {
        f"outer.estimator.{name}" for name in ("directions", "step", "chunk", "distribution")
    }


def test_the_part_that_is_differentiated_is_told_by_its_kind(tree):
    tree["outer"]["unroll"] = {"kind": "online", "window": 2}
    assert reading.parse(tree, "memory").outer.unroll == schema.OnlineSpec(window=2)
    tree["outer"]["unroll"] = {"kind": "truncated", "window": 2}
    assert reading.parse(tree, "memory").outer.unroll == schema.TruncatedSpec(window=2)


@pytest.mark.parametrize(
    ("keep", "message"),
    [(0, "one of the names, or 1 or above"), ("sqr", "sqrt"), (1.5, "a whole number")],
)
def test_other_checkpoints_are_refused(tree, keep, message):
    tree["outer"]["estimator"] = {"checkpoints": {"keep": keep}}
    with pytest.raises(RecipeError, match=message):
        reading.parse(tree, "memory")


@pytest.mark.parametrize(
    ("per", "read"),
    [
        ("layer", "layer"),
        (["attn", "mlp"], ("attn", "mlp")),
        ({"attention": "attn"}, {"attention": "attn"}),
    ],
)
def test_alternatives_are_told_apart_by_their_shape(tree, per, read):
    tree["tune"]["learning_rates"]["per"] = per
    assert reading.parse(tree, "memory").tune.learning_rates == schema.LearningRatesSpec(read, 2)


@pytest.mark.parametrize(
    ("received", "read"), [("auto", "auto"), (None, None), (256, 256), ("1e3", 1000)]
)
def test_a_chunk_is_a_number_a_word_or_null(tree, received, read):
    tree["model"] |= {"attention_chunk": received, "loss_chunk": received}
    model = reading.parse(tree, "memory").model
    assert (model.attention_chunk, model.loss_chunk) == (read, read)


@pytest.mark.parametrize(
    ("received", "number"), [("3e-4", 0.0003), ("1E+1", 10.0), (2, 2.0), (0.5, 0.5)]
)
def test_numbers_are_floats_however_they_are_spelled(tree, received, number):
    tree["inner"]["optimizer"]["learning_rate"] = received
    rate = schema.peak(reading.parse(tree, "memory").inner.optimizer)
    assert (rate, type(rate)) == (number, float)


@pytest.mark.parametrize("received", [1000, 1000.0, "1e3"])
def test_whole_numbers_are_ints_however_they_are_spelled(tree, received):
    tree["inner"]["steps"] = received
    steps = reading.parse(tree, "memory").inner.steps
    assert (steps, type(steps)) == (1000, int)


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (
            "data.sequence_lenght",
            128,
            "data.sequence_lenght = 128: unknown key; did you mean sequence_length? (allowed: "
            "domains, target, sequence_length, batch_size, tokenizer, bos, held_out, packing, "
            "date, bpe_dropout, invalid_utf8)",
        ),
        (
            "tune.zzz",
            {},
            "tune.zzz = {}: unknown key; allowed: learning_rates, mixture, loss_weights, "
            "optimizer, loss_terms, initialisation, learned_update, rater, averaging",
        ),
        (
            "inner.optimizer.learning_rate",
            -0.1,
            "inner.optimizer.learning_rate = -0.1: must be a number above 0; there is no default: "
            "choose one",
        ),
        (
            "inner.optimizer.b1",
            1,
            "inner.optimizer.b1 = 1.0: must be a fraction from 0 up to, not including, 1; leave "
            "it out for the default, 0.9",
        ),
        (
            "inner.optimizer.learning_rate",
            True,
            "inner.optimizer.learning_rate = True: must be a finite number; there is no default: "
            "choose one",
        ),
        (
            "inner.optimizer.learning_rate",
            math.inf,
            "inner.optimizer.learning_rate = inf: must be a finite number; there is no default: "
            "choose one",
        ),
        (
            "inner.optimizer.clip_norm",
            math.nan,
            "inner.optimizer.clip_norm = nan: must be a finite number or null; leave it out for "
            "the default, 1.0",
        ),
        (
            "inner.steps",
            2.5,
            "inner.steps = 2.5: must be a whole number; there is no default: choose one",
        ),
        (
            "inner.steps",
            "200",
            "inner.steps = '200': must be a whole number; there is no default: choose one",
        ),
        ("seed", False, "seed = False: must be a whole number; leave it out for the default, 0"),
        (
            "data.sequence_length",
            1,
            "data.sequence_length = 1: must be a whole number of 2 or above; there is no default: "
            "choose one",
        ),
        (
            "data.held_out",
            {"validation": 0},
            "data.held_out.validation = 0.0: must be a fraction between 0 and 1, both excluded; "
            "leave it out for the default, 0.1",
        ),
        (
            "data.held_out",
            None,
            "data.held_out = None: must be a section with validation, test; leave it out for the "
            "defaults",
        ),
        (
            "model.loss_chunk",
            0,
            "model.loss_chunk = 0: must be auto, null or a whole number of 1 or above; leave it "
            'out for the default, "auto"',
        ),
        (
            "model.attention_chunk",
            "atuo",
            "model.attention_chunk = 'atuo': unknown choice; did you mean auto? (allowed: auto)",
        ),
        (
            "model.attention_chunk",
            True,
            "model.attention_chunk = True: must be a whole number or auto or null; leave it out "
            'for the default, "auto"',
        ),
        (
            "model.remat",
            "yes",
            "model.remat = 'yes': must be true or false; leave it out for the default, true",
        ),
        (
            "model.dtype",
            "float16",
            "model.dtype = 'float16': unknown choice; did you mean bfloat16? (allowed: float32, "
            "bfloat16)",
        ),
        (
            "model.config.rms_norm_eps",
            math.nan,
            "model.config.rms_norm_eps = nan: must be a finite number, text, true, false, null, a "
            "list or a mapping; there is no default: choose one",
        ),
        (
            "model.config.layers",
            [1, {2: "two"}],
            "model.config.layers[1].2 = 'two': the name 2 must be text; write \"2\" in quotes",
        ),
        (
            "data.domains.code",
            "code_stdlib",
            "data.domains.code = 'code_stdlib': must be a section with shipped, path, jsonl, "
            "parquet, csv, arrow, dataset, saved, config, split, revision, streaming, column, "
            "prompt, completion, messages, input_ids, labels, loss_mask, label, max_tokens, "
            "corrupt, use; there is no default: choose one",
        ),
        (
            "inner.optimizer",
            "adamw",
            "inner.optimizer = 'adamw': must be a section whose kind is adamw or sgd or lion "
            "or muon or adafactor or schedule_free_adamw or adopt or "
            "adamh or muonh or soap or normuon or groups; there is no "
            "default: choose one",
        ),
        (
            "inner.optimizer.kind",
            "adam",
            "inner.optimizer.kind = 'adam': unknown kind; did you mean adamw? (allowed: adamw, "
            "sgd, lion, muon, adafactor, schedule_free_adamw, adopt, adamh, muonh, soap, normuon, "
            "groups)",
        ),
        (
            "inner.optimizer.kind",
            ["adam"],
            "inner.optimizer.kind = ['adam']: unknown kind; did you mean adamw? (allowed: adamw, "
            "sgd, lion, muon, adafactor, schedule_free_adamw, adopt, adamh, muonh, soap, normuon, "
            "groups)",
        ),
        (
            "inner.optimizer",
            {"learning_rate": 1},
            "inner.optimizer.kind: missing; write one of adamw, sgd, lion, muon, adafactor, "
            "schedule_free_adamw, adopt, adamh, muonh, soap, normuon, groups",
        ),
        (
            "tune.learning_rates.per",
            "tensr",
            "tune.learning_rates.per = 'tensr': unknown choice; did you mean tensor? (allowed: "
            "global, layer, tensor, kind, layer_kind, row, column, element)",
        ),
        (
            "tune.learning_rates.per",
            ["attn", 3],
            "tune.learning_rates.per[1] = 3: must be text; there is no default: choose one",
        ),
        (
            "tune.learning_rates.per",
            5,
            "tune.learning_rates.per = 5: must be global or layer or tensor or kind or layer_kind "
            "or row or column or element or a list (each item text) or a mapping (name: text); "
            'leave it out for the default, "tensor"',
        ),
    ],
)
def test_a_fault_says_what_was_received_what_is_allowed_and_what_to_do(tree, path, value, line):
    *above, name = path.split(".")
    section = tree
    for key in above:
        section = section.setdefault(key, {})
    section[name] = value
    if name == "sequence_lenght":
        del section["sequence_length"]  # reported once: as the misspelt key
    assert said(tree) == [line]


def test_missing_keys_say_what_to_write(tree):
    del tree["inner"]["steps"], tree["data"]["domains"], tree["outer"]
    assert said(tree) == [
        "data.domains: missing; write a mapping (name: a section with shipped, path, jsonl, "
        "parquet, csv, arrow, dataset, saved, config, split, revision, streaming, column, prompt, "
        "completion, messages, input_ids, labels, loss_mask, label, max_tokens, corrupt, use)",
        "inner.steps: missing; write a whole number of 1 or above",
        "outer: missing; write a section with steps, phases, estimator, unroll, optimizer, "
        "clip_norm, clip, ema, patience, objective, fresh, population, robust, signal, validation, "
        "test",
    ]


def test_all_faults_of_file_and_overrides_come_together(tree, tmp_path):
    tree["inner"]["optimizer"]["learning_rate"] = -0.1
    tree["tune"]["mixture"] = {"floor": 0.7}  # a rule between fields of two sound sections
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(RecipeError) as error:
        reading.read(path, ["seed", "outer.stepz=1"])
    assert error.value.source == str(path)
    first, *rest = str(error.value).splitlines()
    assert first == f"{path}: 4 faults"
    assert [line.split(":")[0] for line in rest] == [
        "  override = 'seed'",
        "  inner.optimizer.learning_rate = -0.1",
        "  outer.stepz = 1",
        "  tune.mixture.floor = 0.7",
    ]


def test_a_long_value_is_shortened(tree):
    tree["seeds"] = list(range(1000))
    (line,) = said(tree)
    assert line.startswith("seeds = [0, 1, 2,")
    assert "…" in line and " 998, 999]: unknown key; did you mean seed?" in line
    assert len(line.partition(": unknown")[0]) == len("seeds = ") + 80
    assert len(line) < 200


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- model\n- data\n", "recipe: must be a mapping of sections, not a list; write"),
        ("model", "recipe: must be a mapping of sections, not text; write"),
        ("7", "recipe: must be a mapping of sections, not 7; write"),
        ("", "recipe: is empty; write the sections"),
        ("a: b: c", "recipe: not valid YAML at line 1, column 5: "),
        ("seed: 0\nseed: 1\n", "seed: appears twice, on lines 1 and 2; keep one of them"),
    ],
)
def test_a_file_that_is_no_mapping_has_one_fault(tmp_path, text, problem):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as error:
        reading.read(path, ["seed=1"])
    assert str(error.value).startswith(f"{path}: 1 fault\n  {problem}")


def test_overrides_reach_the_recipe(tmp_path, tree):
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(tree))
    recipe = reading.read(path, ["inner.optimizer.learning_rate=3e-4", "tune.mixture={}"])
    assert schema.peak(recipe.inner.optimizer) == 3e-4
    assert recipe.tune.mixture == schema.MixtureSpec()


def test_reading_recipes_needs_no_jax():
    program = (
        "import sys, pkgutil, importlib, metatune.recipe as r\n"
        "names = [m.name for m in pkgutil.iter_modules(r.__path__, 'metatune.recipe.')]\n"
        "[importlib.import_module(name) for name in names]\n"
        "assert 'metatune.recipe.reading' in names\n"
        "print(sorted({'jax', 'flax', 'optax', 'numpy', 'torch'} & set(sys.modules)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=60
    )
    assert (ran.stdout.strip(), ran.stderr) == ("[]", "")
