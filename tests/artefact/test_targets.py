"""Each export read back as its trainer reads it: parsers where installed, else the schema.

Fields were read in the versions that the exporters state.
"""

import ast
import csv
import dataclasses
import importlib
import importlib.util
import json
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import yaml

from metatune.artefact import (
    ArtefactError,
    LearningRates,
    LossWeights,
    Mixture,
    Multipliers,
    Origin,
)
from metatune.artefact.exporters import EXPORTERS, export

NAMES = (
    "model.embed_tokens.weight",
    "model.layers.1.mlp.down_proj.weight",
    "model.layers.11.mlp.down_proj.weight",
    "model.norm.weight",
)
DOMAINS = ("web text", "code", "é")
SHARES = np.array([[0.5, 0.3, 0.2], [0.25, 0.75, 0.0]])
STEPS = 100


@pytest.fixture
def static(make):
    """Four rates that follow one curve, a mixture of two windows, loss weights that stay."""
    base = np.array([0.5e-3, 1e-3, 0.75e-3, 0.25e-3])
    factors = dict(zip(NAMES, (0.5, 2.0, 1.0, 4.0), strict=True))
    rates = LearningRates(
        (0.0, 0.1, 0.5, 0.8),
        "constant",
        {name: base * factor for name, factor in factors.items()},
        Multipliers(
            (0.0,),
            {name: (factor,) for name, factor in factors.items()},
            {name: (name,) for name in NAMES},
        ),
    )
    return make(
        NAMES,
        STEPS,
        learning_rates=rates,
        mixture=Mixture((0.0, 0.5), "constant", DOMAINS, SHARES),
        loss_weights=LossWeights((0.0,), "constant", DOMAINS, np.array([[0.5, 1.5, 1.0]])),
    )


@pytest.fixture
def written(static, tmp_path):
    """Exports and gives a reader of the folder's files."""

    def write(target, **options):
        artefact = options.pop("artefact", static)
        options = {"lossy": True, **options}
        export(artefact, target, tmp_path / target, **options)
        return tmp_path / target

    return write


def load_yaml(folder, name="tuned.yaml"):
    return yaml.safe_load((folder / name).read_text(encoding="utf-8"))


def written_text(written, target):
    return (written(target, overwrite=True) / "README.md").read_text(encoding="utf-8")


def mean_shares():
    return dict(zip(DOMAINS, SHARES.mean(axis=0).tolist(), strict=True))


def module_at(path):
    spec = importlib.util.spec_from_file_location(f"exported_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("target", EXPORTERS)
def test_every_file_parses(written, target):
    folder = written(target, sequences_per_step=2048)
    for path in folder.iterdir():
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".py":
            ast.parse(text)
        elif path.suffix == ".json":
            json.loads(text)
        elif path.suffix == ".yaml":
            assert yaml.safe_load(text)
    for code in re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL):
        ast.parse(code)


OURS = {"tuned.json", "static_rates.json"}
"""What no trainer reads by itself, but modules of the export."""


