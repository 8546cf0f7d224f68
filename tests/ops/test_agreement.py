"""What the verified score must and must not react to."""

import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from deepssim_jax.ops.agreement import agreement
from deepssim_jax.ops.intensity import zscore


def pictures(n: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((n, 128, 128))
    mixed = sum(s * ndimage.gaussian_filter(noise, (0, s, s)) for s in (2, 5, 12))
    return np.asarray(zscore(mixed))


def score(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(agreement(jnp.asarray(a), jnp.asarray(b), jnp.ones(a.shape, bool)).score)


def test_identity_is_one_and_a_linear_change_nearly_so() -> None:
    a = pictures(3, 0)
    np.testing.assert_array_equal(score(a, a), 1.0)
    assert score(1.7 * a + 3, a).min() > 0.999


def test_the_broad_term_is_pearson() -> None:
    a, b = pictures(2, 0), pictures(2, 1)
    found = agreement(jnp.asarray(a), jnp.asarray(b), jnp.ones(a.shape, bool)).broad
    # The score smooths both sides a little first.
    expected = [
        np.corrcoef(*(ndimage.gaussian_filter(x[i], 0.7).ravel() for x in (a, b)))[0, 1]
        for i in (0, 1)
    ]
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_copies_stand_above_local_changes_and_those_above_strangers() -> None:
    a, other = pictures(6, 0), pictures(6, 7)
    noisy = a + 0.1 * np.random.default_rng(2).standard_normal(a.shape)
    changed = a.copy()
    changed[:, 40:80, 40:80] = other[:, 40:80, 40:80]
    copies, near, strangers = score(noisy, a), score(changed, a), score(other, a)
    assert copies.min() > near.max() > near.min() > strangers.max()


def test_only_the_mask_counts() -> None:
    a = pictures(2, 0)
    spoiled = a.copy()
    spoiled[:, :, 100:] = 50.0
    mask = np.ones(a.shape, bool)
    mask[:, :, 96:] = False
    found = agreement(jnp.asarray(a), jnp.asarray(spoiled), jnp.asarray(mask)).score
    assert np.asarray(found).min() > 0.999


def test_flat_images_are_finite() -> None:
    flat = np.zeros((1, 128, 128), np.float32)
    assert np.isfinite(score(flat, flat)).all() and np.isfinite(score(flat, pictures(1, 0))).all()
