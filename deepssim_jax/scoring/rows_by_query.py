"""Rows of a table that belong to queries, as many a query as there are, kept in a row of fixed length each.

Contract: a table is a structured array with an int column `query`; a spread one is [queries, most], what is
left of a row filled with query -1.
"""

import numpy as np


def spread(table: np.ndarray, count: int, *, most: int) -> np.ndarray:
    """[count, most] of rows that are sorted by query, numbered from 0."""
    out = np.zeros((count, most), table.dtype)
    out["query"] = -1
    first = np.searchsorted(table["query"], np.arange(count))
    out[table["query"], np.arange(len(table)) - first[table["query"]]] = table
    return out


def gathered(rows: np.ndarray) -> np.ndarray:
    """The table that was spread, queries numbered by their rows."""
    present = rows["query"] >= 0
    out = rows[present]
    out["query"] = np.nonzero(present)[0]
    return out