def numbers_in(value, path):
    """The paths to the numbers in a document, those written as strings too."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from numbers_in(inner, (*path, key))
    elif isinstance(value, list):
        for inner in value:
            yield from numbers_in(inner, path)
    elif isinstance(value, int | float) or re.match(r"\d", str(value)):
        if not isinstance(value, bool):
            yield path


@pytest.mark.parametrize("target", EXPORTERS)
def test_every_number_that_a_trainer_reads_has_a_stated_meaning(written, target):
    """A field of one name means other things in other trainers: `weight_decay`, `weight`."""
    folder, stated, used = (
        written(target, sequences_per_step=2048),
        EXPORTERS[target].numbers,
        set(),
    )
    readme = (folder / "README.md").read_text(encoding="utf-8")
    for path in folder.iterdir():
        if path.suffix not in (".yaml", ".json") or path.name in OURS:
            continue
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        for keys in numbers_in(document, (path.name,)):
            known = [key for key in keys if key in stated]
            assert known, (path.name, keys)
            used |= set(known)
    elsewhere = {"phase_*.txt", "--lr", "--weight-decay"}  # of words and of a command
    elsewhere |= {"experiment_budget", "target_budget"}  # of a training that is shorter
    assert used == set(stated) - elsewhere
    for field, meaning in stated.items():
        assert f"- `{field}`: {meaning}\n" in readme


def test_json_has_a_module_of_no_package(written, static):
    module = module_at(written("json") / "metatune_schedule.py")
    for total in (100, 37):
        for step in range(total):
            assert module.shares(step, total) == static.mixture_at(step, total)
            assert module.loss_weights(step, total) == static.loss_weights_at(step, total)
            for name in NAMES:
                assert module.rate(name, step, total) == static.learning_rate(name, step, total)
    imported = ast.parse(
        (written("json", overwrite=True) / "metatune_schedule.py").read_text()
    ).body
    modules = {a.name for n in imported if isinstance(n, ast.Import) for a in n.names}
    modules |= {n.module for n in imported if isinstance(n, ast.ImportFrom)}
    assert modules <= set(sys.stdlib_module_names)


def test_csv_holds_every_value_at_every_update(written, static):
    folder = written("csv", steps=37)
    for name, at in (("mixture", static.mixture_at), ("loss_weights", static.loss_weights_at)):
        with open(folder / f"{name}.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 37
        for step, row in enumerate(rows):
            assert int(row.pop("step")) == step
            assert {key: float(value) for key, value in row.items()} == at(step, 37)
    with open(folder / "learning_rates.csv", newline="", encoding="utf-8") as file:
        for step, row in enumerate(csv.DictReader(file)):
            for name in NAMES:
                assert float(row[name]) == static.learning_rate(name, step, 37)


def test_trl(written):
    config = load_yaml(written("trl"), "mixture.yaml")
    assert {d["path"]: d["fraction"] for d in config["datasets"]} == pytest.approx(
        {"PATH/TO/web_text": 0.375, "PATH/TO/code": 0.525, "PATH/TO/é": 0.1}
    )
    assert config["streaming"] is False  # a fraction is for datasets with a length


@pytest.mark.needs("trl")
def test_trl_itself_mixes_by_the_fractions(written, tmp_path):
    utils = importlib.import_module("trl.scripts.utils")
    config = load_yaml(written("trl"), "mixture.yaml")
    for entry in config["datasets"]:
        name = entry["path"].removeprefix("PATH/TO/")
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        rows = "".join(json.dumps({"text": f"{name} {i}"}) + "\n" for i in range(400))
        (folder / "train.jsonl").write_text(rows, encoding="utf-8")
        entry["path"] = str(folder)
    datasets = [utils.DatasetConfig(**entry) for entry in config.pop("datasets")]
    mixed = utils.get_dataset(utils.DatasetMixtureConfig(datasets=datasets, **config))["train"]
    counts = Counter(row["text"].rsplit(" ", 1)[0] for row in mixed)
    total = sum(counts.values())
    assert total == pytest.approx(400 / 0.525, abs=2)
    for name, share in zip(("web_text", "code", "é"), mean_shares().values(), strict=True):
        assert counts[name] / total == pytest.approx(share, abs=1 / total)


def read_blend(text):
    """As megatron/core 0.19.2 reads --data-args-path: an even count is weights and prefixes."""
    words = text.split()
    assert len(words) % 2 == 0
    weights = [float(word) for word in words[::2]]
    assert all(weight > 0 for weight in weights)
    return dict(zip(words[1::2], weights, strict=True))


def launched(folder, *words):
    """What launch.sh runs, a list of words for each run."""
    shown = subprocess.run(
        ["bash", str(folder / "launch.sh"), "echo", *words], capture_output=True, text=True
    )
    return [line.split() for line in shown.stdout.splitlines()], shown.stderr, shown.returncode


def test_megatron_changes_blends_at_phases(written, tmp_path):
    folder = written("megatron", steps=1000)
    assert read_blend((folder / "phase_1.txt").read_text()) == {
        "PATH/TO/web_text": 0.5,
        "PATH/TO/code": 0.3,
        "PATH/TO/é": 0.2,
    }
    assert read_blend((folder / "phase_2.txt").read_text()) == {
        "PATH/TO/web_text": 0.25,
        "PATH/TO/code": 0.75,
    }
    assert "phase 2 leaves out é: a share of 0" in (folder / "README.md").read_text()
    checkpoint = tmp_path / "ckpt"
    checkpoint.mkdir()
    given = ("--global-batch-size", "8", "--load", str(checkpoint))
    runs, _, code = launched(folder, *given)
    assert code == 0 and len(runs) == 2
    for number, run in enumerate(runs, 1):
        found = dict(zip(run, run[1:], strict=False))
        assert found["--data-args-path"] == f"{folder}/phase_{number}.txt"
        assert found["--phase-transition-iterations"] == "500"
        # Samples, not iterations, which it refuses beside phases.
        assert (found["--train-samples"], found["--lr-decay-samples"]) == ("8000", "8000")
        assert (found["--adam-beta1"], found["--adam-beta2"]) == ("0.9", "0.95")
        assert (found["--adam-eps"], found["--clip-grad"]) == ("1e-08", "1.0")
        assert (found["--weight-decay"], float(found["--lr"])) == ("0.1", pytest.approx(1e-3))


@pytest.mark.parametrize(
    ("iteration", "phases"),
    [("0", [1, 2]), ("499", [1, 2]), ("500", [2]), ("730\n", [2]), ("1000", [])],
)
def test_megatron_goes_on_with_the_phase_of_the_checkpoint(written, tmp_path, iteration, phases):
    folder = written("megatron", steps=1000)
    (tmp_path / "ckpt").mkdir()
    (tmp_path / "ckpt" / "latest_checkpointed_iteration.txt").write_text(iteration)
    runs, _, code = launched(folder, "--global-batch-size=8", f"--load={tmp_path / 'ckpt'}")
    found = [int(re.search(r"phase_(\d)", " ".join(run))[1]) for run in runs]  # pyright: ignore
    assert (found, code) == (phases, 0)


def test_megatron_refuses_what_would_go_wrong(written):
    folder = written("megatron", steps=1000)
    for words, problem in (
        (["--load", "x"], "give --global-batch-size, the sequences of an update"),
        (["--global-batch-size", "8"], "give --save and --load: each phase goes on"),
        (["--train-iters", "5"], "leave --train-iters out: the training has 1000 updates"),
    ):
        runs, said, code = launched(folder, *words)
        assert (runs, code) == ([], 2) and problem in said


@pytest.mark.parametrize("target", ["megatron", "olmo-core", "torchtitan"])
def test_rates_under_names_of_the_trainer(written, static, target):
    module = module_at(written(target) / "metatune_rates.py")
    names = {f"trainer.{i}": [name] for i, name in enumerate(NAMES)}
    made = module.groups(names)
    found = {name: group for group in made for name in group.names}
    assert list(found) == list(names)
    for group, peak, name in zip(found.values(), [0.5e-3, 2e-3, 1e-3, 4e-3], NAMES, strict=True):
        assert group.rate == pytest.approx(peak, rel=1e-12)
        assert group.last == pytest.approx(peak * 0.25, rel=1e-12)
        assert group.numbers == {"betas": (0.9, 0.95), "eps": 1e-8}
        assert group.weight_decay == (0.1 if name == NAMES[0] else 0.0)
        for step in (0, 9, 10, 77, 249):
            assert module.rate_at(group, step, 250) == static.learning_rate(name, step, 250)
    wrapped = ["module.module.trainer.0", "trainer.1", "trainer._orig_mod.2", "trainer.3"]
    assert [g.names for g in module.assigned(made, wrapped).values()] == [[n] for n in names]
    module.refuse_absent(made, wrapped)
    with pytest.raises(ValueError, match="1 names match no parameter of the model: trainer.3"):
        module.refuse_absent(made, wrapped[:3])
    with pytest.raises(ValueError, match="1 parameters are in no group: trainer.4, ...; nearest"):
        module.assigned(made, [*wrapped, "trainer.4"])
    fused = {"trainer.0": [NAMES[0]], "trainer.1": [NAMES[1], NAMES[2]], "trainer.3": [NAMES[3]]}
    with pytest.warns(UserWarning, match="trainer.1: its parts have one rate, off by up to 41.4 %"):
        mean = module.groups(fused, fused="mean")[1]
    assert mean.rate == pytest.approx((2e-3 * 1e-3) ** 0.5, rel=1e-12)
    names["trainer.1"] = [NAMES[1], NAMES[2]]
    del names["trainer.2"]
    names["trainer.3"] = ["model.norm.weigth"]
    with pytest.raises(ValueError) as caught:
        module.groups(names)
    assert (
        "trainer.1: its parts have different rates: model.layers.1.mlp.down_proj.weight 0.002"
        in (str(caught.value))
    )
    assert "model.norm.weigth is not in" in str(caught.value)
    assert "; model.norm.weight?" in str(caught.value)


def test_olmo_core_sources(written):
    sources = json.loads((written("olmo-core") / "sources.json").read_text())
    assert all(source.keys() == {"source_name", "target_ratio", "paths"} for source in sources)
    ratios = {source["source_name"]: source["target_ratio"] for source in sources}
    assert ratios == pytest.approx(mean_shares()) and sum(ratios.values()) == pytest.approx(1)


def test_nemo_automodel(written):
    """param_group_overrides: the first pattern that re.search finds; weights by its own rule."""
    config = load_yaml(written("nemo-automodel"))
    optimizer = config["optimizer"]
    peak = optimizer["lr"]
    assert (optimizer["betas"], optimizer["eps"]) == ([0.9, 0.95], 1e-8)
    assert (optimizer["weight_decay"], config["max_grad_norm"]) == (0.1, 1.0)
    assert config["lr_scheduler"]["lr_decay_steps"] == config["step_scheduler"]["max_steps"] == 100
    for name, rate in zip(NAMES, (0.5e-3, 2e-3, 1e-3, 4e-3), strict=True):
        first = next(
            override
            for override in optimizer["param_group_overrides"]
            if re.search(override["pattern"], name)
        )
        assert first.keys() == {"pattern", "lr_mult", "wd_mult"}
        assert peak * first["lr_mult"] == pytest.approx(rate, rel=1e-12)
        assert first["wd_mult"] == (1.0 if name == NAMES[0] else 0.0)
    domains = config["domain_mixture"]["domains"]
    sampling = np.array([domain["sampling_weight"] for domain in domains])
    objective = np.array([domain["objective_weight"] for domain in domains])
    multiplier = (objective / objective.sum()) / (sampling / sampling.sum())
    assert [domain["name"] for domain in domains] == list(DOMAINS)
    np.testing.assert_allclose(sampling, SHARES.mean(axis=0))
    np.testing.assert_allclose(multiplier / multiplier[2], [0.5, 1.5, 1.0])
    blend = config["dataset"]["paths"]["train"]
    assert [float(weight) for weight in blend[::2]] == sampling.tolist()
    assert blend[1::2] == [domain["path"] for domain in domains]


def test_nemo_automodel_refuses_names_that_miss_its_patterns(written):
    """Groups as its `_build_param_groups` makes them: patterns without a parameter are dropped."""
    import torch

    folder = written("nemo-automodel")
    options = load_yaml(folder)["optimizer"]
    module, name = options.pop("_target_").rsplit(".", 1)
    made = getattr(module_at(folder / f"{module}.py"), name)
    groups = [
        {"params": [torch.nn.Parameter(torch.ones(2))], "lr_mult": each["lr_mult"], "wd_mult": 1.0}
        for each in options.pop("param_group_overrides")
    ]
    assert len(groups) == options["groups"] > 1
    assert len(made(groups, **options).param_groups) == len(groups)
    missing = f"1 of {len(groups)} patterns of param_group_overrides match no parameter"
    with pytest.raises(ValueError, match=missing):
        made(groups[1:], **options)
    rest = {"params": [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]}
    with pytest.raises(ValueError, match="3 parameters of the model have no tuned rate"):
        made([rest, *groups], **options)
    with pytest.raises(ValueError, match="1 parameters of the model have no tuned rate"):
        made(rest["params"][:1], **options)
    assert made(groups[1:], **{**options, "groups": None}).defaults["eps"] == options["eps"]


def test_nemo_automodel_mixes_without_weighing_the_loss(written, static):
    """Only `domain_mixture` forbids packed sequences: it is for loss weights alone."""
    unweighted = dataclasses.replace(static, loss_weights=None)
    config = load_yaml(written("nemo-automodel", artefact=unweighted))
    assert "domain_mixture" not in config
    weights = [float(weight) for weight in config["dataset"]["paths"]["train"][::2]]
    np.testing.assert_allclose(weights, SHARES.mean(axis=0))


@pytest.mark.parametrize("target", ["nemo-automodel", "llm-foundry"])
def test_patterns_find_what_peft_names(make, tmp_path, target):
    saved = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    export(make([saved]), target, tmp_path / "out", lossy=True, sequences_per_step=2048)
    optimizer = load_yaml(tmp_path / "out")["optimizer"]
    if target == "nemo-automodel":
        pattern = optimizer["param_group_overrides"][0]["pattern"]
        found = ["model.layers.0.self_attn.q_proj.lora_A.weight", saved]
    else:
        pattern = optimizer["param_groups"][0]["param_str_match"]
        found = [f"model.{saved.replace('lora_A.', 'lora_A.default.')}", f"model.{saved}"]
    for name in found:
        assert re.search(pattern, name)
        assert not re.search(pattern, name.replace("q_proj", "k_proj"))


def test_mosaic_streaming(written):
    streams = load_yaml(written("mosaic-streaming"), "streams.yaml")["streams"]
    shares = {name: stream["proportion"] for name, stream in streams.items()}
    assert shares == pytest.approx(mean_shares())
    assert all(stream.keys() == {"local", "proportion"} for stream in streams.values())
    assert 'batching_method="stratified"' in (written_text(written, "mosaic-streaming"))


def test_llm_foundry(written):
    config = load_yaml(written("llm-foundry", steps=1000, tokens_per_step=4096))
    groups = config["optimizer"]["param_groups"]
    for name, rate in zip(NAMES, (0.5e-3, 2e-3, 1e-3, 4e-3), strict=True):
        (group,) = [g for g in groups if re.search(g["param_str_match"], f"model.{name}")]
        assert group["lr"] == pytest.approx(rate, rel=1e-12)
        # composer 0.32.1, DecoupledAdamW: θ -= (lr / initial lr) weight_decay θ.
        decay = rate * 0.1 if name == NAMES[0] else 0.0
        assert group["weight_decay"] == pytest.approx(decay, rel=1e-12)
    optimizer = config["optimizer"]
    assert (optimizer["name"], optimizer["weight_decay"]) == ("decoupled_adamw", 0.0)
    assert (optimizer["betas"], optimizer["eps"]) == ([0.9, 0.95], 1e-8)
    clipping = config["algorithms"]["gradient_clipping"]
    assert clipping == {"clipping_type": "norm", "clipping_threshold": 1.0}
    assert config["max_duration"] == f"{1000 * 4096}tok"
    curriculum = config["callbacks"]["curriculum_learning"]
    assert curriculum["duration"] == f"{500 * 4096}tok"
    (second,) = curriculum["schedule"]
    assert second["duration"] == f"{500 * 4096}tok"
    for loader, row in ((config["train_loader"], SHARES[0]), (second, SHARES[1])):
        streams = loader["dataset"]["streams"]
        kept = {name: share for name, share in zip(DOMAINS, row, strict=True) if share > 0}
        assert {n: s["proportion"] for n, s in streams.items()} == kept
        assert loader["dataset"]["batching_method"] == "stratified"


def test_torchtitan(written):
    sources = json.loads((written("torchtitan") / "sources.json").read_text())
    assert all(source.keys() == {"dataset", "dataset_path", "weight"} for source in sources)
    names = [f"tuned_{i}_{name}" for i, name in enumerate(DOMAINS)]
    expected = dict(zip(names, mean_shares().values(), strict=True))
    assert {s["dataset"]: s["weight"] for s in sources} == pytest.approx(expected)


def test_rates_of_zero_make_no_numbers_that_are_none(make, tmp_path):
    rates = LearningRates((0.0,), "constant", {name: np.zeros(1) for name in NAMES})
    artefact = make(NAMES, learning_rates=rates, mixture=None, loss_weights=None)
    for target, exporter in EXPORTERS.items():
        if exporter.capabilities["rates"] != "no":
            export(artefact, target, tmp_path / target)
            for path in (tmp_path / target).iterdir():
                text = path.read_text(encoding="utf-8")
                assert path.suffix == ".py" or not re.search(
                    r"\bNaN\b|Infinity|\.nan\b|\.inf\b", text
                ), path


def test_levanter_reads_domains_as_often_as_the_training_that_shares_are_for(static, tmp_path):
    limits = "tune: {mixture: {max_epochs: 4.0, production_tokens: 1000000}}"
    limited = dataclasses.replace(static, origin=Origin(limits, {}))

    def data(name, steps):
        more = {"steps": steps, "tokens_per_step": 1000, "sequences_per_step": 10}
        export(limited, "levanter", tmp_path / name, lossy=True, **more)
        return load_yaml(tmp_path / name)["data"]

    shorter = data("shorter", 100)
    assert (shorter["experiment_budget"], shorter["target_budget"]) == (100_000, 1_000_000)
    assert "more than\n4 times; yours has 100,000" in (tmp_path / "shorter/README.md").read_text()
    assert not {"experiment_budget", "target_budget"} & data("as long", 1000).keys()


def test_levanter_aligns_stages_to_blocks(written, static):
    """A stage's sequence index must be a multiple of mixture_block_size (marin-levanter 0.2.0)."""
    folder = written("levanter", steps=1000, sequences_per_step=96)
    document = load_yaml(folder)
    assert document["optimizer"] == {"type": "tuned"}
    assert document["trainer"] == {"num_train_steps": 1000}
    data = document["data"]
    (first, before), (second, after) = data["train_weights"]
    # 500 x 96 = 48000, of which 2000 is the largest divisor up to 2048.
    assert (first, second, data["mixture_block_size"]) == (0, 500, 2000)
    assert before == dict(zip(DOMAINS, SHARES[0], strict=True))
    assert after == dict(zip(DOMAINS, SHARES[1], strict=True))
    assert "up to 0 updates away" in (folder / "README.md").read_text()
    with pytest.raises(ArtefactError, match="sequences_per_step: levanter changes shares by seq"):
        export(static, "levanter", folder / "more", lossy=True)
    with pytest.raises(ArtefactError) as both:  # with what --lossy is asked for, not after it
        export(static, "levanter", folder / "more")
    assert "sequences_per_step" in str(both.value) and "`lossy`" in str(both.value)
    with pytest.raises(ArtefactError, match="2 stages are shorter than a block of 64"):
        export(static, "levanter", folder / "more", lossy=True, steps=8, sequences_per_step=1)


