"""What is left out of the verified score in the benchmark is left out, and the whole is the whole."""

import numpy as np
from scipy import ndimage

from benchmarks.cases import score_parts
from deepssim_jax.ops import agreement
from deepssim_jax.scoring.verify import verify_pairs


def test_the_whole_is_what_verification_says_and_a_part_less_is_not() -> None:
    rng = np.random.default_rng(0)
    real = ndimage.gaussian_filter(rng.standard_normal((3, 64, 64)), (0, 2, 2)).astype(np.float32)
    copies = real + 0.05 * real.std() * rng.standard_normal(real.shape).astype(np.float32)
    expected = verify_pairs(copies, real)
    np.testing.assert_allclose(score_parts.variant()(real, copies), expected.score, atol=1e-6)
    sharp = score_parts.variant((agreement, "_blur_band", np.eye))(real, copies)
    assert (np.abs(sharp - expected.score) > 1e-3).all()
    np.testing.assert_allclose(verify_pairs(copies, real).score, expected.score, atol=1e-6)
