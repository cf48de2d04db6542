"""AdamW for NeMo AutoModel that doesn't begin where names and patterns miss each other.

NeMo AutoModel drops a pattern of `param_group_overrides` that matches no parameter, with a warning,
and trains a parameter that no pattern matches by the optimizer's own rate.
"""

from collections.abc import Iterable
from typing import Any

import torch


class TunedAdamW(torch.optim.AdamW):
    """PyTorch's, of parameters that all have a tuned rate.

    Args:
        params: groups, as NeMo AutoModel makes them.
        groups: how many there have to be; None for any, as of a stage of a pipeline.
        settings: of PyTorch's AdamW.

    Raises:
        ValueError: parameters that no pattern matches, or patterns that match none.
    """

    def __init__(
        self, params: Iterable[Any], *, groups: int | None = None, **settings: Any
    ) -> None:
        """Compares, and makes it."""
        found = list(params)
        apart = [each for each in found if not isinstance(each, dict) or "lr_mult" not in each]
        if apart:
            own = [each["params"] if isinstance(each, dict) else [each] for each in apart]
            count = sum(map(len, own))
            raise ValueError(
                f"{count} parameters of the model have no tuned rate: no pattern of "
                "param_group_overrides matches their names"
            )
        if groups is not None and len(found) != groups:
            raise ValueError(
                f"{groups - len(found)} of {groups} patterns of param_group_overrides match no "
                "parameter of the model (the log says which: matched no parameters); of a pipeline "
                "each stage has a part of them: take `groups` out of its optimizer then"
            )
        super().__init__(found, **settings)
