"""What is taken from an image, against its definition."""

import jax
import numpy as np
import pytest

from deepssim_jax.ops.degradation import PHOTONS, SIGMA, Task, degrade


def test_noise_has_the_mean_and_the_variance_of_its_definition() -> None:
    level = np.float32(0.4)
    images = np.full((64, 64, 64), level)
    made = np.asarray(degrade(jax.random.key(0), images, task=Task.DENOISING))
    assert made.mean() == pytest.approx(level, abs=1e-3)
    assert made.var() == pytest.approx(level / PHOTONS + SIGMA**2, rel=0.01)
    again = np.asarray(degrade(jax.random.key(0), images, task=Task.DENOISING))
    np.testing.assert_array_equal(made, again)
    assert (np.asarray(degrade(jax.random.key(1), images, task=Task.DENOISING)) != made).any()


def test_every_fourth_pixel_is_kept_and_the_rest_interpolated() -> None:
    image = np.random.default_rng(0).random((16, 16)).astype(np.float32)
    made = np.asarray(degrade(jax.random.key(0), image[None], task=Task.SUPER_RESOLUTION))[0]
    known, every = np.arange(0, 16, 4), np.arange(16)
    rows = np.stack([np.interp(every, known, column) for column in image[::4, ::4].T], 1)
    expected = np.stack([np.interp(every, known, row) for row in rows])
    np.testing.assert_allclose(made, expected, atol=1e-6)
    np.testing.assert_allclose(made[::4, ::4], image[::4, ::4], atol=1e-6)
