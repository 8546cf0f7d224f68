"""Exact cosine search against a float64 computation."""

import numpy as np
import pytest

from deepssim_jax.scoring import pairs


def unit(count: int, seed: int, dim: int = 16) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(("n", "m", "k"), [(1, 1, 1), (7, 13, 13), (131, 263, 10)])
def test_equals_a_full_sort(n: int, m: int, k: int) -> None:
    queries, references = unit(n, 0), unit(m, 1)
    found = pairs.nearest(queries, references, k=k)
    full = queries.astype(np.float64) @ references.astype(np.float64).T
    np.testing.assert_array_equal(found.indices, np.argsort(-full, axis=1, kind="stable")[:, :k])
    np.testing.assert_allclose(found.scores, -np.sort(-full, axis=1)[:, :k], atol=1e-6)


def test_tiles_do_not_show_and_ties_go_to_the_smaller_index(monkeypatch) -> None:
    references = np.repeat(unit(40, 2), 10, axis=0)  # every vector ten times
    queries = unit(30, 3)
    whole = pairs.nearest(queries, references, k=25)
    monkeypatch.setattr(pairs, "_REFERENCE_TILE", 128)
    monkeypatch.setattr(pairs, "_QUERY_BLOCK", 16)
    tiled = pairs.nearest(queries, references, k=25)
    np.testing.assert_array_equal(whole.indices, tiled.indices)
    np.testing.assert_array_equal(whole.scores, tiled.scores)
    assert (np.diff(whole.indices[:, :10], axis=1) == 1).all()


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="k = 5"):
        pairs.nearest(unit(2, 0), unit(4, 1), k=5)
    with pytest.raises(ValueError, match="one d"):
        pairs.nearest(unit(2, 0, dim=8), unit(4, 1), k=1)
