"""The safetensors files of a folder as one set of named tensors, read one at a time."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from metatune.recipe import file_errors
from metatune.recipe.bounds import read_json
from metatune.recipe.faults import Fault, RecipeError

PATH = "model.pretrained"
"""The recipe's field, for faults."""
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
CONVERT = (
    'python -c "from transformers import AutoModelForCausalLM as M; '
    "M.from_pretrained('{0}').save_pretrained('{0}-safetensors')\""
)
"""The line that converts a pickled checkpoint; it needs torch, and trust in the file."""
DEQUANTISE = (
    'python -c "from transformers import AutoModelForCausalLM as M, Mxfp4Config as Q; '
    "M.from_pretrained('{0}', dtype='bfloat16', quantization_config=Q(dequantize=True))"
    ".save_pretrained('{0}-bf16')\""
)
"""The line that makes bfloat16 of an mxfp4 checkpoint; it needs torch."""
FLOATS = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class Tensors:
    """Open safetensors files.

    Attributes:
        files: the open file that holds each name.
    """

    files: Mapping[str, Any]

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape; nothing of it is read."""
        return tuple(self.files[name].get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """A tensor's dtype in the words of safetensors; nothing of it is read."""
        return self.files[name].get_slice(name).get_dtype()

    def read(self, name: str) -> np.ndarray:
        """A tensor in the dtype of the file."""
        return self.files[name].get_tensor(name)


def open_folder(folder: Path, opened: ExitStack) -> Tensors:
    """Opens the weights of a folder.

    Args:
        folder: holds `model.safetensors`, or the files that its index names.
        opened: closes the files.

    Raises:
        RecipeError: there are none, or only pickles; a file is missing or damaged.
    """
    files, faults = {}, []
    for file in weight_files(folder):
        try:
            tensors = opened.enter_context(safe_open(file, framework="numpy", backend="pread"))
        except (SafetensorError, OSError) as error:
            problem = f"{file.name} is truncated, damaged or missing: {_why(error, str)}"
            faults.append(Fault(PATH, str(folder), problem, "fetch it again"))
            continue
        for name in tensors.keys():
            files[name] = tensors
    if faults:
        raise RecipeError(str(folder), faults)
    return Tensors(files)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's weights, one or, with an index, several.

    Args:
        folder: of the model.

    Raises:
        RecipeError: there are none, or the index can't be read.
    """
    # In transformers' order, so that a folder with both is the same model there.
    if (folder / SINGLE).exists():
        return [folder / SINGLE]
    index = folder / INDEX
    if not index.exists():
        raise RecipeError(str(folder), [_without_weights(folder)])
    try:
        named = set(read_json(index)["weight_map"].values())
        if not all(isinstance(name, str) and Path(name).name == name for name in named):
            raise ValueError("weight_map must name files beside it")
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        problem = f"{INDEX} is no index of safetensors files: {_why(error, repr)}"
        raise RecipeError(
            str(folder), [Fault(PATH, str(folder), problem, "fetch it again")]
        ) from error
    return [folder / name for name in sorted(named)]


def weights_sha256(folder: Path) -> str:
    """The hash of a folder's weights: of their files' bytes, in the order of the files' names.

    Args:
        folder: of the model.

    Raises:
        RecipeError: there are none.
    """
    digest = hashlib.sha256()
    for file in weight_files(folder):
        for block in _blocks(file):
            digest.update(block)
    return digest.hexdigest()


def _why(error: Exception, words: Callable[[Exception], str]) -> str:
    return file_errors.problem(error) if isinstance(error, OSError) else words(error)


def _blocks(file: Path, size: int = 2**22) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while block := stream.read(size):
            yield block


def _without_weights(folder: Path) -> Fault:
    pickles = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
    if pickles:
        problem = f"holds its weights as {pickles[0]}, a pickle, which runs code when it is read"
        cure = f"if you trust it, convert it where torch is installed: {CONVERT.format(folder)}"
    else:
        problem = f"holds neither {SINGLE} nor {INDEX}"
        cure = f"if its weights are pickled, convert it: {CONVERT.format(folder)}"
    return Fault(PATH, str(folder), problem, cure)
