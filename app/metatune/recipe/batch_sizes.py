"""How many sequences are on the devices at a time, by the field that says so."""

from metatune.recipe.schema import DataSpec, InnerSpec, OuterSpec


def training_batch(data: DataSpec, inner: InnerSpec) -> tuple[str, int]:
    """The sequences that an inner gradient is computed of at a time."""
    if inner.micro_batch is None:
        return "data.batch_size", data.batch_size
    return "inner.micro_batch", inner.micro_batch


def held_out_batches(outer: OuterSpec) -> dict[str, int]:
    """Those that are measured on at a time."""
    most = outer.objective.micro_batch
    said = {
        "outer.objective.sequences": outer.objective.sequences,
        "outer.validation.sequences": outer.validation.sequences,
        "outer.test.sequences": outer.test.sequences,
    }
    fewer = {path: sequences for path, sequences in said.items() if sequences < most}
    return fewer if len(fewer) == len(said) else {"outer.objective.micro_batch": most, **fewer}
