"""What is wrong with an artefact, or with the way it is used."""

from collections.abc import Sequence

from metatune.recipe.faults import Fault


class ArtefactError(ValueError):
    """What is wrong with an artefact or with the way it is used, all faults together."""

    def __init__(self, source: str, faults: Sequence[Fault | str]):
        """Collects `faults` found in `source` (a file's path, or a name for what is in memory)."""
        self.source = source
        self.faults = tuple(faults)
        if len(self.faults) == 1:
            message = f"{source}: {self.faults[0]}"
        else:
            lines = (f"  {fault}" for fault in self.faults)
            message = "\n".join([f"{source}: {len(self.faults)} faults", *lines])
        super().__init__(message)
