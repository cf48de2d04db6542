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

from metatune.artefact import ArtefactError, LearningRates, LossWeights, Mixture, Multipliers
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
    shown = subprocess.run(
        ["bash", str(folder / "launch.sh"), "echo", "--load", "CKPT"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.splitlines() == [
        f"--load CKPT --data-args-path {folder}/phase_{n}.txt --phase-transition-iterations 500"
        for n in (1, 2)
    ]


@pytest.mark.parametrize("target", ["megatron", "olmo-core", "torchtitan"])
def test_rates_under_names_of_the_trainer(written, target):
    module = module_at(written(target) / "metatune_rates.py")
    names = {f"trainer.{i}": [name] for i, name in enumerate(NAMES)}
    found = {
        name: (group.rate, group.last) for group in module.groups(names) for name in group.names
    }
    expected = [0.5e-3, 2e-3, 1e-3, 4e-3]
    assert list(found) == list(names)
    for (rate, last), peak in zip(found.values(), expected, strict=True):
        assert rate == pytest.approx(peak, rel=1e-12)
        assert last == pytest.approx(peak * 0.25, rel=1e-12)
    group = module.groups(names)[1]
    assert re.search(group.pattern, "trainer.1") and not re.search(group.pattern, "trainer.11")
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


def test_olmo_core_gives_every_update_its_rate(written, static):
    """As olmo_core 3.0.0's ComposableScheduler, which counts an update before it is made."""
    folder = written("olmo-core", steps=250)
    stages = json.loads((folder / "shared_schedule.json").read_text())
    assert all(stage.keys() <= STAGE_FIELDS for stage in stages)
    assert sum(stage["duration"] for stage in stages) == 250
    assert len(stages) < 10
    for step in range(250):
        at, number = step + 1, 0
        while at > stages[number]["duration"]:
            at -= stages[number]["duration"]
            number += 1
        stage = stages[number]
        along = at / stage["duration"]
        fraction = (1 - along) * stage["start_lr_fraction"] + along * stage["end_lr_fraction"]
        assert 1e-3 * fraction == pytest.approx(
            static.learning_rate("model.layers.11.mlp.down_proj.weight", step, 250), rel=1e-9
        )
    sources = json.loads((folder / "sources.json").read_text())
    assert all(source.keys() == {"source_name", "target_ratio", "paths"} for source in sources)
    ratios = {source["source_name"]: source["target_ratio"] for source in sources}
    assert ratios == pytest.approx(mean_shares()) and sum(ratios.values()) == pytest.approx(1)


STAGE_FIELDS = {"duration", "shape", "start_lr_fraction", "end_lr_fraction"}


def test_nemo_automodel(written):
    """param_group_overrides: the first pattern that re.search finds; weights by its own rule."""
    folder = written("nemo-automodel")
    config = load_yaml(folder)
    said = re.search(r"must be (\S+) at its peak", (folder / "README.md").read_text())
    peak = float(said[1]) if said else np.nan
    for name, rate in zip(NAMES, (0.5e-3, 2e-3, 1e-3, 4e-3), strict=True):
        first = next(
            override
            for override in config["optimizer"]["param_group_overrides"]
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


def test_mosaic_streaming(written):
    streams = load_yaml(written("mosaic-streaming"), "streams.yaml")["streams"]
    shares = {name: stream["proportion"] for name, stream in streams.items()}
    assert shares == pytest.approx(mean_shares())
    assert all(stream.keys() == {"local", "proportion"} for stream in streams.values())


def test_llm_foundry(written):
    config = load_yaml(written("llm-foundry", steps=1000, tokens_per_step=4096))
    groups = config["optimizer"]["param_groups"]
    for name, rate in zip(NAMES, (0.5e-3, 2e-3, 1e-3, 4e-3), strict=True):
        (group,) = [g for g in groups if re.search(g["param_str_match"], f"model.{name}")]
        assert group["lr"] == pytest.approx(rate, rel=1e-12)
        assert group["weight_decay"] == (0.1 if name == NAMES[0] else 0.0)
    curriculum = config["callbacks"]["curriculum_learning"]
    assert curriculum["duration"] == f"{500 * 4096}tok"
    (second,) = curriculum["schedule"]
    assert second["duration"] == f"{500 * 4096}tok"
    for loader, row in ((config["train_loader"], SHARES[0]), (second, SHARES[1])):
        streams = loader["dataset"]["streams"]
        assert {n: s["proportion"] for n, s in streams.items()} == dict(
            zip(DOMAINS, row, strict=True)
        )


def test_torchtitan(written):
    sources = json.loads((written("torchtitan") / "sources.json").read_text())
    assert all(source.keys() == {"dataset", "dataset_path", "weight"} for source in sources)
    assert {s["dataset"]: s["weight"] for s in sources} == pytest.approx(mean_shares())


def test_levanter_aligns_stages_to_blocks(written, static):
    """A stage's sequence index must be a multiple of mixture_block_size (marin-levanter 0.2.0)."""
    folder = written("levanter", steps=1000, sequences_per_step=96)
    data = load_yaml(folder)["data"]
    block = data["mixture_block_size"]
    (first, before), (second, after) = data["train_weights"]
    assert (first, block) == (0, 2048)
    assert second * 96 % block == 0
    assert abs(second - 500) <= 2048 // 32 / 2
    assert before == dict(zip(DOMAINS, SHARES[0], strict=True))
    assert after == dict(zip(DOMAINS, SHARES[1], strict=True))
    assert f"up to {abs(second - 500)} updates away" in (folder / "README.md").read_text()
    with pytest.raises(ArtefactError, match="--sequences-per-step: Levanter changes"):
        export(static, "levanter", folder / "more", lossy=True)
    with pytest.raises(ArtefactError, match="2 stages are shorter than a block of 256"):
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
    config = load_yaml(written("axolotl"))
    assert config["embedding_lr"] == pytest.approx(0.5e-3)
    assert config["learning_rate"] == pytest.approx(4e-3)
    for name, rate in ((NAMES[1], 2e-3), (NAMES[2], 1e-3)):
        (group,) = [g for g in config["lr_groups"] if any(m in name for m in g["modules"])]
        assert group.keys() == {"name", "modules", "lr"}
        assert group["lr"] == pytest.approx(rate)


def test_llama_factory(written, static):
    config = load_yaml(written("llama-factory"))
    assert config["dataset"].split(",") == list(DOMAINS)
    assert config["mix_strategy"].startswith("interleave")
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
