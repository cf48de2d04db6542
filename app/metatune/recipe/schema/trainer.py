"""What a recipe says of a trainer that isn't metatune's own."""

from dataclasses import dataclass

from metatune.recipe.rules import AT_LEAST_ONE, COMMAND, POSITIVE, ruled


@dataclass(frozen=True)
class TrainerSpec:
    """A command that trains elsewhere, and tells the loss.

    The command is run without a shell. On its standard input it gets the hyperparameters: the
    JSON of a `tuned.json`, with `seed` and `steps` beside; the file named by the environment
    variable METATUNE_TUNED is that `tuned.json` alone. The last line that it prints is the loss to
    minimise. The same command chooses the best and measures the result: nothing is trained here,
    and what the recipe says of model, data and inner training names and bounds what is tuned. Its
    loss has no derivative here: `outer.estimator` is of kind zeroth_order.

    Attributes:
        command: program and arguments, a list, or text that is split as a shell splits it.
        timeout_seconds: after which a command is killed, and counts as failed; null for never.
        parallel: commands at a time.
    """

    command: str | tuple[str, ...] = ruled(COMMAND)
    timeout_seconds: float | None = ruled(None, POSITIVE)
    parallel: int = ruled(1, AT_LEAST_ONE)
