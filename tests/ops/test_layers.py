"""Layer norm, GELU and pointwise products against JAX, NumPy and SciPy, with their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from deepssim_jax import parallel
from deepssim_jax.ops.layers import gelu, layer_norm, pointwise


def flax_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    shape = (1,) * (x.ndim - 1) + (-1,)
    return (x - mean) / jnp.sqrt(variance + 1e-6) * scale.reshape(shape) + bias.reshape(shape)


@pytest.mark.parametrize("shape", [(5, 7), (2, 3, 4, 24)])
def test_layer_norm_and_its_gradient(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x = jnp.asarray(3 + 2 * rng.normal(size=shape), jnp.float32)
    scale, bias = jnp.asarray(rng.normal(size=(2, shape[-1])), jnp.float32)
    weight = jnp.asarray(rng.normal(size=shape), jnp.float32)
    ours = layer_norm(x, scale, bias, 1e-6)
    np.testing.assert_allclose(ours, flax_norm(x, scale, bias), atol=2e-6)
    got = jax.grad(lambda *p: (layer_norm(*p, 1e-6) * weight).sum(), (0, 1, 2))(x, scale, bias)
    wanted = jax.grad(lambda *p: (flax_norm(*p) * weight).sum(), (0, 1, 2))(x, scale, bias)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_gelu_and_its_gradient() -> None:
    x = np.linspace(-12, 12, 4001)
    exact = x * special.ndtr(x)
    np.testing.assert_allclose(gelu(jnp.asarray(x, jnp.float32)), exact, atol=1e-6)
    slope = jax.vmap(jax.grad(gelu))(jnp.asarray(x, jnp.float32))
    density = np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(slope, special.ndtr(x) + x * density, atol=1e-6)


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
