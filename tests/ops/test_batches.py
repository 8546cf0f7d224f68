"""Rows in batches of one shape give what one call would."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepssim_jax.ops.batches import in_batches, mapped


@pytest.mark.parametrize("count", [0, 1, 4, 5, 8, 11])
def test_batches_give_what_one_call_gives(count: int) -> None:
    rng = np.random.default_rng(count)
    a, b = rng.standard_normal((count, 3)), rng.integers(0, 9, (count, 2))
    shapes = []

    def run(x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        shapes.append((x.shape, y.shape))
        return {"sum": x.sum(1) + y.sum(1), "twice": 2 * y}

    found = in_batches(run, a, b, size=4)
    whole = run(jnp.asarray(a), jnp.asarray(b))
    np.testing.assert_allclose(found["sum"], whole["sum"], atol=1e-6)
    np.testing.assert_array_equal(found["twice"], whole["twice"])
    assert found["sum"].dtype == whole["sum"].dtype
    assert found["twice"].shape == (count, 2)
    assert set(shapes[:-1]) == {((4, 3), (4, 2))}  # one shape, so one compilation


@pytest.mark.parametrize("count", [1, 7, 8])
def test_rows_side_by_side_are_rows_one_by_one(count: int, monkeypatch) -> None:
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(count, 5)), jnp.float32)
    alone = mapped(lambda row: {"norm": (row**2).sum()}, rows, side_by_side=4)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    together = mapped(lambda row: {"norm": (row**2).sum()}, rows, side_by_side=4)
    np.testing.assert_allclose(together["norm"], alone["norm"], rtol=1e-6)
    np.testing.assert_allclose(alone["norm"], (np.asarray(rows) ** 2).sum(1), rtol=1e-6)
