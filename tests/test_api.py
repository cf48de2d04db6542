"""The doctests of the Python interface, on a small artefact."""

import copy
import doctest
import json
import subprocess
import sys
from xml.etree import ElementTree

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from metatune import api
from metatune.artefact import Artefact, LearningRates, LossWeights, Mixture, Optimizer, write
from metatune.fit.run_folder import RunFolderError
from metatune.fit.searching import loop
from metatune.recipe import reading, shipped, writing
from metatune.recipe.faults import RecipeError

NAMES = ("model.embed_tokens.weight", "model.norm.weight")


SMALL = {
    "model.config.hidden_size": 8,
    "model.config.intermediate_size": 16,
    "model.config.num_hidden_layers": 1,
    "model.config.num_attention_heads": 2,
    "data.batch_size": 4,
    "data.sequence_length": 16,
    "inner.steps": 6,
    "outer.steps": 2,
    "outer.objective.sequences": 8,
    "outer.validation": {"seeds": 1, "sequences": 8},
    "outer.test": {"seeds": 2, "sequences": 8},
}


@pytest.fixture
def run(tmp_path):
    held = Artefact(
        horizon_steps=10,
        horizon_tokens=1000,
        learning_rates=LearningRates(
            (0.0, 0.5),
            "constant",
            {NAMES[0]: np.array([4e-3, 4e-3]), NAMES[1]: np.array([1e-3, 2e-3])},
        ),
        mixture=Mixture(
            (0.0, 0.5), "constant", ("code", "drama"), np.array([[0.5, 0.5], [0.75, 0.25]])
        ),
        loss_weights=LossWeights((0.0,), "constant", ("code", "drama"), np.array([[1.5, 0.5]])),
        optimizer=Optimizer(
            {
                "kind": "sgd",
                "weight_decay": 0.0,
                "momentum": 0.0,
                "nesterov": False,
                "clip_norm": None,
            },
            (),
        ),
        provenance={},
        result={
            "status": "complete",
            "unit": "nats per token",
            "best_outer_step": 1,
            "outer_steps": 2,
            "objective_before": 3.375,
            "objective_after": 3.1875,
            "difference": -0.1875,
            "standard_error": 0.0625,
            "held_out_seeds": [0, 1],
            "before": [3.5, 3.25],
            "after": [3.25, 3.125],
        },
    )
    write(tmp_path / "run" / "artefact", held, "")
    return tmp_path / "run"


@pytest.fixture
def model():
    import torch

    inner = torch.nn.ModuleDict(
        {"embed_tokens": torch.nn.Embedding(4, 2), "norm": torch.nn.RMSNorm(2)}
    )
    return torch.nn.ModuleDict({"model": inner})


def test_the_doctests_hold(run, model, tmp_path):
    import torch

    names = {"run": run, "tuned": api.load(run), "model": model, "torch": torch, "jnp": jnp}
    names |= {"api": api, "folder": tmp_path, "changes": SMALL}
    result = doctest.testmod(api, extraglobs=names)
    assert (result.attempted >= 20, result.failed) == (True, 0)


def test_optax_moves_each_parameter_by_its_rate(run):
    params = {name: jnp.ones(2) for name in NAMES}
    optimizer = api.load(run).optax()
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    for name, rate in zip(NAMES, (4e-3, 1e-3), strict=True):
        np.testing.assert_allclose(updates[name], -rate * np.ones(2), rtol=1e-6)


def test_another_model_is_refused_with_both_sides(run, model):
    model["model"]["final"] = model["model"].pop("norm")
    with pytest.raises(ValueError, match=r"final\.weight[\s\S]*1 curves have no.*\n  model\.norm"):
        api.load(run).torch_param_groups(model)


def test_a_recipe_is_a_name_a_file_sections_or_a_recipe(tmp_path):
    file = shipped.copy("quickstart", tmp_path / "mine.yaml")
    texts = [f"{path}={json.dumps(value)}" for path, value in SMALL.items()]
    recipe = reading.read(file, texts)
    sections = writing.to_tree(recipe)
    before = copy.deepcopy(sections)
    given = [("quickstart", SMALL), (file, texts), (str(file), SMALL), (sections, ()), (recipe, ())]
    console = Console(quiet=True)
    for each, changes in given:
        assert api._prepared(each, changes, console).recipe == recipe
    assert api._prepared(recipe, {"seed": 2**64 - 1}, console).recipe.seed == 2**64 - 1
    assert sections == before
    with pytest.raises(RecipeError, match="recipe: 1 fault\n  inner.stepz = 3: unknown key"):
        api._prepared(sections, {"inner.stepz": 3}, console)
    with pytest.raises(RecipeError, match="override = 'seed': not of the form"):
        api._prepared(recipe, ["seed"], console)


