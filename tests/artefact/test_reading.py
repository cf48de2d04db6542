import json
import math

import pytest
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from metatune.artefact import ArtefactError, load, write
from metatune.artefact.sections import learning_rates as rates_module
from metatune.artefact.writing import sha256

CURE = "; take the artefact anew from the run that wrote it"
NUMBER = "must be a finite number of 0 or above"


def fault_of(path):
    with pytest.raises(ArtefactError) as caught:
        load(path)
    return str(caught.value)


def test_found_by_file_by_folder_and_by_run(make, tmp_path):
    file = write(tmp_path / "run" / "artefact", make(), "")
    for path in (file, file.parent, tmp_path / "run", str(tmp_path / "run")):
        assert load(path).horizon_steps == 20


def test_nothing_there(tmp_path):
    looked = ", ".join(str(tmp_path / place) for place in ("", "tuned.json", "artefact/tuned.json"))
    assert fault_of(tmp_path) == (
        f"{tmp_path}: holds no artefact; looked for {looked}; "
        "give a run folder of `metatune fit`, an artefact folder, or a tuned.json"
    )
    assert fault_of(tmp_path / "none") == (
        f"{tmp_path / 'none'}: isn't there; "
        "give a run folder of `metatune fit`, an artefact folder, or a tuned.json"
    )


def test_not_json_at_all(tmp_path):
    file = tmp_path / "tuned.json"
    file.write_text('{"format": ')
    message = "not JSON (line 1, column 12: Expecting value)"
    assert fault_of(file) == f"{file}: {message}{CURE}"
    file.write_bytes(b'"\xff"')
    assert fault_of(file) == f"{file}: not UTF-8 text (invalid start byte){CURE}"


@pytest.mark.parametrize("text", ["[]", '{"format": "other"}'])
def test_not_an_artefact(tmp_path, text):
    file = tmp_path / "tuned.json"
    file.write_text(text)
    found = json.loads(text) and "other" or None
    assert fault_of(file) == (
        f"{file}: format = {found!r}: must be 'metatune-artefact'; "
        "give the tuned.json of a run of `metatune fit`"
    )


@pytest.mark.parametrize(
    ("keys", "to", "message"),
    [
        (
            ["version"],
            2,
            "version = 2: an unknown version, this metatune reads version 1; upgrade metatune",
        ),
        (["mixture"], KeyError, f"artefact.mixture: this key must be there{CURE}"),
        (
            ["optimizer", "kind"],
            {"a": 1},  # which no table could be asked for
            "optimizer.kind = {'a': 1}: must be one of adamw, sgd, lion, muon, adafactor, "
            f"schedule_free_adamw, adopt, adamh, muonh, soap, normuon{CURE}",
        ),
        (
            ["learning_rates", "knots"],
            KeyError,
            f"learning_rates.knots: this key must be there{CURE}",
        ),
        (
            ["horizon", "epochs"],
            3,
            f"horizon.epochs = 3: an unknown key; allowed are steps, tokens{CURE}",
        ),
        (
            ["horizon", "tokens"],
            1.5,
            f"horizon.tokens = 1.5: must be a whole number of 1 or above{CURE}",
        ),
        (
            ["learning_rates", "unit"],
            "relative",
            f"learning_rates.unit = 'relative': must be 'absolute, per update'{CURE}",
        ),
        (
            ["learning_rates", "interpolation"],
            "cubic",
            f"learning_rates.interpolation = 'cubic': must be constant or linear{CURE}",
        ),
        (
            ["learning_rates", "knots", 0],
            0.01,
            f"learning_rates.knots[0] = 0.01: must be 0, the first update{CURE}",
        ),
        (
            ["learning_rates", "knots", 3],
            0.1,
            f"learning_rates.knots[3] = 0.1: must be above the knot before it, 0.1{CURE}",
        ),
        (
            ["learning_rates", "knots", 19],
            1.0,
            f"learning_rates.knots[19] = 1.0: must be a fraction below 1{CURE}",
        ),
        (
            ["learning_rates", "parameters"],
            [],
            f"learning_rates.parameters = []: must be an object{CURE}",
        ),
        (
            ["learning_rates", "parameters", "b.weight", 4],
            -0.5,
            f"learning_rates.parameters.b.weight[4] = -0.5: {NUMBER}{CURE}",
        ),
        (
            ["learning_rates", "parameters", "b.weight", 4],
            math.nan,
            f"learning_rates.parameters.b.weight[4] = nan: {NUMBER}{CURE}",
        ),
        (
            ["learning_rates", "parameters", "b.weight"],
            [0.1],
            "learning_rates.parameters.b.weight, length = 1: "
            f"must have one for each of 20 knots{CURE}",
        ),
        (
            ["learning_rates", "multipliers", "groups", "all", 0],
            "1",
            f"learning_rates.multipliers.groups.all[0] = '1': {NUMBER}{CURE}",
        ),
        (
            ["learning_rates", "multipliers", "members", "all", 0],
            "d",
            "learning_rates.multipliers.members.all = 'd': "
            f"must be a name of learning_rates.parameters{CURE}",
        ),
        (
            ["mixture", "weights", 1],
            [0.5, 0.25, 0.125],
            f"mixture.weights[1], sum = 0.875: shares must sum to 1{CURE}",
        ),
        (
            ["mixture", "weights", 1],
            [0.5, 0.5],
            f"mixture.weights[1], length = 2: must have one for each of 3 domains{CURE}",
        ),
        (
            ["mixture", "weights"],
            [[0.5, 0.25, 0.25]],
            f"mixture.weights, length = 1: must have a row for each of the 4 knots{CURE}",
        ),
        (
            ["mixture", "domains", 1],
            "code",
            f"mixture.domains = 'code': stands there twice; each name may once{CURE}",
        ),
        (
            ["mixture", "domains"],
            [],
            f"mixture.domains = []: must name at least one of the domains{CURE}",
        ),
        (
            ["loss_weights", "weights", 0],
            [1.0, 0.25, 0.25],
            "loss_weights.weights[0], mean = 0.5: "
            f"loss weights must average 1 over the domains{CURE}",
        ),
        (
            ["optimizer", "kind"],
            "rmsprop",
            "optimizer.kind = 'rmsprop': must be one of adamw, sgd, lion, muon, adafactor, "
            f"schedule_free_adamw, adopt, adamh, muonh, soap, normuon{CURE}",
        ),
        (["optimizer", "eps"], -1.0, f"optimizer.eps = -1.0: {NUMBER}{CURE}"),
        (
            ["optimizer", "clip_norm"],
            0,
            f"optimizer.clip_norm = 0: must be a number above 0, or null{CURE}",
        ),
        (
            ["optimizer", "decayed", 0],
            "d",
            f"optimizer.decayed = 'd': must be a name of learning_rates.parameters{CURE}",
        ),
        (["provenance"], 1, f"provenance = 1: must be an object{CURE}"),
        (
            ["result", "objective_after"],
            math.inf,
            "result.objective_after = inf: "
            f"must be a string, a finite number, true, false, null, a list or an object{CURE}",
        ),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, list) else "",
)
def test_a_wrong_value_is_named(make, tmp_path, edit, keys, to, message):
    file = write(tmp_path / "a", make(), "")
    edit(file, *keys, to=to)
    assert fault_of(file) == f"{file}: {message}"


