"""Rules on a rater."""

from collections.abc import Iterable

from metatune.recipe.faults import Fault
from metatune.recipe.schema import InnerSpec, RaterSpec, TransformerRaterSpec


def a_rater_sees_whole_batches(tune_rater: RaterSpec, inner: InnerSpec) -> Iterable[Fault]:
    """The weights of a batch depend on all of its scores."""
    if inner.micro_batch is not None:
        problem = "tune.rater is tuned: the weights of a batch depend on all of its sequences"
        yield Fault("inner.micro_batch", inner.micro_batch, problem, "take one of the two out")


def heads_divide_the_rater(tune_rater: RaterSpec) -> Iterable[Fault]:
    """Each head of a rater has as much of its width."""
    rater = tune_rater
    if isinstance(rater, TransformerRaterSpec) and rater.hidden_size % rater.heads:
        problem = f"must be a multiple of tune.rater.heads, {rater.heads}"
        yield Fault("tune.rater.hidden_size", rater.hidden_size, problem, "change one of the two")