def test_schedules_are_carried_to_a_folder_s_model(tmp_path):
    config = {
        "model_type": "llama",
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 17,
    }
    names = (
        "model.embed_tokens.weight",
        "model.norm.weight",
        "lm_head.weight",
        *(f"model.layers.0.self_attn.{which}_proj.weight" for which in "qkvo"),
        *(f"model.layers.0.mlp.{which}_proj.weight" for which in ("gate", "up", "down")),
        *(f"model.layers.0.{which}_layernorm.weight" for which in ("input", "post_attention")),
    )
    rates = LearningRates((0.0,), "constant", {name: np.array([0.25]) for name in names})
    adamw = dict.fromkeys(("weight_decay", "b1", "b2", "eps", "eps_root"), 0.0)
    optimizer = Optimizer({"kind": "adamw", **adamw, "clip_norm": None}, ())
    tuned = api.Tuned(
        Artefact(10, 1000, rates, None, None, optimizer, {"model_config": config}, {})
    )
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    deep = tuned.carried(tmp_path, steps=40)
    assert deep.learning_rate("model.layers.1.mlp.up_proj.weight", 39) == pytest.approx(0.125)
    assert deep.learning_rate("model.layers.1.mlp.down_proj.weight", 39) == pytest.approx(0.0625)
    assert "by Complete(d)P" in deep.asks[0] and len(deep.asks) > 1
    none = tuned.carried(tmp_path, rule="none")
    assert none.learning_rate("model.layers.1.mlp.up_proj.weight", 9) == 0.25


def test_a_search_that_is_stopped_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    # Nothing to choose: with an estimator no way is planned.
    overrides = SMALL | {"outer.estimator": {"kind": "mixflow", "segment": 6}}
    whole = api.fit("quickstart", tmp_path / "whole", overrides=overrides)
    step = loop.SearchLoop.step

    def stopped(self, search):
        if search.step == 1:
            raise KeyboardInterrupt
        return step(self, search)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="resume=True"):
        patch.setattr(loop.SearchLoop, "step", stopped)
        api.fit("quickstart", tmp_path / "run", overrides=overrides)
    assert api.load(tmp_path / "run").pairs == ()
    with pytest.raises(RunFolderError, match="holds a run already"):
        api.fit("quickstart", tmp_path / "run", overrides=overrides)
    again = api.fit("quickstart", tmp_path / "run", overrides=overrides, resume=True)
    assert again.pairs == whole.pairs and len(again.pairs) == 2
    for name in whole.parameters:
        assert again.learning_rate(name, 3) == whole.learning_rate(name, 3)


def test_a_result_is_shown_as_text_and_in_a_notebook(run, tmp_path):
    tuned = api.load(run)
    assert repr(tuned).startswith("Tuned schedules:\n  ")
    assert "default 3.3750, tuned 3.1875 nats per token, held out, 2 paired" in repr(tuned)
    page = tuned._repr_html_()
    assert "<td>3.5000</td><td>3.2500</td><td>-0.2500</td>" in page
    picture = tuned.plot()
    assert picture._repr_svg_().startswith("<svg") and picture.svg in page
    ElementTree.fromstring(picture.svg)
    assert picture.save(tmp_path / "a.svg").read_text(encoding="utf-8") == picture.svg
    with pytest.raises(RecipeError, match="a.png': must end in .svg"):
        picture.save(tmp_path / "a.png")


def test_a_plan_is_shown_as_the_command_line_does():
    planned = api.plan("quickstart", overrides=SMALL)
    assert planned.pick == planned.as_json()[0]["pick"] is not None
    assert "pick: " in repr(planned) and "outer step" in repr(planned)
    assert planned._repr_html_().startswith("<pre>")


def test_importing_it_loads_no_jax():
    program = "import sys; from metatune import api; print('jax' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("False\n", "")
