"""Each method against its definition, by NumPy and scikit-image."""

import numpy as np
import pytest
from scipy import ndimage

from deepssim_jax.nn.encoder import load_encoder
from deepssim_jax.scoring import methods

skimage = pytest.importorskip("skimage.metrics", reason="scikit-image is the peer of SSIM")


def pictures(count: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((count, 64, 64))
    return sum(s * ndimage.gaussian_filter(noise, (0, s, s)) for s in (2, 6, 15)).astype(np.float32)


REAL, OTHER = pictures(5, 0), pictures(5, 1)
BLEND = 0.7 * REAL + 0.3 * OTHER
METHODS = methods.methods(load_encoder())


@pytest.mark.parametrize("name", METHODS)
def test_a_copy_scores_above_a_blend_and_that_above_an_unrelated_image(name: str) -> None:
    scores = [METHODS[name](REAL, x) for x in (REAL, BLEND, OTHER)]
    assert all(len(s) == len(REAL) for s in scores)
    assert scores[0].min() > scores[1].max() > scores[1].mean() > scores[2].mean(), scores


def test_ncc_is_pearson() -> None:
    expected = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(REAL, BLEND, strict=True)]
    np.testing.assert_allclose(METHODS["ncc"](REAL, BLEND), expected, atol=1e-5)


def test_l2_by_hand() -> None:
    """Three pixels of 0, 1, 2 against 0, 2, 1, one row each: units (0, 1, 2) / sqrt(5)."""
    a, b = (np.array([[row]], np.float32) for row in ([0.0, 1.0, 2.0], [0.0, 2.0, 1.0]))
    expected = 2 - np.sqrt(2 - 2 * (2 + 2) / 5)
    np.testing.assert_allclose(METHODS["l2"](a, b), [expected], atol=1e-6)


def test_ssim_is_that_of_the_reference_method() -> None:
    z = [(x - x.mean((1, 2), keepdims=True)) / x.std((1, 2), keepdims=True) for x in (REAL, BLEND)]
    expected = [
        skimage.structural_similarity(a, b, data_range=a.max() - a.min())
        for a, b in zip(*z, strict=True)
    ]
    np.testing.assert_allclose(METHODS["ssim"](REAL, BLEND), expected, atol=1e-5)


def test_a_cosine_takes_any_embedding() -> None:
    method = methods.cosine(lambda images: images.mean(2))
    a, b = REAL.mean(2), BLEND.mean(2)
    expected = (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))
    np.testing.assert_allclose(method(REAL, BLEND), expected, rtol=1e-5)
