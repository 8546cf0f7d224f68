"""Merging sorted lists, against NumPy's stable sort."""

import jax.numpy as jnp
import numpy as np
import pytest

from deepssim_jax.ops import topk


def test_merge_equals_a_stable_sort_of_everything() -> None:
    rng = np.random.default_rng(0)
    scores = np.round(rng.standard_normal((5, 12)), 1).astype(np.float32)  # rounding makes ties
    ids = np.tile(np.arange(12, dtype=np.int32), (5, 1))
    parts = []
    for columns in (slice(0, 7), slice(7, 12)):
        order = np.argsort(-scores[:, columns], axis=1, kind="stable")
        parts.append(
            tuple(
                jnp.asarray(np.take_along_axis(a[:, columns], order, axis=1)) for a in (scores, ids)
            )
        )
    best, index = topk.merge(*parts, k=6)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :6]
    np.testing.assert_array_equal(index, order)
    np.testing.assert_array_equal(best, np.take_along_axis(scores, order, axis=1))


@pytest.mark.parametrize(("m", "k"), [(1, 1), (129, 1), (1000, 3), (4096, 7), (4096, 100)])
def test_two_stages_give_what_a_full_sort_gives(m: int, k: int) -> None:
    rng = np.random.default_rng(m)
    rows = [
        rng.normal(size=m),
        rng.integers(0, 3, m),  # ties everywhere
        np.zeros(m),
        np.where(np.arange(m) < m // 2, -np.inf, 1.0),
        np.arange(m),
        -np.arange(m),
    ]
    scores = np.stack(rows).astype(np.float32)
    values, indices = topk.top_k(scores, k)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_array_equal(values, np.take_along_axis(scores, order, 1))
