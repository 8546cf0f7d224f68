"""Warps, blur and resizing against SciPy; geometry that undoes itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from deepssim_jax.ops import resample

# Each in one program: operation by operation there are dozens to be compiled.
warp_affine, warp_displacement = map(jax.jit, (resample.warp_affine, resample.warp_displacement))
blur = jax.jit(resample.gaussian_blur, static_argnames=("radius", "spatial_dims"))


def images(n: int = 3, shape: tuple[int, ...] = (24, 30), seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((n, *shape))
    return ndimage.gaussian_filter(noise, (0, *(1.5,) * len(shape))).astype(np.float32)


@pytest.mark.parametrize("shape", [(24, 30), (10, 12, 14)])
def test_affine_equals_scipy(shape: tuple[int, ...]) -> None:
    dims, rng = len(shape), np.random.default_rng(1)
    linear = np.eye(dims) + rng.uniform(-0.15, 0.15, (2, dims, dims))
    shift = rng.uniform(-2, 2, (2, dims))
    matrices = np.concatenate([linear, shift[..., None]], -1).astype(np.float32)
    given = images(2, shape)
    found = warp_affine(jnp.asarray(given), jnp.asarray(matrices))
    centre = (np.array(shape) - 1) / 2
    for i in range(2):
        offset = centre + shift[i] - linear[i] @ centre
        expected = ndimage.affine_transform(
            given[i], linear[i], offset=offset, order=1, mode="nearest"
        )
        np.testing.assert_allclose(found[i], expected, atol=2e-4)


def test_fill_is_used_outside_only() -> None:
    given = jnp.ones((1, 8, 8))
    moved = warp_affine(given, jnp.array([[[1.0, 0, 0], [0, 1, 3]]]), fill=-7.0)
    np.testing.assert_array_equal(moved[0, :, :5], 1.0)
    np.testing.assert_array_equal(moved[0, :, 5:], -7.0)


def test_displacement_of_a_constant_is_a_shift() -> None:
    given = jnp.asarray(images())
    moved = warp_displacement(
        given, jnp.ones((3, 24, 30, 2)) * jnp.array([1.0, 0])[None, None, None]
    )
    np.testing.assert_allclose(moved[:, :-1], given[:, 1:], atol=1e-5)


@pytest.mark.parametrize("shape", [(24, 30), (9, 11, 13)])
def test_blur_equals_scipy_each_with_its_own_width(shape: tuple[int, ...]) -> None:
    given, sigmas = images(3, shape), np.array([0.0, 0.6, 1.2], np.float32)
    found = blur(jnp.asarray(given), jnp.asarray(sigmas), radius=5, spatial_dims=len(shape))
    for i, sigma in enumerate(sigmas):
        expected = ndimage.gaussian_filter(given[i], sigma, mode="nearest", radius=5)
        np.testing.assert_allclose(found[i], expected if sigma else given[i], atol=1e-5)


def test_resizing_keeps_the_mean() -> None:
    given = images(shape=(32, 32))
    small = resample.resize(jnp.asarray(given), (8, 8))
    np.testing.assert_allclose(small.mean((1, 2)), given.mean((1, 2)), atol=0.01)


def test_gradients_are_finite() -> None:
    given = jnp.asarray(images())
    matrices = jnp.tile(jnp.array([[[1.0, 0.1, 0.5], [-0.1, 1, 0.2]]]), (3, 1, 1))
    slope = jax.jit(jax.grad(lambda m: (resample.warp_affine(given, m) ** 2).sum()))(matrices)
    assert np.isfinite(np.asarray(slope)).all() and float(jnp.abs(slope).max()) > 0
