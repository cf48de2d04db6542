"""Reads what an artefact is to be used for: the folder of a model, or a recipe."""

from contextlib import ExitStack
from pathlib import Path

import jax

from metatune.artefact.comparison import Counterpart
from metatune.data.tokenizers import tokenizer
from metatune.fit.making import horizon, provenance
from metatune.inner import prepare_file
from metatune.models import CONFIG, read_config, shapes_by_name
from metatune.models.safetensors_files import open_folder
from metatune.recipe import shipped, writing


def counterpart(source: str) -> Counterpart:
    """The names and hashes of `source`.

    Args:
        source: a folder with a model's safetensors and, perhaps, its tokenizer; otherwise a
            recipe's file or the name of a shipped one.

    Raises:
        RecipeError: the folder has no readable weights, or the recipe is faulty.
    """
    if Path(source).is_dir():
        return _of_folder(Path(source))
    training = prepare_file(shipped.find(source), ())
    trained = shapes_by_name(
        training.names, jax.eval_shape(training.initialise, jax.random.key(0)).params
    )
    made_of, recipe = provenance(training), training.recipe
    return Counterpart(
        source,
        tuple(trained),
        training.model.shapes() | trained,
        made_of["tokenizer_sha256"],
        tuple(training.corpus.names),
        recipe=writing.to_yaml(recipe),
        recipe_sha256=made_of["recipe_sha256"],
        data_sha256=made_of["data_sha256"],
        model_config=made_of["model_config"],
        weights_sha256=made_of.get("weights_sha256"),
        horizon=horizon(recipe),
    )


def _of_folder(folder: Path) -> Counterpart:
    with ExitStack() as opened:
        tensors = open_folder(folder, opened)
        shapes = {name: tensors.shape(name) for name in tensors.files}
    has_tokenizer = (folder / "tokenizer.json").is_file()
    sha256 = tokenizer(str(folder)).sha256 if has_tokenizer else None
    config = read_config(folder) if (folder / CONFIG).is_file() else None
    return Counterpart(str(folder), tuple(shapes), shapes, sha256, None, model_config=config)
