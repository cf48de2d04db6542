"""Refuses to begin a training of llm-foundry whose groups don't match the model's parameters.

Named in `code_paths` of the configuration, it registers the callback `metatune_check`.
"""

from composer.core import Callback  # pyright: ignore[reportMissingImports]
from llmfoundry import registry  # pyright: ignore[reportMissingImports]


class MetatuneCheck(Callback):
    """The first group of the optimizer has what no pattern matched; every other a pattern's."""

    def fit_start(self, state, logger):  # noqa: D102
        for optimizer in state.optimizers:
            refuse_unmatched([len(group["params"]) for group in optimizer.param_groups])


def refuse_unmatched(sizes: list[int]) -> None:
    """Refuses groups of these numbers of parameters, the unmatched first.

    Raises:
        ValueError: a parameter that no pattern matched, or a pattern that matched none.
    """
    unmatched, *groups = sizes
    if unmatched:
        raise ValueError(
            f"{unmatched} parameters match no pattern of optimizer.param_groups: they would take "
            "optimizer.lr; freeze them, or mend the patterns"
        )
    if empty := [number for number, size in enumerate(groups) if not size]:
        raise ValueError(f"optimizer.param_groups[{empty[0]}] matches no parameter of the model")


registry.callbacks.register("metatune_check", func=MetatuneCheck)
