"""A table goes into rows of fixed length and comes back."""

import numpy as np
import pytest

from deepssim_jax.scoring.rows_by_query import gathered, spread

ROW = np.dtype([("query", "<i4"), ("value", "<f4")])


@pytest.mark.parametrize("queries", [[], [0], [0, 0, 2, 2, 2, 4], [3, 3]])
def test_what_was_spread_is_gathered(queries: list[int]) -> None:
    table = np.array([(q, 10 * q + i) for i, q in enumerate(queries)], ROW)
    rows = spread(table, 5, most=3)
    assert rows.shape == (5, 3)
    np.testing.assert_array_equal((rows["query"] >= 0).sum(1), np.bincount(queries, minlength=5))
    np.testing.assert_array_equal(gathered(rows), table)


def test_rows_of_a_part_are_numbered_by_their_place() -> None:
    table = np.array([(0, 1.0), (2, 2.0), (2, 3.0)], ROW)
    assert gathered(spread(table, 3, most=2)[1:]).tolist() == [(1, 2.0), (1, 3.0)]