def test_maxtext(written):
    folder = written("maxtext", steps=1000)
    config = load_yaml(folder)
    assert config["dataset_type"] == "grain" and config["grain_file_type"] == "arrayrecord"
    first = json.loads((folder / config["grain_train_mixture_config_path"]).read_text())
    assert {name: entry["weight"] for name, entry in first.items()} == dict(
        zip(DOMAINS, SHARES[0], strict=True)
    )
    second = json.loads((folder / "phase_2.json").read_text())
    assert {name: entry["weight"] for name, entry in second.items()} == {
        "web text": 0.25,
        "code": 0.75,
    }
    assert "- update 500: `phase_2.json`" in (folder / "README.md").read_text()


def test_axolotl(written):
    config = load_yaml(written("axolotl", steps=77))
    assert config["plugins"] == ["metatune_axolotl.TunedPlugin"]
    assert (config["max_steps"], config["max_grad_norm"]) == (77, 1.0)


def test_axolotl_keeps_parts_of_data_sets(written, static):
    """As its `int(len(dataset) * weight)` rows (utils/data/sft.py of axolotl 0.21.0)."""
    rows = {"web text": 4000, "code": 700, "é": 50}
    length = {"web text": 100, "code": 300, "é": 1000}
    held = {n: {"documents": k, "tokens": k * length[n]} for n, k in rows.items()}
    known = dataclasses.replace(static, provenance={**static.provenance, "domains": held})
    folder = written("axolotl", artefact=known)
    entries = load_yaml(folder)["datasets"]
    kept = {n: int(rows[n] * e["weight"]) for n, e in zip(rows, entries, strict=True)}
    assert max(entry["weight"] for entry in entries) == 1.0
    tokens = {name: count * length[name] for name, count in kept.items()}
    for name, share in mean_shares().items():
        # A row of `é`, of which 10 % is kept or so, is up to a fiftieth of it.
        assert tokens[name] / sum(tokens.values()) == pytest.approx(share, rel=0.02), name
    text = (folder / "README.md").read_text()
    stay = sum(rows[n] * e["weight"] for n, e in zip(rows, entries, strict=True))
    assert f"are never read: of the tuned data {stay:,.0f} stay" in text
    alike = load_yaml(written("axolotl", overwrite=True))["datasets"]
    shares = {n: e["weight"] for n, e in zip(DOMAINS, alike, strict=True)}
    largest = max(mean_shares().values())
    assert shares == pytest.approx({n: s / largest for n, s in mean_shares().items()})


