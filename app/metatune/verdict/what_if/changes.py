"""Changes of the chosen schedules, as they are typed: `mixture.code[2]=0.6`.

    mixture.DOMAIN[WINDOW]=0.6     += 0.05, points of the share; *= 1.2
    learning_rates.NAME[WINDOW]*=2 = 1.5, the factor of the base schedule

Windows are counted from 1, as in all tables; without one, all of them are meant. NAME is a group
that shares a rate, a parameter, a module with all that is in it, a kind of parameter, or `all`;
what holds other signs than letters, digits, `_`, `-` and dots stands in quotes. The domains that
aren't named share what is left as they do, each above the floor.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metatune.artefact.kinds import KINDS, kind_of
from metatune.inner import InnerTraining
from metatune.recipe.faults import Fault, RecipeError, unknown
from metatune.tunables import TunableLearningRates, TunableMixture, simplex
from metatune.tunables.groups import Groups
from metatune.verdict.parts import tuned_sections
from metatune.verdict.surgery import first_of

MIXTURE: Final = "mixture"
RATES: Final = "learning_rates"
SECTIONS: Final = (MIXTURE, RATES)
"""That can be changed."""

FORM: Final = re.compile(
    r"\s*(?P<section>\w+)\.(?P<name>'(?:[^']|'')+'|\"(?:[^\"]|\"\")+\"|[\w.-]+?)\s*"
    r"(\[(?P<window>-?\d+)\])?\s*"
    r"(?P<operator>\*=|\+=|-=|/=|=)\s*(?P<value>\S+)\s*\Z"
)
EXAMPLE: Final = "write SECTION.NAME[WINDOW]=VALUE, e.g. mixture.code[2]+=0.05"

NEAREST: Final = 3
"""Names that an error offers."""

ALL: Final = "all"

Operator = Literal["=", "+=", "*="]


class Change(NamedTuple):
    """A change.

    Attributes:
        text: as it was typed.
        section: `mixture` or `learning_rates`.
        name: of a domain, or of parameters.
        window: counted from 0; None for all.
        operator: what is done with the value.
        value: a share, a part of one, or a factor.
    """

    text: str
    section: str
    name: str
    window: int | None
    operator: Operator
    value: float

    @property
    def path(self) -> str:
        """What it changes, for errors."""
        window = "" if self.window is None else f"[{self.window + 1}]"
        return f"{self.section}.{self.name}{window}"

    def applied(self, value: float) -> float:
        """What becomes of a value."""
        if self.operator == "=":
            return self.value
        return value * self.value if self.operator == "*=" else value + self.value


def parsed(words: Sequence[str]) -> list[Change]:
    """Changes of their words.

    Raises:
        RecipeError: with all that can't be read.
    """
    found: list[Change] = []
    faults: list[Fault] = []
    for word in words:
        match = FORM.match(word)
        if match is None:
            faults.append(
                Fault("change", word, "not of the form SECTION.NAME[WINDOW]=VALUE", EXAMPLE)
            )
            continue
        said = match.groupdict()
        path = word[: match.start("operator")].strip()
        try:
            value = float(said["value"])
        except ValueError:
            faults.append(Fault(path, said["value"], "is no number", EXAMPLE))
            continue
        with np.errstate(divide="ignore", over="ignore"):
            operator, value = _operation(said["operator"], value)
        if not np.isfinite(value):
            faults.append(Fault(path, said["value"], "must be a finite number", EXAMPLE))
            continue
        window = None if said["window"] is None else int(said["window"]) - 1
        name = _unquoted(said["name"])
        found.append(Change(word.strip(), said["section"], name, window, operator, value))
    if faults:
        raise RecipeError("what-if", faults)
    return found


def _operation(said: str, value: float) -> tuple[Operator, float]:
    """What is subtracted is added, and what is divided by multiplied with."""
    if said in ("+=", "-="):
        return "+=", value if said == "+=" else -value
    if said in ("*=", "/="):
        return "*=", value if said == "*=" else float(np.float64(1) / value)
    return "=", value


def quoted(name: str) -> str:
    """A name as a change has it: in quotes, where it must be, that are doubled within."""
    plain = all(sign.isalnum() or sign in "_-." for sign in name)
    return name if plain else "'" + name.replace("'", "''") + "'"


def _unquoted(said: str) -> str:
    mark = said[0]
    return said[1:-1].replace(mark * 2, mark) if mark in "'\"" else said


def changed(
    training: InnerTraining, eta: Mapping[str, Any], changes: Sequence[Change]
) -> dict[str, jax.Array]:
    """The meta-parameters that changes lead to.

    Rates are changed one after the other; the shares of a window at once, so that each that is
    named comes to what was said.

    Args:
        training: of the run.
        eta: the meta-parameters that were chosen.
        changes: what is to be changed of them.

    Raises:
        RecipeError: with all that can't be.
    """
    tuned: dict[str, Any] = {each.key: each for each in training.tunables}
    able = [key for key in SECTIONS if isinstance(tuned.get(key), KNOWN[key])]
    found = {key: jnp.asarray(leaf) for key, leaf in eta.items()}
    faults: list[Fault] = []
    for change in changes:
        if change.section in tuned_sections(training) and change.section not in able:
            problem = "is tuned here, but shares and rates of parameters alone can be changed"
            cure = f"change one of: {', '.join(able)}" if able else "train it with another recipe"
            faults.append(Fault(change.path, change.text, problem, cure))
        elif change.section not in able:
            what = "section: it isn't tuned here" if change.section in SECTIONS else "section"
            faults.append(unknown(change.path, change.text, what, change.section, able))
        elif (windows := tuned[change.section].windows) and not (
            change.window is None or 0 <= change.window < windows
        ):
            problem = f"there is no such window; they are counted from 1 to {windows}"
            faults.append(Fault(change.path, change.text, problem, "leave it out for all of them"))
    if not faults and RATES in able:
        every = [name for leaf in jax.tree.leaves(training.names) for name in leaf.names]
        found[RATES] = _rates(tuned[RATES], found[RATES], _of(changes, RATES), every, faults)
    if not faults and MIXTURE in able and (own := _of(changes, MIXTURE)):
        shares = np.asarray(training.trajectory(eta).mixture, np.float64)
        names = tuple(training.corpus.names)
        found[MIXTURE] = _shares(tuned[MIXTURE], found[MIXTURE], shares, names, own, faults)
    if faults:
        raise RecipeError("what-if", faults)
    return found


KNOWN: Final = {MIXTURE: TunableMixture, RATES: TunableLearningRates}


def changeable(training: InnerTraining) -> list[str]:
    """The tunables of a training that can be changed: by shares, and by rates of groups."""
    tuned: dict[str, Any] = {each.key: each for each in training.tunables}
    able = [key for key in SECTIONS if isinstance(tuned.get(key), KNOWN[key])]
    return [key for key in able if key != RATES or isinstance(tuned[key].cells, Groups)]


def _of(changes: Sequence[Change], section: str) -> list[Change]:
    return [change for change in changes if change.section == section]


def _rates(
    tuned: TunableLearningRates,
    eta: jax.Array,
    changes: Sequence[Change],
    every: Sequence[str],
    faults: list[Fault],
) -> jax.Array:
    """Coordinates of the factors that changes lead to.

    Args:
        tuned: the tunable.
        eta: its coordinates, [windows, cells].
        changes: of rates.
        every: all parameters that are trained.
        faults: is added to.
    """
    if not changes:
        return eta
    factors, most = tuned.multipliers(np.asarray(eta)), tuned.max_multiplier
    touched = np.zeros(factors.shape, bool)
    for change in changes:
        if change.operator == "+=":
            cure = "multiply it: *=1.5; or give the factor of the base schedule: =1.5"
            faults.append(Fault(change.path, change.text, "a rate is a factor", cure))
            continue
        if change.value <= 0:
            faults.append(Fault(change.path, change.text, "a factor must be above 0", "e.g. *=0.5"))
            continue
        columns = _columns(tuned.cells, change, every, faults)
        rows = slice(None) if change.window is None else slice(change.window, change.window + 1)
        for column in columns:
            factors[rows, column] = change.applied(1.0) * (
                1.0 if change.operator == "=" else factors[rows, column]
            )
            touched[rows, column] = True
        beyond = [v for v in factors[rows, columns].flat if most and not 1 / most < v < most]
        if beyond:
            problem = f"comes to a factor of {beyond[0]:.4g}; the recipe's bound allows those"
            cure = f"between {1 / most:.4g} and {most:.4g}" if most else ""
            faults.append(Fault(change.path, change.text, problem, cure))
    if faults:
        return eta
    moved = np.array(eta, np.float64)
    logs = np.log(factors[touched])
    moved[touched] = logs if most is None else np.log(most) * np.arctanh(logs / np.log(most))
    return jnp.asarray(moved, eta.dtype)


def _meant(groups: Groups, name: str, every: Sequence[str]) -> list[str]:
    """The parameters that a name is of: a group's, one, a module's, a kind's, or all; else none."""
    if name in groups.members:
        return list(groups.members[name])
    if name == ALL:
        return [each for members in groups.members.values() for each in members]
    if name in KINDS:
        return [each for each in every if kind_of(each) == name]
    return [each for each in every if each == name or each.startswith(f"{name}.")]


