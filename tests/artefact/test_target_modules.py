"""Modules for Megatron and Axolotl, which can't be had here, by what they ask of such modules."""

import dataclasses
import fnmatch
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from metatune.artefact.exporters import export

LAYERS = 2
LLAMA = (
    "model.embed_tokens.weight",
    *(
        f"model.layers.{i}.{part}.weight"
        for i in range(LAYERS)
        for part in (
            *(f"self_attn.{x}_proj" for x in "qkvo"),
            *(f"mlp.{x}_proj" for x in ("gate", "up", "down")),
            "input_layernorm",
            "post_attention_layernorm",
        )
    ),
    "model.norm.weight",
    "lm_head.weight",
)


@dataclasses.dataclass(frozen=True)
class ParamPredicate:
    """As megatron/core/optimizer/optimizer_config.py of megatron-core 0.19.2 has it."""

    name: str
    fn: Any = dataclasses.field(compare=False, hash=False)

    def __call__(self, parameter):
        return self.fn(parameter)


@dataclasses.dataclass(frozen=True)
class ParamKey:
    """The same file: a key matches by a glob of the name, or by a predicate."""

    name: Any = ()
    predicate: Any = ()

    def matches(self, parameter, name):
        globs = [self.name] if isinstance(self.name, str) else list(self.name)
        by_name = any(fnmatch.fnmatch(name, glob) for glob in globs)
        return by_name or bool(self.predicate and self.predicate(parameter))


def layer(number):
    """A layer of GPTModel with Transformer Engine; `layer_number` counts from 1 in the whole."""
    made: Any = nn.Module()
    made.layer_number, made.self_attention, made.mlp = number, nn.Module(), nn.Module()
    made.self_attention.linear_qkv = nn.Linear(2, 2, bias=False)
    made.self_attention.linear_proj = nn.Linear(2, 2, bias=False)
    made.mlp.linear_fc1, made.mlp.linear_fc2 = (nn.Linear(2, 2, bias=False) for _ in range(2))
    for fused in (made.self_attention.linear_qkv, made.mlp.linear_fc1):
        fused.layer_norm_weight = nn.Parameter(torch.ones(2))
    return made


def stages():
    """The two stages of a pipeline, within Float16Module and DDP; each counts layers from 0."""
    first, last = (nn.Module(), nn.Module())
    made: Any = (first, last)
    for number, stage in enumerate(made, 1):
        stage.decoder = nn.Module()
        stage.decoder.layers = nn.ModuleList([layer(number)])
    made[0].embedding = nn.Module()
    made[0].embedding.word_embeddings = nn.Embedding(4, 2)
    made[1].decoder.final_layernorm = nn.LayerNorm(2, bias=False)
    made[1].output_layer = nn.Linear(2, 4, bias=False)
    return [nn.ModuleDict({"module": nn.ModuleDict({"module": stage})}) for stage in made]


@pytest.fixture
def megatron(make, tmp_path, load_module, stub):
    whole = make(LLAMA)
    names = tuple(name for name in LLAMA if "norm" not in name)
    artefact = dataclasses.replace(
        whole, optimizer=dataclasses.replace(whole.optimizer, decayed=names)
    )
    export(artefact, "megatron", tmp_path / "out", lossy=True)
    keys = {"ParamKey": ParamKey, "ParamPredicate": ParamPredicate}
    stub("megatron.core.optimizer.optimizer_config", **keys)
    return artefact, load_module(tmp_path / "out", "metatune_megatron")


# The rates here are random: those of a fused matrix are far apart.
fused = pytest.mark.filterwarnings("ignore:.*its parts have one rate:UserWarning")


@fused
def test_megatron_overrides_every_parameter_of_a_pipeline(megatron):
    """Bare names matched none of 15 under DDP, Float16Module and stages."""
    artefact, module = megatron
    chunks = stages()
    overrides = module.config_overrides(chunks)
    found = {}
    for stage, chunk in enumerate(chunks):
        for name, parameter in chunk.named_parameters():
            (own,) = [o for key, o in overrides.items() if key.matches(parameter, name)]
            found[stage, name.removeprefix("module.module.")] = own
    assert len(found) == 15

    def peak(*names):
        # One rate for all here: the base schedule times 0.3 or 1.7, the same for each parameter.
        (rate,) = {static[name] for name in names}
        return rate

    from metatune.artefact.exporters.static_rates import static_rates

    static = static_rates(artefact).parameters
    second = found[1, "decoder.layers.0.mlp.linear_fc1.weight"]
    gate, up = (f"model.layers.1.mlp.{x}_proj.weight" for x in ("gate", "up"))
    assert second["max_lr"] == pytest.approx(peak(gate, up)) and second["wd_mult"] == 1.0
    norm = found[0, "decoder.layers.0.self_attention.linear_qkv.layer_norm_weight"]
    assert norm["wd_mult"] == 0.0 and np.isfinite(norm["min_lr"])


@fused
def test_megatron_refuses_names_that_no_process_has(megatron):
    _, module = megatron
    with pytest.raises(ValueError, match="8 names match no parameter of the model: decoder.layers"):
        module.config_overrides(stages()[:1])
    broken: Any = stages()
    broken[0]["module"]["module"].extra = nn.Linear(2, 2, bias=False)
    with pytest.raises(ValueError, match="1 parameters are in no group: extra.weight"):
        module.config_overrides(broken)


@pytest.mark.needs("accelerate")
def test_axolotl_trains_by_its_own_trainer_with_the_tuned_optimizer(
    make, tmp_path, load_module, stub
):
    """Adapters and embeddings too, which its `lr_groups` leave out (axolotl 0.21.0)."""
    import transformers

    saved = "base_model.model.model.layers.0.q_proj.lora_A.weight"
    names = (saved, "base_model.model.model.embed_tokens.weight")
    artefact = make(names, 4, mixture=None, loss_weights=None)
    export(artefact, "axolotl", tmp_path / "out")
    stub("axolotl.integrations.base", BasePlugin=object)

    class AxolotlTrainer(transformers.Trainer):
        def create_optimizer(self, model=None):
            raise AssertionError("its own groups must not be made")

    stub("axolotl.core.trainers.base", AxolotlTrainer=AxolotlTrainer)
    plugin = load_module(tmp_path / "out", "metatune_axolotl").TunedPlugin()
    trainer_class = plugin.get_trainer_cls({})
    assert issubclass(trainer_class, AxolotlTrainer)

    class Adapted(nn.Module):
        def __init__(self):
            super().__init__()
            own: Any = nn.ModuleDict({"embed_tokens": nn.Embedding(4, 2)})
            q_proj = nn.ModuleDict({"lora_A": nn.ModuleDict({"default": nn.Linear(2, 2, False)})})
            own["layers"] = nn.ModuleList([nn.ModuleDict({"q_proj": q_proj})])
            self.base_model = nn.ModuleDict({"model": nn.ModuleDict({"model": own})})

        def forward(self, x, labels=None):
            return {"loss": torch.stack([p.sum() for p in self.parameters()]).sum() * x.sum()}

    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "trained"),
        max_steps=4,
        max_grad_norm=1.0,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        logging_steps=1,
    )
    rows: Any = [{"x": 1.0} for _ in range(32)]
    trainer = trainer_class(model=Adapted(), args=arguments, train_dataset=rows)
    trainer.train()
    for step, logs in enumerate(trainer.state.log_history[:4]):
        for name in names:
            expected = artefact.learning_rate(name, step, 4)
            assert logs[f"learning_rate/{name}"] == pytest.approx(expected, rel=1e-12)