def test_llama_factory(written, static):
    config = load_yaml(written("llama-factory"))
    assert config["dataset"].split(",") == list(DOMAINS)
    # `interleave_under` ends a pass with the data set that ends first.
    assert config["mix_strategy"] == "interleave_over"
    shares = [float(share) for share in config["interleave_probs"].split(",")]
    np.testing.assert_allclose(shares, SHARES.mean(axis=0), rtol=1e-12)
    assert sum(shares) == pytest.approx(1, abs=1e-15)
    comma = dataclasses.replace(static.mixture, domains=("a,b", "code", "c"))
    changed = dataclasses.replace(static, mixture=comma, loss_weights=None)
    with pytest.raises(ArtefactError, match="mixture.domains = 'a,b': holds a comma"):
        written("llama-factory", artefact=changed, overwrite=True)


def test_nanotron_counts_updates_from_one(written):
    stages = load_yaml(written("nanotron", steps=1000))["data_stages"]
    assert [stage["start_training_step"] for stage in stages] == [1, 501]
    assert len({stage["name"] for stage in stages}) == 2
    for stage, row in zip(stages, SHARES, strict=True):
        dataset = stage["data"]["dataset"]
        assert dataset["dataset_folder"] == ["PATH/TO/web_text", "PATH/TO/code", "PATH/TO/é"]
        assert dataset["dataset_weights"] == row.tolist()