def _columns(cells: Any, change: Change, every: Sequence[str], faults: list[Fault]) -> list[int]:
    """The columns of the groups that a change is of."""

    def refused(problem: str, cure: str) -> list[int]:
        faults.append(Fault(change.path, change.text, problem, cure))
        return []

    if not isinstance(cells, Groups):
        problem = "rates of this run aren't of whole parameters at one size"
        return refused(problem, "tune.learning_rates.per: tensor, layer or kind would do")
    meant = set(_meant(cells, change.name, every))
    if not meant:
        names = [*cells.labels, *every, *KINDS, ALL]
        near = difflib.get_close_matches(change.name, dict.fromkeys(names), n=NEAREST, cutoff=0.4)
        cure = f"the nearest are {', '.join(near)}" if near else "no name is near"
        cure += f"; a kind ({', '.join(KINDS)}) or {ALL} will do, too"
        return refused("no such parameter is trained", cure)
    own = {name for members in cells.members.values() for name in members}
    if still := [name for name in every if name in meant - own]:
        problem = f"{_some(still)} has a rate that isn't tuned, and stays the base schedule's"
        return refused(problem, f"say one of the groups: {_some(cells.labels)}, or {ALL} of them")
    columns = []
    for number, (label, members) in enumerate(cells.members.items()):
        inside = meant.intersection(members)
        if not inside:
            continue
        columns.append(number)
        if rest := [each for each in members if each not in meant]:
            problem = f"shares its rate with {_some(rest)}, which move together as one group"
            return refused(problem, f"say learning_rates.'{label}'")
    return columns


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NEAREST]) + (", ..." if len(names) > NEAREST else "")


