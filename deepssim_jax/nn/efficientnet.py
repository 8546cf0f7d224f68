"""EfficientNet-Lite0 (Tan and Le, ICML 2019; the Lite release of tensorflow/tpu): what it says of
photographs, and a backbone that begins with what it learned from them.

Contract: the network maps prepared images float [n, h, w, 3] to what its last layer pools, float32
[n, 1280], a generic embedding (ImageNet) against which those learned for copies can be held. Its trunk
maps images [n, h, w, c] to four stages as ConvNeXt does: stage i gives [n, h / 2^(i+2), w / 2^(i+2),
widths[i]]. The Lite variants have ReLU6 for swish and no squeeze-and-excitation. Every BatchNorm is at
rest and lies in the weights of the convolution before it, so that a layer is a convolution and a bias.
"""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from deepssim_jax.nn.pointwise import pointwise
from deepssim_jax.nn.stages import Stages
from deepssim_jax.ops.depthwise import depthwise_conv
from deepssim_jax.ops.intensity import rescale01
from deepssim_jax.ops.resample import resize
from deepssim_jax.typing import Array, Images

WIDTH = 1280  # of the last layer
_RESOLUTION = 224
# On a scale of 0 to 255; MEAN_RGB and STDDEV_RGB of `efficientnet_lite_builder.py` in tensorflow/tpu.
_MEAN, _DEVIATION = 127.0, 128.0


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
    space: ClassVar[int] = 2

    @property
    def groups(self) -> list[list[int]]:
        """The paper's stages by what the backbone takes for one: from one halving to the next.

        The stem, which halves as well, and all up to the second halving are the first.
        """
        groups: list[list[int]] = [[]]
        for stage, stride in enumerate(self.strides):
            if stride == 2 and 2 in self.strides[:stage]:
                groups.append([])
            groups[-1].append(stage)
        return groups

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of what each of the backbone's stages gives."""
        return tuple(self.dims[group[-1]] for group in self.groups)

    def build(self, *, rngs: nnx.Rngs) -> Stages:
        """The backbone."""
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