def test_litdata(written):
    weights = json.loads((written("litdata") / "weights.json").read_text())
    assert weights == pytest.approx(mean_shares())


@pytest.fixture
def grain_mixed(written, monkeypatch):
    folder = written("grain")
    monkeypatch.syspath_prepend(str(folder))
    for name in ("metatune_schedules", "metatune_mixture"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    spec = importlib.util.find_spec("metatune_mixture")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module.Mixed
    sys.modules.pop("metatune_schedules", None)


def test_grain_reads_a_source_of_random_access(grain_mixed, static):
    sources = {name: [{"domain": name, "i": i} for i in range(50)] for name in DOMAINS}
    mixed = grain_mixed(sources, total_steps=10, batch_size=400)
    assert len(mixed) == 4000
    drawn = [mixed[i] for i in range(len(mixed))]
    assert drawn[1234] == mixed[1234]
    for rows, expected in ((drawn[:2000], SHARES[0]), (drawn[2000:], SHARES[1])):
        for domain, share in zip(DOMAINS, expected, strict=True):
            found = sum(row["domain"] == domain for row in rows) / 2000
            assert abs(found - share) <= 3 * np.sqrt(share * (1 - share) / 2000)
    for domain, weight in zip(DOMAINS, (0.5, 1.5, 1.0), strict=True):
        own = [row for row in drawn if row["domain"] == domain]
        assert [row["i"] for row in own] == [i % 50 for i in range(len(own))]
        assert {float(row["loss_weight"]) for row in own} == {weight}
    with pytest.raises(IndexError):
        mixed[4000]
    with pytest.raises(ValueError, match=r"sources \['code'\]: must be"):
        grain_mixed({"code": []}, 10, 4)


def test_grain_itself_takes_the_source(grain_mixed):
    import grain

    sources = {name: [{"i": i} for i in range(50)] for name in DOMAINS}
    mixed = grain_mixed(sources, total_steps=10, batch_size=4)
    dataset = grain.MapDataset.source(mixed)
    assert [dataset[i] for i in range(40)] == [mixed[i] for i in range(40)]


def test_levanter_says_how_far_its_whole_sequences_are(written):
    folder = written("levanter", sequences_per_step=2048)
    shares = dict(zip(DOMAINS, SHARES[0], strict=True))
    counts = {"web text": 1024 + 1, "code": 614, "é": 409}  # as int(share x 2048), the rest to one
    off = max(abs(counts[name] / 2048 - share) for name, share in shares.items())
    assert f"off by up to {off:.3g}, and a share below 0.000488 is 0" in (
        (folder / "README.md").read_text()
    )
