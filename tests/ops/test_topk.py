"""Merging sorted lists, against NumPy's stable sort."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepssim_jax.ops import topk

# One program a case, as where they are used: operation by operation each has many.
top_k, top_k_nearly, in_any_order, by_marks = (
    jax.jit(f, static_argnames="k")
    for f in (topk.top_k, topk.top_k_nearly, topk._in_any_order, topk._by_marks)
)


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
    values, indices = top_k(scores, k=k)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_array_equal(values, np.take_along_axis(scores, order, 1))


@pytest.mark.parametrize(("m", "k"), [(8192, 24), (2208, 16), (96, 32), (7, 5), (8192, 40)])
def test_what_is_nearly_best_leaves_nothing_much_better_out(m: int, k: int) -> None:
    rng = np.random.default_rng(m)
    scores = rng.normal(size=(40, m)).astype(np.float32)
    scores[0] = 0.25  # all alike
    scores[1] = -np.abs(scores[1])
    scores[3] = 0.0
    scores[2, m // 2 :] = 9.0  # beyond what counts
    count = m // 2 + k // 2 + 1 if m > 2 * k else m
    scores[2, :count] = np.minimum(scores[2, :count], 2.0)
    values, index = (np.asarray(x) for x in top_k_nearly(scores, k=k, count=count))
    assert values.shape == index.shape == (40, k) and np.all(np.diff(values, axis=1) <= 0)
    share = topk.rounding(m)
    for row, found, value in zip(scores, index, values, strict=True):
        assert len(set(found)) == k and found.max() < count
        np.testing.assert_allclose(value, row[found], rtol=share, atol=1e-29)
        rest = np.delete(row[:count], found)
        assert rest.size == 0 or rest.max() <= value[-1] + share * abs(value[-1]) + 1e-29
    few = top_k_nearly(scores[:, : k + 3], k=min(k + 3, m), count=2)[0]
    assert np.isneginf(few[:, 2:]).all() and np.isfinite(few[:, :2]).all()


@pytest.mark.parametrize(("m", "count"), [(40, None), (2208, 2195), (8192, None)])
def test_a_gpus_way_gives_what_a_cpus_gives(m: int, count: int | None) -> None:
    scores = jnp.asarray(np.random.default_rng(m).normal(size=(9, m)), jnp.float32)
    operands = (scores,) if count is None else (scores, jnp.int32(count))
    ours, theirs = (f(*operands, k=16) for f in (in_any_order, by_marks))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_ranks_give_what_sorting_gives() -> None:
    rng = np.random.default_rng(0)
    scores = np.round(rng.normal(size=(50, 26)), 1).astype(np.float32)  # ties
    numbers = np.stack([rng.permutation(1000)[:26] for _ in range(50)]).astype(np.int32)
    scores[:, :8], numbers[:, :8] = -np.inf, 0  # as a search begins
    values, found = topk._by_ranks(jnp.asarray(scores), jnp.asarray(numbers), k=10)
    order = np.lexsort((numbers, -scores))[:, :10]
    np.testing.assert_array_equal(values, np.take_along_axis(scores, order, 1))
    np.testing.assert_array_equal(found, np.take_along_axis(numbers, order, 1))
