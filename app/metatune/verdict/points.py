"""Where a contestant looks: what it would change of the recipe, as plain values."""

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

Optimizer = Literal["recipe", "schedule_free", "prodigy", "online"]
"""The recipe's own; schedule-free AdamW; Prodigy, which finds the rate itself; or the recipe's own
with rates that hypergradient descent moves during the training."""

RECIPE: Final = "recipe"


@dataclass(frozen=True)
class Plain:
    """A plain change: what anyone can write into a recipe.

    Attributes:
        rate: times the recipe's peak; of Prodigy, its own rate, which is one by default.
        schedule: constant, cosine or wsd; `recipe` for the recipe's own.
        warmup: fraction of the training; None for the recipe's.
        decay: of wsd, the fraction of the training in which the rate falls to zero; None for the
            schedule's usual one.
        mixture: how the shares are named; `recipe` for the recipe's own.
        shares: of the domains, throughout the training; empty for the recipe's own.
        layer_decay: times the rate from each layer to the one below it.
        optimizer: that trains.
        online_rate: of hypergradient descent, per step.
    """

    rate: float = 1.0
    schedule: Literal["recipe", "constant", "cosine", "wsd"] = "recipe"
    warmup: float | None = None
    decay: float | None = None
    mixture: str = RECIPE
    shares: tuple[float, ...] = ()
    layer_decay: float = 1.0
    optimizer: Optimizer = "recipe"
    online_rate: float = 0.0

    def words(self, peak: float | None, domains: tuple[str, ...]) -> str:
        """What it changes, for people.

        Args:
            peak: the recipe's peak learning rate; None where groups have their own.
            domains: that shares are of, in their order.
        """
        rate = f"rate {self.rate:.3g}" if self.optimizer == "prodigy" else _rate(self.rate, peak)
        lines = [
            "" if self.optimizer == RECIPE else NAMES[self.optimizer],
            "" if self.schedule == RECIPE else self.schedule,
            rate,
            "" if self.warmup is None else f"warmup {self.warmup:.2g}",
            "" if self.decay is None else f"decay over the last {self.decay:.2g}",
            "" if self.layer_decay == 1 else f"rates x{self.layer_decay:g} a layer downwards",
            f"moved by {self.online_rate:g} a step" if self.online_rate else "",
            self._mixture(domains),
        ]
        return ", ".join(filter(None, lines)) or "nothing is changed"

    def _mixture(self, domains: tuple[str, ...]) -> str:
        if not self.shares:
            return ""
        each = zip(domains, self.shares, strict=True)
        said = " ".join(f"{name} {share:.0%}" for name, share in each)
        return f"mixture {self.mixture} ({said})"


@dataclass(frozen=True)
class Coordinates:
    """A point in all of the recipe's tunables.

    Attributes:
        offsets: of η from the recipe's own, its leaves one after the other.
    """

    offsets: tuple[float, ...]

    def words(self, peak: float | None, domains: tuple[str, ...]) -> str:
        """What it changes, for people."""
        del peak, domains
        if not any(self.offsets):
            return "nothing is changed"
        return f"{len(self.offsets)} meta-parameters"


Point = Plain | Coordinates

NAMES: Final = {
    "schedule_free": "schedule-free AdamW",
    "prodigy": "Prodigy",
    "online": "rates by hypergradient descent",
}


def as_json(point: Point) -> dict[str, Any]:
    """A point as plain values, without what it leaves as it is."""
    if isinstance(point, Coordinates):
        return {"offsets": list(point.offsets)}
    usual = asdict(Plain())
    stated = {key: value for key, value in asdict(point).items() if value != usual[key]}
    return stated | ({"shares": list(point.shares)} if point.shares else {})


def _rate(rate: float, peak: float | None) -> str:
    if rate == 1:
        return ""
    return f"rates x{rate:.3g}" if peak is None else f"rate x{rate:.3g} ({rate * peak:.2g})"
