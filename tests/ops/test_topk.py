"""Merging sorted lists, against NumPy's stable sort."""

import jax.numpy as jnp
import numpy as np

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
