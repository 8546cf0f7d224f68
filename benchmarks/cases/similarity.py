"""SSIM of all pairs, 2D and 3D, beside scikit-image."""

import importlib.util

import numpy as np

from benchmarks.cases.case import Case, Peer
from deepssim_jax.ops import ssim
from deepssim_jax.ops.intensity import zscore

_WINDOW = 7


def _images(n: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.asarray(zscore(rng.uniform(size=(n, *shape)), spatial_dims=len(shape)))


def _case(name: str, n: int, shape: tuple[int, ...], slow_pairs: int) -> Case:
    real, synthetic = _images(n, shape, 0), _images(n, shape, 1)
    dims = len(shape)

    def ours() -> np.ndarray:
        return ssim.ssim_matrix(real, synthetic, spatial_dims=dims)

    def theirs(count: int) -> np.ndarray:
        from skimage.metrics import structural_similarity

        extent = np.ptp(real[0])
        return np.array(
            [structural_similarity(real[0], b, data_range=extent) for b in synthetic[:count]]
        )

    def check() -> None:
        np.testing.assert_allclose(ours()[0, :3], theirs(3), atol=1e-5)

    # One cross moment: a product, a running sum along each axis by adding and taking away; then
    # about 12 operations a pixel. The least that any way of computing it needs.
    pixels = float(np.prod(shape))
    peers = {}
    if importlib.util.find_spec("skimage"):
        peers["skimage"] = Peer(lambda: theirs(slow_pairs), slow_pairs)
    flops = n * n * pixels * (1 + 2 * dims + 12)
    return Case(name, "pairs", n * n, ours, check, peers, flops, 8.0 * n * pixels)


def ssim_2d(scale: float) -> Case:
    """136 x 112, as in the study."""
    return _case("ssim_2d", max(64, int(256 * scale)), (136, 112), 500)


def ssim_3d(scale: float) -> Case:
    """96 x 112 x 96."""
    return _case("ssim_3d", max(4, int(16 * scale)), (96, 112, 96), 4)
