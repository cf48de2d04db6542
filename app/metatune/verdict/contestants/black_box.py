"""Search without derivatives: at random, and by TPE; in a few numbers, and in all tunables.

Source: Bergstra et al., Random Search for Hyper-Parameter Optimization, JMLR 2012; Algorithms for
Hyper-Parameter Optimization, NeurIPS 2011 (TPE); both as Optuna has them.
"""

from dataclasses import dataclass
from functools import partial

from metatune.verdict.contestants import study
from metatune.verdict.contestants.contestant import ContestSetting, Evaluate


@dataclass(frozen=True)
class InFew:
    """Peak, warmup, decay and the target's share.

    Attributes:
        name: as of `Contestant`.
        summary: likewise.
        sampler: of Optuna.
    """

    name: str
    summary: str
    sampler: study.Sampler

    def refusal(self, setting: ContestSetting) -> str | None:
        """It always applies."""
        return None

    def search(self, setting: ContestSetting, budget: int, evaluate: Evaluate, key: int) -> None:
        """See `Contestant`."""
        ranges = study.few(setting)
        first = {name: study.FEW_FIRST[name] for name in ranges}
        point = partial(study.of_few, setting)
        study.search(self.sampler, ranges, first, point, budget, evaluate, key)


@dataclass(frozen=True)
class InAll:
    """All meta-parameters of the recipe.

    Attributes:
        name: as of `Contestant`.
        summary: likewise.
        sampler: of Optuna.
    """

    name: str
    summary: str
    sampler: study.Sampler

    def refusal(self, setting: ContestSetting) -> str | None:
        """Too many are a walk in the dark."""
        if setting.coordinates <= study.MOST:
            return None
        return f"{setting.coordinates:,} meta-parameters are more than {study.MOST:,}"

    def search(self, setting: ContestSetting, budget: int, evaluate: Evaluate, key: int) -> None:
        """See `Contestant`."""
        ranges = study.all_of(setting)
        first = dict.fromkeys(ranges, 0.0)
        study.search(self.sampler, ranges, first, study.of_all, budget, evaluate, key)


FEW = "in peak, warmup, decay and target share"
ALL = "in all of the recipe's tunables"

RANDOM = InFew("random", f"random search {FEW}", "random")
TPE = InFew("tpe", f"TPE {FEW}", "tpe")
RANDOM_ALL = InAll("random-all", f"random search {ALL}", "random")
TPE_ALL = InAll("tpe-all", f"TPE {ALL}", "tpe")
