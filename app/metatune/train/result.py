"""What a training leaves: a model that Hugging Face loads, and what was measured."""

import hashlib
import json
import os
import shutil
from typing import Any, Final

import jax

from metatune.data.pretrained_tokenizer import PretrainedTokenizer
from metatune.data.tokenizers import ByteTokenizer
from metatune.fit.process.machine import packages
from metatune.hypergrad import evaluated
from metatune.hypergrad.sharding import fetched
from metatune.inner import InnerTraining
from metatune.models import locate, save_pretrained, weights_sha256
from metatune.recipe import writing
from metatune.recipe.measures import unit
from metatune.runs import processes
from metatune.runs.files import partial, replace
from metatune.runs.space import room_for
from metatune.train.checkpoints import Position
from metatune.train.folder import FORMAT, VERSION, TrainingFolder
from metatune.train.loop import Losses

GENERATION: Final = "generation_config.json"


def write(
    folder: TrainingFolder,
    training: InnerTraining,
    position: Position,
    losses: Losses,
    *,
    test_seed: int,
    artefact_sha256: str | None,
) -> dict[str, Any]:
    """Writes the model, then the result, each beside its place and then renamed.

    Of several processes the first does, of parameters that all put together.

    Args:
        folder: of the training.
        training: the training.
        position: where it ended.
        losses: on the test split.
        test_seed: which of the trainings that a result is measured by it is.
        artefact_sha256: the integrity hash of the artefact; None without one.

    Returns:
        The result; on another process than the first what is told of it.
    """
    kept = training.merged(evaluated(training.sampled, position.state))
    if processes.here().count > 1:
        kept = jax.tree.map(fetched, kept)
    if not processes.first():
        return {"held_out": losses.held_out, "unit": unit(training.recipe), "seconds": 0.0}
    beside = partial(folder.model)
    for path in (beside, folder.model):
        if path.exists():
            shutil.rmtree(path)
    needed = sum(4 * leaf.size for leaf in jax.tree.leaves(kept))  # float32
    with room_for(folder.model, needed):
        save_pretrained(beside, training.model, kept, _special_tokens(training))
        if isinstance(training.corpus.tokenizer, PretrainedTokenizer):
            training.corpus.tokenizer.fast.save_pretrained(beside)
        if generation := _generation_config(training):
            (beside / GENERATION).write_bytes(generation)
    os.replace(beside, folder.model)
    recipe = training.recipe
    result = {
        "format": FORMAT,
        "version": VERSION,
        "steps": position.step,
        "tokens": position.step * recipe.data.batch_size * recipe.data.sequence_length,
        "seconds": round(position.seconds, 3),
        "unit": unit(recipe),
        "held_out": losses.held_out,
        "domains": dict(losses.domains),
        "seed": recipe.seed,
        "test_seed": test_seed,
        "artefact_sha256": artefact_sha256,
        "recipe_sha256": hashlib.sha256(writing.to_yaml(recipe).encode()).hexdigest(),
        "weights_sha256": weights_sha256(folder.model),
        "packages": packages(),
    }
    replace(folder.result, json.dumps(result, indent=1) + "\n")
    return result


def _special_tokens(training: InnerTraining) -> dict[str, int | None]:
    """What a config of a model from scratch says of its tokenizer, so that generation stops."""
    if training.recipe.model.pretrained is not None:
        return {}
    tokenizer = training.corpus.tokenizer
    if isinstance(tokenizer, PretrainedTokenizer):
        fast = tokenizer.fast
        ids = fast.bos_token_id, fast.eos_token_id, fast.pad_token_id
    elif isinstance(tokenizer, ByteTokenizer):
        ids = tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id
    else:
        ids = None, tokenizer.eos_id, None
    return dict(zip(("bos_token_id", "eos_token_id", "pad_token_id"), ids, strict=True))


def _generation_config(training: InnerTraining) -> bytes | None:
    """How the pretrained model generates, its tokens that end a text with it, if it says so."""
    wanted = training.recipe.model
    if wanted.pretrained is None:
        return None
    file = locate(wanted.pretrained, wanted.revision) / GENERATION
    return file.read_bytes() if file.is_file() else None
