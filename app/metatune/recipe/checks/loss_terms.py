"""Rules on the terms of the training loss that are tuned."""

from collections.abc import Iterable
from dataclasses import asdict

from metatune.recipe.faults import Fault
from metatune.recipe.schema import DataSpec, InnerSpec, LossSpec, TuneSpec
from metatune.recipe.schema.inner import MULTI_TOKEN_TERM

PATH = "tune.loss_terms"
HEAD = "inner.loss.multi_token_prediction"


def some_term_is_tuned(tune: TuneSpec) -> Iterable[Fault]:
    """At least one term of the loss, where the section is there."""
    if tune.loss_terms is not None and not any(asdict(tune.loss_terms).values()):
        names = ", ".join(asdict(tune.loss_terms))
        cure = f"write one of {names}, e.g. `z_loss: {{}}`, or take {PATH} out"
        yield Fault(PATH, {}, "nothing of the loss is tuned", cure)


def a_tuned_term_is_there(tune: TuneSpec, inner: InnerSpec) -> Iterable[Fault]:
    """Neither a factor nor odds change anything of zero."""
    loss = inner.loss or LossSpec()
    for key, path, settings in TuneSpec(loss_terms=tune.loss_terms).entries():
        if not loss.coefficients()[key]:
            problem = f"inner.loss.{key} is 0, which no factor changes"
            cure = f"give inner.loss.{key} a value above 0 to start from, or take this out"
            if key == MULTI_TOKEN_TERM:
                problem = f"{HEAD} is null: there is no head whose weight to tune"
                cure = f"write {HEAD}: {{weight: 0.3}}, or take this out"
            yield Fault(path, asdict(settings), problem, cure)


def balance_is_of_whole_batches(inner: InnerSpec) -> Iterable[Fault]:
    """How evenly experts are used isn't the mean of that over parts of a batch."""
    if inner.loss is not None and inner.loss.router_balance and inner.micro_batch is not None:
        problem = "inner.loss.router_balance is over all tokens of a batch together"
        yield Fault("inner.micro_batch", inner.micro_batch, problem, "take one of the two out")


def some_token_is_two_ahead(data: DataSpec, inner: InnerSpec) -> Iterable[Fault]:
    """Of two tokens none is the second next of another."""
    head = inner.loss and inner.loss.multi_token_prediction
    if head is not None and data.sequence_length < 3:
        problem = f"no token is two after another, as {HEAD} predicts them"
        cure = f"make sequences of 3 tokens or more, or take {HEAD} out"
        yield Fault("data.sequence_length", data.sequence_length, problem, cure)
