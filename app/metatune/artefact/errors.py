"""What is wrong with an artefact, or with the way it is used."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

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

    def as_options(self, options: Mapping[str, str]) -> "ArtefactError":
        """The same for a reader of the command line, where arguments are options.

        Args:
            options: by the argument, which is the path of a fault or stands in backticks in it.
        """

        def said(text: str) -> str:
            return re.sub(r"`(\w+)`", lambda found: options.get(found[1], found[0]), text)

        def renamed(fault: Fault | str) -> Fault | str:
            if isinstance(fault, str):
                return said(fault)
            path = options.get(fault.path, fault.path)
            return replace(fault, path=path, problem=said(fault.problem), cure=said(fault.cure))

        return ArtefactError(self.source, [renamed(fault) for fault in self.faults])
