"""Ways of scoring a pair of images, behind one interface, so that they can stand side by side.

Contract: a method maps real [n, s, s] and synthetic images [n, s, s], row for row, of any intensity
scale, to float scores [n]; larger is more alike. The scales differ: thresholds are chosen for each
method on other patients than those it is judged by (`scoring.evaluation`).
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.nn.encoder import Encoder, embed
from deepssim_jax.ops import search_grid
from deepssim_jax.ops.batches import in_batches
from deepssim_jax.ops.fsim import fsim
from deepssim_jax.ops.intensity import rescale01, zscore
from deepssim_jax.ops.search_grid import SearchGrid
from deepssim_jax.ops.ssim import ssim
from deepssim_jax.scoring.verify import verify_pairs
from deepssim_jax.typing import Array, Images

Method = Callable[[np.ndarray, np.ndarray], np.ndarray]
_BATCH = 128


def _batched(score: Callable[[Array, Array], Array]) -> Method:
    jitted = jax.jit(lambda *pair: score(*(x.astype(jnp.float32) for x in pair)))
    return functools.partial(in_batches, jitted, size=_BATCH)


def _ssim(real: Images, synthetic: Images) -> Array:
    """SSIM of z-scored images, the real one's range (Scardace et al., arXiv 2509.16582)."""
    return ssim(zscore(real), zscore(synthetic), data_range="first", reduction="none")


def _ncc(real: Images, synthetic: Images) -> Array:
    """Pearson's correlation of all pixels (Akbar et al., arXiv 2305.07644)."""
    return (zscore(real) * zscore(synthetic)).mean((1, 2))


def _l2(real: Images, synthetic: Images) -> Array:
    """2 - |a / |a| - b / |b||, images on [0, 1]: the normalised l2 of UMS (arXiv 2410.02467)."""
    units = [
        x / jnp.maximum(jnp.sqrt((x**2).sum((1, 2), keepdims=True)), 1e-9)
        for x in (rescale01(real), rescale01(synthetic))
    ]
    return 2 - jnp.sqrt(((units[0] - units[1]) ** 2).sum((1, 2)))


def _fsim(real: Images, synthetic: Images) -> Array:
    """The reference implementation's FSIM, images on 0 to 255."""
    return fsim(255 * rescale01(real), 255 * rescale01(synthetic))


def _aligned(real: np.ndarray, synthetic: np.ndarray) -> np.ndarray:
    """Best correlation over the grid of the aligned search, at low resolution."""
    grid = SearchGrid()
    best = functools.partial(search_grid.candidates, grid=grid)
    return _batched(lambda a, b: best(zscore(b), zscore(a))[1].max(1))(real, synthetic)


def _cascade(real: np.ndarray, synthetic: np.ndarray) -> np.ndarray:
    """The copy score, by which an audit verifies."""
    return verify_pairs(synthetic, real).score


def cosine(embedding: Callable[[np.ndarray], np.ndarray]) -> Method:
    """Cosine of any embedding [n, s, s] -> [n, d] (UMS, SemDeDup, DeepSSIM)."""

    def method(real: np.ndarray, synthetic: np.ndarray) -> np.ndarray:
        a, b = (np.asarray(embedding(x), np.float32) for x in (real, synthetic))
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        return (a * b).sum(1) / np.maximum(norms, 1e-12)

    return method


def methods(encoder: Encoder) -> dict[str, Method]:
    """Every method of the package by its name; `encoder` is that of the last embedding."""
    return {
        "ssim": _batched(_ssim),
        "fsim": _batched(_fsim),
        "ncc": _batched(_ncc),
        "l2": _batched(_l2),
        "encoder": cosine(functools.partial(embed, encoder)),
        "aligned": _aligned,
        "cascade": _cascade,
    }
