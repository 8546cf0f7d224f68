"""Pointwise products and their gradients, on one device and on eight, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepssim_jax import parallel
from deepssim_jax.nn.pointwise import pointwise


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("space", [(), (5,), (3, 4), (2, 3, 4)])
def test_pointwise_and_its_gradient(space: tuple[int, ...], devices: int) -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(8, *space, 6)), rng.normal(size=(8, *space, 10))
    kernel = rng.normal(size=(6, 10))
    mesh = parallel.data_mesh(devices)
    with parallel.using(mesh):
        spread, weights = (
            parallel.spread(jnp.asarray(y, jnp.float32), parallel.batch_sharding(mesh))
            for y in (x, weight)
        )
        given = spread, parallel.spread(jnp.asarray(kernel, jnp.float32), parallel.replicated(mesh))
        ours = jax.jit(pointwise)(*given)
        got = jax.jit(jax.grad(lambda *p: (pointwise(*p) * weights).sum(), (0, 1)))(*given)
    np.testing.assert_allclose(ours, x @ kernel, atol=2e-5)
    np.testing.assert_allclose(got[0], weight @ kernel.T, atol=2e-5)
    np.testing.assert_allclose(got[1], x.reshape(-1, 6).T @ weight.reshape(-1, 10), atol=2e-4)
