"""Each augmentation alone, against a closed form or SciPy; batches that do not depend on size."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from deepssim_jax.ops import augment
from deepssim_jax.ops.augment import AugmentConfig, AugmentParams
from deepssim_jax.ops.intensity import rescale01, zscore

KEY = jax.random.key(0)
# Each in one program: operation by operation there are a hundred to be compiled.
augmented, geometry, appearance = map(
    jax.jit, (augment.augment, augment.geometry, augment.appearance)
)


def images(n: int = 4, shape: tuple[int, ...] = (32, 32)) -> jnp.ndarray:
    noise = np.random.default_rng(0).standard_normal((n, *shape))
    return jnp.asarray(ndimage.gaussian_filter(noise, (0, *(2,) * len(shape))), jnp.float32)


def nothing(shape: tuple[int, ...]) -> AugmentParams:
    return augment.sample_params(KEY, shape, AugmentConfig())


@pytest.mark.parametrize("shape", [(32, 32), (12, 14, 16)])
def test_no_augmentation_is_the_identity(shape: tuple[int, ...]) -> None:
    given = images(4, shape)
    np.testing.assert_allclose(augmented(given, nothing(given.shape), KEY), given, atol=1e-4)


@pytest.mark.parametrize(("axis", "shape"), [(0, (32, 32)), (1, (32, 30)), (2, (12, 14, 16))])
def test_flips(axis: int, shape: tuple[int, ...]) -> None:
    given = images(4, shape)
    flip = np.broadcast_to(np.arange(len(shape)) == axis, (4, len(shape)))
    params = dataclasses.replace(nothing(given.shape), flip=flip)
    np.testing.assert_allclose(geometry(given, params), np.flip(given, axis + 1), atol=1e-5)


def test_a_quarter_turn_is_rot90() -> None:
    given = images()
    params = dataclasses.replace(nothing(given.shape), rotation=jnp.full(4, np.pi / 2))
    np.testing.assert_allclose(geometry(given, params), np.rot90(given, axes=(1, 2)), atol=1e-4)


def test_shift_and_zoom() -> None:
    given = images()
    moved = geometry(
        given,
        dataclasses.replace(nothing(given.shape), shift=jnp.tile(jnp.array([[3.0, -2.0]]), (4, 1))),
    )
    np.testing.assert_allclose(moved[:, 3:, :-2], given[:, :-3, 2:], atol=1e-5)
    zoomed = geometry(given, dataclasses.replace(nothing(given.shape), zoom=jnp.full(4, 2.0)))
    expected = ndimage.affine_transform(np.asarray(given[0]), np.eye(2) / 2, offset=7.75, order=1)
    np.testing.assert_allclose(zoomed[0], expected, atol=1e-4)


def test_what_comes_from_outside_is_filled_as_asked() -> None:
    """Against SciPy's constant mode, a pixel inside the edge, where it mixes in the outside."""
    given = images()
    shift = jnp.tile(jnp.array([[5.0, -3.0]]), (4, 1))
    level = jnp.array([-1.0, 0.0, 0.25, 1.0])
    params = dataclasses.replace(nothing(given.shape), shift=shift, fill=level)
    moved = np.asarray(geometry(given, params))
    low, extent = np.min(given, (1, 2)), np.ptp(np.asarray(given), (1, 2))
    for row in range(1, 4):
        outside = float(low[row] + level[row] * extent[row])
        expected = ndimage.shift(np.asarray(given[row]), (5, -3), order=1, cval=outside)
        np.testing.assert_allclose(moved[row], expected, atol=1e-4)
    edge = ndimage.shift(np.asarray(given[0]), (5, -3), order=1, mode="nearest")
    np.testing.assert_allclose(moved[0], edge, atol=1e-4)


def test_fills_are_as_frequent_as_asked() -> None:
    fill = np.asarray(augment.sample_params(KEY, (2000, 8, 8), AugmentConfig(p_fill=0.6)).fill)
    assert np.mean(fill >= 0) == pytest.approx(0.6, abs=0.04)
    assert np.mean(fill == 0) == pytest.approx(0.3, abs=0.04)
    assert fill.max() <= 1


def test_gamma_acts_between_minimum_and_maximum() -> None:
    given = images()
    changed = appearance(
        given, dataclasses.replace(nothing(given.shape), gamma=jnp.full(4, 2.0)), KEY
    )
    np.testing.assert_allclose(rescale01(changed), rescale01(given) ** 2, atol=1e-4)
    np.testing.assert_allclose(changed.max((1, 2)), given.max((1, 2)), atol=1e-5)


def test_noise_has_the_stated_size() -> None:
    given = images(4, (64, 64))
    noisy = appearance(
        given, dataclasses.replace(nothing(given.shape), noise=jnp.full(4, 0.05)), KEY
    )
    extent = np.ptp(np.asarray(given), axis=(1, 2))
    np.testing.assert_allclose(np.std(noisy - given, axis=(1, 2)) / extent, 0.05, rtol=0.05)


def test_bias_is_a_smooth_positive_factor() -> None:
    given = jnp.broadcast_to(jnp.linspace(0.5, 1.0, 32)[None, :, None], (2, 32, 32))
    config = AugmentConfig(p_bias=1.0, bias=0.1)
    params = augment.sample_params(KEY, given.shape, config)
    ratio = rescaled_ratio(given, appearance(given, params, KEY))
    assert ratio.min() > 0.4 and ratio.max() < 2.5
    assert np.abs(np.diff(ratio, axis=2)).max() < 0.1


def rescaled_ratio(before: jnp.ndarray, after: jnp.ndarray) -> np.ndarray:
    low = before.min((1, 2), keepdims=True)
    return np.asarray((after - low) / jnp.maximum(before - low, 1e-3))[:, 4:]


def test_an_image_does_not_depend_on_its_neighbours() -> None:
    given = images()
    params = augment.sample_params(KEY, given.shape, AugmentConfig.stress())
    whole = geometry(given, params)
    one = geometry(given[2:3], jax.tree.map(lambda x: x[2:3], params))
    np.testing.assert_allclose(whole[2:3], one, atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [AugmentConfig.v1(), AugmentConfig.v2(), AugmentConfig.stress(), AugmentConfig.copies()],
)
@pytest.mark.parametrize("shape", [(16, 16), (8, 8, 8)])
def test_draws_stay_in_their_ranges(config: AugmentConfig, shape: tuple[int, ...]) -> None:
    params = augment.sample_params(KEY, (500, *shape), config)
    assert float(jnp.abs(params.rotation).max()) <= np.deg2rad(config.rotation_deg) + 1e-6
    assert float(jnp.abs(params.shift).max()) <= config.shift * max(shape) + 1e-4
    assert float(params.zoom.min()) >= config.zoom[0] and float(params.zoom.max()) <= config.zoom[1]
    turned = float((params.zoom != 1).mean())
    assert turned == pytest.approx(config.p_zoom, abs=0.08)
    assert np.isfinite(np.asarray(augmented(images(500, shape), params, KEY))).all()


def test_zscore_of_a_flat_image_is_zero() -> None:
    np.testing.assert_array_equal(zscore(jnp.full((1, 4, 4), 3.0)), 0.0)
