"""Where a pretrained model's files lie: a folder, or one that is fetched from a hub."""

from pathlib import Path

from metatune.models.safetensors_files import PATH
from metatune.recipe.faults import Fault, RecipeError

WANTED = ["*.json", "*.safetensors"]
"""All that is ever fetched: neither pickles nor code."""


def locate(source: str, revision: str | None = None) -> Path:
    """The folder of a pretrained model.

    Args:
        source: a folder, or the id of a model on the Hugging Face hub. With `HF_HUB_OFFLINE` set
            the hub's cache on this machine is looked at, and nothing else.
        revision: branch, tag or commit on the hub; None for its main branch.

    Raises:
        RecipeError: there is no such folder, or the hub can't give one.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        if revision is not None:
            problem, cure = "is of models on a hub, and model.pretrained is a folder", "take it out"
            raise RecipeError(source, [Fault("model.revision", revision, problem, cure)])
        return folder
    if folder.exists():
        problem, cure = "is a file", "write the folder that holds config.json and the weights"
        raise RecipeError(source, [Fault(PATH, source, problem, cure)])
    if source.startswith(("/", ".", "~")) or source.count("/") > 1:
        cure = "write an existing folder, or OWNER/NAME of a model on the hub"
        raise RecipeError(source, [Fault(PATH, source, "no such folder", cure)])
    from huggingface_hub import constants, snapshot_download  # here, as few models are of a hub

    try:
        found = snapshot_download(
            source, revision=revision, allow_patterns=WANTED, ignore_patterns=["*/*"]
        )
    # What it may raise: no such model, no access, no connection, not cached, not an id.
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        where = " (HF_HUB_OFFLINE is set)" if constants.HF_HUB_OFFLINE else ""
        problem = f"neither a folder here nor to be had from the hub{where}: {reason}"
        cure = "correct it, or download the model and write its folder"
        raise RecipeError(source, [Fault(PATH, source, problem, cure)]) from error
    return Path(found)
