"""Layer norm and GELU against Flax, JAX and SciPy, with their gradients."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from deepssim_jax.ops.layers import gelu, layer_norm


def flax_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    shape = (1,) * (x.ndim - 1) + (-1,)
    return (x - mean) / jnp.sqrt(variance + 1e-6) * scale.reshape(shape) + bias.reshape(shape)


@pytest.mark.parametrize("shape", [(5, 7), (2, 3, 4, 24)])
def test_layer_norm_and_its_gradient(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x = (3 + 2 * rng.normal(size=shape)).astype(np.float32)
    scale, bias = rng.normal(size=(2, shape[-1])).astype(np.float32)
    weight = rng.normal(size=shape).astype(np.float32)

    def both(norm: Callable[..., jax.Array]) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """Values and slopes, in one program."""
        slopes = jax.grad(lambda *p: (norm(*p) * weight).sum(), (0, 1, 2))
        return jax.jit(lambda *p: (norm(*p), slopes(*p)))(x, scale, bias)

    (ours, got), (theirs, wanted) = both(lambda *p: layer_norm(*p, 1e-6)), both(flax_norm)
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_gelu_and_its_gradient() -> None:
    x = np.linspace(-12, 12, 4001)
    exact = x * special.ndtr(x)
    np.testing.assert_allclose(gelu(jnp.asarray(x, jnp.float32)), exact, atol=1e-6)
    slope = jax.vmap(jax.grad(gelu))(jnp.asarray(x, jnp.float32))
    density = np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(slope, special.ndtr(x) + x * density, atol=1e-6)
