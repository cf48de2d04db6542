"""Models with the weights of Hugging Face checkpoints: loading and saving."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from metatune.models.families import FAMILIES
from metatune.models.family import Family
from metatune.models.hub import locate
from metatune.models.language_model import LanguageModel, build
from metatune.models.names import ParameterNames
from metatune.models.safetensors_files import (
    DEQUANTISE,
    FLOATS,
    PATH,
    SINGLE,
    Tensors,
    open_folder,
)
from metatune.recipe import file_errors
from metatune.recipe.bounds import read_json
from metatune.recipe.faults import Fault, RecipeError
from metatune.recipe.schema import Chunk

CONFIG = "config.json"
HEAD = "lm_head.weight"
"""What we call the unembedding's weight, and the embedding's."""
EMBEDDING = "model.embed_tokens.weight"


def load_pretrained(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    vocab_size: int | None = None,
    dtype: str = "float32",
    remat: bool = False,
    attention_chunk: Chunk = "auto",
    loss_chunk: Chunk = "auto",
) -> tuple[LanguageModel, dict[str, Any]]:
    """A model and its parameters, from a folder or a hub.

    Tensor by tensor, so that hardly more than the parameters is in memory.

    Args:
        source: a folder with `config.json` and safetensors files, or the id of such a model on
            the Hugging Face hub.
        revision: branch, tag or commit on the hub.
        vocab_size: the tokenizer's, which the model's must reach; None for no tokenizer.
        dtype: compute type; parameters are float32 whatever the file's is.
        remat: recompute each block in the backward pass.
        attention_chunk: as of `build`.
        loss_chunk: as of `build`.

    Returns:
        The model, and its parameters as nested dictionaries of float32 arrays.

    Raises:
        RecipeError: with all faults of the config, or all of the weights.
    """
    folder = locate(os.fspath(source), revision)
    config = read_config(folder)
    if quantised := _quantised(folder, config):
        raise RecipeError(str(folder), [quantised])
    model = build(
        config,
        vocab_size=vocab_size,
        dtype=dtype,
        remat=remat,
        attention_chunk=attention_chunk,
        loss_chunk=loss_chunk,
        path=f"{PATH}.config",
    )
    with ExitStack() as opened:
        return model, _read_params(model, folder, open_folder(folder, opened))


def save_pretrained(
    path: str | os.PathLike[str],
    model: LanguageModel,
    params: Mapping[str, Any],
    special_tokens: Mapping[str, int | None] = MappingProxyType({}),
) -> None:
    """Writes what transformers' `AutoModelForCausalLM.from_pretrained` loads.

    Args:
        path: the folder; it and what is above it are made. `config.json` and `model.safetensors`
            in it are replaced once the new ones are complete.
        model: the language model.
        params: its parameters.
        special_tokens: of `config.json` where the model's config doesn't name them, such as
            `eos_token_id`; without, transformers takes those of the family's first model.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    config = {name: value for name, value in model.config_json().items() if name != "torch_dtype"}
    config = {**special_tokens, **config} | {
        "architectures": [FAMILIES[model.family].causal_class],
        "dtype": "float32",
        "vocab_size": model.config.vocab_size,
    }
    tensors: dict[str, np.ndarray] = {}
    for leaf, array in zip(jax.tree.leaves(model.names()), jax.tree.leaves(params), strict=True):
        whole = np.asarray(array, np.float32)
        parts = whole if leaf.stacked else whole[None]
        tensors |= dict(zip(leaf.names, map(np.ascontiguousarray, parts), strict=True))
    partial = {name: folder / f".{name}.partial" for name in (SINGLE, CONFIG)}
    # Transformers asks for the format.
    save_file(tensors, partial[SINGLE], metadata={"format": "pt"})
    partial[CONFIG].write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name, written in partial.items():
        os.replace(written, folder / name)


def read_config(folder: Path) -> Mapping[str, Any]:
    """The fields of a folder's `config.json`."""
    file = folder / CONFIG
    try:
        config = read_json(file)
        if not isinstance(config, Mapping):
            raise ValueError("not a mapping")
    except (OSError, ValueError) as error:
        why = file_errors.problem(error) if isinstance(error, OSError) else error
        problem = f"{CONFIG} can't be read as a model's config: {why}"
        cure = "write a folder, or an id, of a model in Hugging Face's format"
        raise RecipeError(str(folder), [Fault(PATH, str(folder), problem, cure)]) from error
    return config