def test_all_faults_together(make, tmp_path, edit):
    file = write(tmp_path / "a", make(), "")
    edit(file, "horizon", "steps", to=0)
    edit(file, "optimizer", "b1", to=None)
    assert fault_of(file).splitlines() == [
        f"{file}: 2 faults",
        f"  horizon.steps = 0: must be a whole number of 1 or above{CURE}",
        f"  optimizer.b1 = None: {NUMBER}{CURE}",
    ]


def test_an_edited_file_is_known_by_its_hash(make, tmp_path, edit):
    file = write(tmp_path / "a", make(), "")
    stated = json.loads(file.read_text())["integrity"]["sha256"]
    edit(file, "learning_rates", "parameters", "b.weight", 4, to=0.5)
    text = fault_of(file)
    assert text.startswith(f"{file}: integrity.sha256 = {stated!r}: the hash of the content is ")
    assert text.endswith(f": the file was changed after it was written{CURE}")


def test_white_space_is_no_change(make, tmp_path):
    file = write(tmp_path / "a", make(), "")
    file.write_text(json.dumps(json.loads(file.read_text()), indent=7, sort_keys=True))
    assert load(file).horizon_steps == 20


@pytest.fixture
def in_tensor(make, tmp_path, monkeypatch):
    monkeypatch.setattr(rates_module, "READABLE_NUMBERS", 0)
    return write(tmp_path / "a", make(), "")


def test_a_missing_tensor_file_is_named_without_a_list_of_files(in_tensor, edit):
    edit(in_tensor, "integrity", "files", to=KeyError, sign=True)
    beside = in_tensor.with_name("tuned.safetensors")
    beside.unlink()
    assert fault_of(in_tensor) == (
        f"{in_tensor}: tensors.file = 'tuned.safetensors': not found at {beside}, where the "
        "numbers must be that tuned.json doesn't hold; copy it together with tuned.json"
    )


def test_a_damaged_tensor_file_is_known_by_its_hash(in_tensor, edit):
    edit(in_tensor, "integrity", "files", to=KeyError, sign=True)
    beside = in_tensor.with_name("tuned.safetensors")
    content = bytearray(beside.read_bytes())
    content[-1] ^= 1
    beside.write_bytes(content)
    stated = json.loads(in_tensor.read_text())["tensors"]["sha256"]
    assert fault_of(in_tensor) == (
        f"{in_tensor}: tensors.sha256 = {stated!r}: the hash of {beside} is "
        f"{sha256(bytes(content))}: it isn't the one that was written{CURE}"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda held: {"rates": held}, "tensors = ['rates']: must hold 'learning_rates'"),
        (
            lambda held: {"learning_rates": held[:2].copy()},
            "learning_rates.parameters = 'float64 [2, 20]': "
            "must be float64 [3, 20], for [parameters, knots]",
        ),
        (
            lambda held: {"learning_rates": -held},
            "learning_rates.parameters.c.bias[0] = -",
        ),
    ],
)
def test_a_tensor_of_another_writer_is_checked(in_tensor, edit, change, message):
    beside = in_tensor.with_name("tuned.safetensors")
    content = save_tensors(change(load_tensors(beside.read_bytes())["learning_rates"]))
    beside.write_bytes(content)
    edit(in_tensor, "tensors", "sha256", to=sha256(content), sign=True)
    text = fault_of(in_tensor)
    assert text.startswith(f"{beside}: ") and message in text and text.endswith(CURE)


def test_tensor_names_are_checked(in_tensor, edit):
    edit(in_tensor, "learning_rates", "parameters", "tensor", to="other")
    assert fault_of(in_tensor) == (
        f"{in_tensor}: learning_rates.parameters.tensor = 'other': must be 'learning_rates'{CURE}"
    )