def _shares(
    tuned: TunableMixture,
    eta: jax.Array,
    shares: np.ndarray,
    names: tuple[str, ...],
    changes: Sequence[Change],
    faults: list[Fault],
) -> jax.Array:
    """Coordinates of the shares that changes lead to.

    Args:
        tuned: the tunable.
        eta: its coordinates, [windows, ...].
        shares: as they are, [steps, domains].
        names: of the domains.
        changes: of them.
        faults: is added to.
    """
    for change in changes:
        if change.name not in names:
            faults.append(unknown(change.path, change.text, "domain", change.name, names))
        elif change.operator == "*=" and change.value <= 0:
            faults.append(Fault(change.path, change.text, "a factor must be above 0", "e.g. *=0.5"))
    if faults:
        return eta
    rows = []
    for window in range(tuned.windows):
        own = [each for each in changes if each.window in (None, window)]
        row = shares[first_of(window, tuned.windows, len(shares))]
        if not own:
            rows.append(eta[window])
            continue
        wanted = _mixed(tuned, row, names, own, window, faults)
        if wanted is not None:
            move = _coordinates(tuned, wanted) - _coordinates(tuned, row)
            rows.append(eta[window] + move.astype(eta.dtype))
    return eta if faults else jnp.stack(rows)


def _mixed(
    tuned: TunableMixture,
    row: np.ndarray,
    names: tuple[str, ...],
    changes: Sequence[Change],
    window: int,
    faults: list[Fault],
) -> np.ndarray | None:
    """The shares of a window; None, and a fault, where there are none such."""
    floor, count = tuned.floor, len(row)
    most = 1 - (count - 1) * floor
    wanted, fixed = row.copy(), np.zeros(count, bool)
    for change in changes:
        at = names.index(change.name)
        wanted[at] = change.applied(float(wanted[at]))
        fixed[at] = True
        cap = min(most, tuned.caps[at]) if tuned.caps else most
        if not floor < wanted[at] < cap:
            where = f"comes to a share of {wanted[at]:.4g} in window {window + 1}"
            problem = f"{where}; shares lie above the floor, {floor:g}, and below {cap:.4g}"
            cure = f"it is {row[at]:.4g} now"
            faults.append(Fault(change.path, change.text, problem, cure))
            return None
    last, left = changes[-1], 1 - wanted[fixed].sum()
    rest = np.flatnonzero(~fixed)
    if not len(rest):
        if abs(left) > 1e-6:
            problem = f"all shares of window {window + 1} are given, and come to {1 - left:.4g}"
            faults.append(Fault(last.path, last.text, problem, "leave one to be what is left"))
            return None
        return wanted / wanted.sum()
    # What is left above the floor is shared as it was.
    above = row[rest] - floor
    room = left - len(rest) * floor
    if room <= 0:
        problem = f"leaves {left:.4g} to the others in window {window + 1}"
        cure = f"{len(rest)} at the floor, {floor:g}, need more than {len(rest) * floor:g}"
        faults.append(Fault(last.path, last.text, problem, cure))
        return None
    wanted[rest] = floor + above * room / above.sum()
    for at in rest:
        if tuned.caps and wanted[at] >= tuned.caps[at]:
            problem = f"{names[at]} would come to {wanted[at]:.4g} in window {window + 1}"
            cure = f"its cap is {tuned.caps[at]:.4g}; give it a share, too"
            faults.append(Fault(last.path, last.text, problem, cure))
            return None
    return wanted


def _coordinates(tuned: TunableMixture, shares: np.ndarray) -> jax.Array:
    row = tuple(map(float, shares))
    if tuned.caps is None:
        logits = simplex.logits_of(row, tuned.floor)
    else:
        logits = simplex.capped_logits_of(row, tuned.floor, tuned.caps)
    return tuned.nested.coordinates(logits) if tuned.nested else logits
