"""Cells of tables: each push runs the telling ones, and each week those that show no more."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pytest


def cells(rows: Mapping[str, Any] | Iterable[Any], further: Collection[Any] = ()) -> list[Any]:
    """Parameters for `pytest.mark.parametrize`, of which further ones are `thorough`.

    Args:
        rows: a table, whose rows are tuples of arguments, or values of one; its names are ids.
            Else values alone.
        further: names of rows, or values, whose mechanism another one shows.

    Raises:
        ValueError: there is no such row.
    """
    if isinstance(rows, Mapping):
        found = [
            (name, row if isinstance(row, tuple) else (row,), name) for name, row in rows.items()
        ]
    else:
        found = [(row, (row,), None) for row in rows]
    if unknown := [name for name in further if name not in [key for key, *_ in found]]:
        raise ValueError(f"no rows of the table: {unknown}")
    return [
        pytest.param(*row, id=name, marks=pytest.mark.thorough if key in further else ())
        for key, row, name in found
    ]
