"""Rules on the entries of `tune` beside each other, and on all of them."""

from collections.abc import Iterable
from dataclasses import asdict

from metatune.recipe.faults import Fault
from metatune.recipe.schema import InnerSpec, LossWeightsSpec, MixtureSpec, TuneSpec


def one_weight_a_domain(
    tune_mixture: MixtureSpec, tune_loss_weights: LossWeightsSpec
) -> Iterable[Fault]:
    """Shares and loss weights of domains multiply the same gradient: only their product counts."""
    if tune_loss_weights.per == "domain":
        problem = "tune.mixture is tuned too: both weigh the domains, the same number twice"
        cure = "take out tune.loss_weights or tune.mixture"
        yield Fault("tune.loss_weights", asdict(tune_loss_weights), problem, cure)


def windows_have_steps(tune: TuneSpec, inner: InnerSpec) -> Iterable[Fault]:
    """A window is one inner step or more."""
    for _, path, settings in tune.entries():
        if getattr(settings, "windows", 1) > inner.steps:
            problem = f"must be at most inner.steps, {inner.steps}"
            cure = "lower it, or raise inner.steps"
            yield Fault(f"{path}.windows", settings.windows, problem, cure)
