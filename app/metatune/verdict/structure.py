"""Structures of learning rates with few numbers: clusters of parameters, stretches of windows.

The logarithms x of the tuned factors, a row for each window and a column for each parameter, are
written by `k` clusters of columns and `s` stretches of neighbouring windows,

    as a table        x[w, p] = z[stretch of w, cluster of p]       k s numbers
    as a product      x[w, p] = a[cluster of p] + b[stretch of w]   k + s - 1 numbers

(of factors it is a product). Of each number of numbers the structure with the least squares is
looked for: clusters by Ward's method, stretches by dynamic programming, values by means.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage

SIZES: Final = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48)
"""Numbers that are looked at."""


class Structure(NamedTuple):
    """What shares a factor.

    Attributes:
        cluster: of each parameter, int [P], counted from 0.
        stretch: of each window, int [W], likewise.
        product: whether a factor is that of its cluster times that of its stretch.
    """

    cluster: np.ndarray
    stretch: np.ndarray
    product: bool

    @property
    def clusters(self) -> int:
        """How many there are."""
        return int(self.cluster.max()) + 1

    @property
    def stretches(self) -> int:
        """How many there are."""
        return int(self.stretch.max()) + 1

    @property
    def numbers(self) -> int:
        """How many numbers its factors are made of."""
        if self.product:
            return self.clusters + self.stretches - 1
        return self.clusters * self.stretches

    def fitted(self, logs: np.ndarray) -> np.ndarray:
        """The values [stretches, clusters] that are nearest to logarithms [W, P]."""
        sums = np.zeros((self.stretches, self.clusters))
        counts = np.zeros_like(sums)
        at = self.stretch[:, None], self.cluster[None, :]
        np.add.at(sums, at, logs)
        np.add.at(counts, at, 1.0)
        return self.restricted(sums / counts)

    def restricted(self, values: np.ndarray) -> np.ndarray:
        """The nearest values that it can have: of a product the sum of two means."""
        if not self.product:
            return values
        own = np.bincount(self.cluster).astype(float)
        own /= own.sum()
        windows = np.bincount(self.stretch).astype(float)
        windows /= windows.sum()
        rows, columns = values @ own, windows @ values
        return rows[:, None] + columns[None, :] - windows @ rows

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Values as logarithms of all windows and parameters, [W, P]."""
        return values[self.stretch][:, self.cluster]

    def pulled_back(self, gradient: np.ndarray) -> np.ndarray:
        """The derivative in the values, of that in the logarithms [W, P]."""
        found = np.zeros((self.stretches, self.clusters))
        np.add.at(found, (self.stretch[:, None], self.cluster[None, :]), gradient)
        return found

    def error(self, logs: np.ndarray) -> float:
        """The sum of the squares that it leaves."""
        return float(((logs - self.spread(self.fitted(logs))) ** 2).sum())

    @property
    def words(self) -> str:
        """What it is, for people."""
        if self.clusters == 1 and self.stretches == 1:
            return "one for all parameters"
        if self.clusters == 1:
            return f"one for all parameters in each of {self.stretches} stretches of the training"
        whom = f"one for each of {self.clusters} clusters of parameters"
        if self.stretches == 1:
            return whom
        times = "times one for" if self.product else "and"
        return f"{whom} {times} each of {self.stretches} stretches of the training"


def best(logs: np.ndarray, most: int) -> Structure:
    """The structure of so many numbers at most that is nearest to logarithms [W, P]."""
    windows, parameters = logs.shape
    found: list[Structure] = []
    for stretches in range(1, windows + 1):
        for product in (False, True):
            room = most - stretches + 1 if product else most // stretches
            clusters = min(room, parameters)
            if clusters < 1 or (product and 1 in (stretches, clusters)):
                continue
            cluster = clustered(logs.mean(axis=0)[:, None] if product else logs.T, clusters)
            of_clusters = np.stack(
                [logs[:, cluster == at].mean(axis=1) for at in range(cluster.max() + 1)], axis=1
            )
            weights = np.bincount(cluster).astype(float)
            if product:  # the stretches are those of the mean over parameters
                of_clusters = of_clusters @ weights[:, None] / weights.sum()
                weights = np.ones(1)
            stretch = stretched(of_clusters * np.sqrt(weights)[None, :], stretches)
            found.append(Structure(cluster, stretch, product))
    return min(found, key=lambda each: (each.error(logs), each.numbers))


def clustered(rows: np.ndarray, count: int) -> np.ndarray:
    """The cluster of each row [n, d], in so many at most, the least in the mean first.

    Source: Ward, Hierarchical grouping to optimize an objective function, JASA 1963.
    """
    if count == 1 or len(rows) == 1:
        return np.zeros(len(rows), int)
    number = fcluster(linkage(rows, "ward"), count, "maxclust")
    names = sorted(np.unique(number), key=lambda each: float(rows[number == each].mean()))
    return np.asarray([names.index(each) for each in number])


def stretched(rows: np.ndarray, count: int) -> np.ndarray:
    """The stretch of each row [n, d] of so many stretches of neighbours with the least squares.

    Source: Bellman, On the approximation of curves by line segments using dynamic programming,
    Communications of the ACM 1961.
    """
    total = len(rows)

    def cost(first: int, stop: int) -> float:
        part = rows[first:stop]
        return float(((part - part.mean(axis=0, keepdims=True)) ** 2).sum())

    least = {(0, 0): (0.0, 0)}
    for parts in range(1, count + 1):
        for stop in range(parts, total + 1):
            least[parts, stop] = min(
                (least[parts - 1, first][0] + cost(first, stop), first)
                for first in range(parts - 1, stop)
                if (parts - 1, first) in least
            )
    found, stop = np.zeros(total, int), total
    for part in range(count, 0, -1):
        first = least[part, stop][1]
        found[first:stop] = part - 1
        stop = first
    return found


def candidates(logs: np.ndarray, tuned: int, sizes: Sequence[int] = SIZES) -> list[Structure]:
    """Structures of ever more numbers, each nearer to logarithms [W, P] than the one before.

    Args:
        logs: of the tuned factors.
        tuned: how many numbers they are.
        sizes: how many numbers are looked at, ascending.
    """
    found: list[Structure] = []
    for most in sizes:
        if most >= tuned:
            break
        each = best(logs, most)
        if not found or each.error(logs) < found[-1].error(logs):
            found.append(each)
    return found