def _quantised(folder: Path, config: Mapping[str, Any]) -> Fault | None:
    """The fault of a checkpoint that holds its matrices in a few bits a number."""
    given = config.get("quantization_config")
    if given is None:
        return None
    method = given.get("quant_method") if isinstance(given, Mapping) else given
    problem = "is of weights of a few bits, which have no derivatives; must be left out"
    cure = "take the model's weights in bfloat16 or wider"
    if method == "mxfp4":
        cure = f"convert it where torch is installed: {DEQUANTISE.format(folder)}"
    return Fault(f"{PATH}.config.quantization_config.quant_method", method, problem, cure)


def _read_params(model: LanguageModel, folder: Path, tensors: Tensors) -> dict[str, Any]:
    """The parameters, in float32, after a look at the names and shapes of all tensors."""
    family, names = FAMILIES[model.family], model.names()
    shapes = model.init_shapes()
    expected = {
        name: leaf.shape[named.stacked :]
        for named, leaf in zip(jax.tree.leaves(names), jax.tree.leaves(shapes), strict=True)
        for name in named.names
    }
    held: dict[str, str] = {}
    twice: list[str] = []
    for name in tensors.files:
        known = family.normalised(name)
        if known is not None and held.setdefault(known, name) != name:
            twice += [name]
    head = None
    if model.config.tie_word_embeddings:
        head = held.pop(family.checkpoint_name(HEAD), None)
        if head is not None and family.checkpoint_name(EMBEDDING) not in held:
            held[family.checkpoint_name(EMBEDDING)], head = (
                head,
                None,
            )
    faults = [
        fault
        for what, found in {
            "lacks": expected.keys() - held.keys(),
            "has, though the model hasn't,": [held[name] for name in held.keys() - expected.keys()],
            "has two spellings of": twice,
        }.items()
        if found
        for fault in [_fault(folder, f"{what} {_summary(found)}")]
    ]
    both = expected.keys() & held.keys()
    wrong = [name for name in both if tensors.shape(held[name]) != expected[name]]
    if wrong:
        shaped = (f"{n} {list(tensors.shape(held[n]))}, not {list(expected[n])}" for n in wrong)
        faults.append(
            _fault(folder, f"has other shapes than its config: {'; '.join(sorted(shaped))}")
        )
    narrow = {held[name]: tensors.dtype(held[name]) for name in both}
    narrow = {name: dtype for name, dtype in narrow.items() if dtype not in FLOATS}
    if narrow:
        dtypes = ", ".join(sorted(set(narrow.values())))
        problem = f"holds {_summary(narrow)} as {dtypes}; must be one of {', '.join(FLOATS)}"
        faults.append(_fault(folder, problem))
    if not faults and head is not None:
        faults += _untied(folder, family, tensors, head, held)
    if faults:
        raise RecipeError(str(folder), faults)

    def leaf(named: ParameterNames, shape: jax.ShapeDtypeStruct) -> jax.Array:
        out = np.empty(shape.shape, np.float32)
        parts = out if named.stacked else out[None]
        for index, name in enumerate(named.names):
            parts[index] = tensors.read(held[name])
        return jnp.asarray(out)

    return jax.tree.map(leaf, names, shapes)


def _untied(
    folder: Path, family: Family, tensors: Tensors, head: str, held: Mapping[str, str]
) -> list[Fault]:
    """A fault if a tied model's file holds an unembedding that isn't the embedding."""
    embedding = tensors.read(held[family.checkpoint_name(EMBEDDING)])
    if np.array_equal(tensors.read(head), embedding):
        return []
    problem = f"has a {head} that isn't its embedding, though tie_word_embeddings is true"
    return [_fault(folder, problem)]


def _fault(folder: Path, problem: str) -> Fault:
    return Fault(PATH, str(folder), problem, "take weights that belong to its config.json")


def _summary(names: Iterable[str]) -> str:
    """Names in one line, those that differ by the layer's number alone in one."""
    layers: dict[str, list[int]] = {}
    for name in names:
        number = re.search(r"(?<=\.)\d+(?=\.)", name)
        key = re.sub(r"(?<=\.)\d+(?=\.)", "{}", name, count=1)
        layers.setdefault(key, []).extend([int(number[0])] if number else [])
    return ", ".join(
        key.replace("{}", "{" + ",".join(map(str, sorted(found))) + "}") if found else key
        for key, found in sorted(layers.items())
    )
