"""MONAI's AutoencoderKL and DiffusionModelUNet: their names and layouts, and ours.

Contract: a state dict is a mapping of names to NumPy arrays. PyTorch keeps linear weights as
[out, in] and convolutions as [out, in, h, w]; ours are [in, out] and [h, w, in, out]. MONAI wraps
each convolution once more, under the name `conv`; apart from that and the few names below the two
trees are the same. Every tensor must have its place.
"""

import re
from collections.abc import Mapping

import numpy as np
from flax import nnx

from deepssim_jax.nn import network_file
from deepssim_jax.nn.autoencoder import AutoencoderSpec
from deepssim_jax.nn.encoder import misfits
from deepssim_jax.nn.network_file import Spec

_LEAF = {"kernel": "weight", "scale": "weight", "bias": "bias"}


def names(spec: Spec) -> dict[str, str]:
    """Their name of each of our weights."""
    shapes = network_file.shapes(spec)
    shortcut = "nin_shortcut" if isinstance(spec, AutoencoderSpec) else "skip_connection"
    out = {}
    for ours in shapes:
        parent, _, leaf = ours.rpartition(".")
        wrapped = len(shapes.get(f"{parent}.kernel", ())) == 4
        theirs = re.sub(r"^(time_embed|out)\.1$", r"\1.2", parent)
        theirs = re.sub(r"\bshortcut$", shortcut, theirs)
        out[ours] = f"{theirs}{'.conv' if wrapped else ''}.{_LEAF[leaf]}"
    return out


def from_monai(spec: Spec, state_dict: Mapping[str, np.ndarray]) -> nnx.State:
    """Our weights.

    Args:
      spec: of the network; MONAI's files do not say it.
      state_dict: of `AutoencoderKL` without attention, or of `DiffusionModelUNet`.

    Raises:
      ValueError: with every name and shape that does not fit.
    """
    wanted = {
        name: np.broadcast_to(np.float32(0), network_file.shapes(spec)[ours])
        for ours, name in names(spec).items()
    }
    wrong = misfits(
        {name: _theirs(value).shape for name, value in wanted.items()},
        {name: tuple(value.shape) for name, value in state_dict.items()},
    )
    if wrong:
        raise ValueError(f"these are not this network's weights: {'; '.join(wrong[:8])}")
    tensors = {ours: _ours(state_dict[name]) for ours, name in names(spec).items()}
    return network_file.from_tensors(spec, tensors, what="the state dict")


def to_monai(spec: Spec, state: nnx.State) -> dict[str, np.ndarray]:
    """Our weights under MONAI's names, in PyTorch's layout."""
    tensors = network_file.to_tensors(state)
    return {name: _theirs(tensors[ours]) for ours, name in names(spec).items()}


def _theirs(value: np.ndarray) -> np.ndarray:
    if value.ndim == 4:
        return value.transpose(3, 2, 0, 1)
    return value.T if value.ndim == 2 else value


def _ours(value: np.ndarray) -> np.ndarray:
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    return value.T if value.ndim == 2 else value
