"""EfficientNet-Lite0 (Tan and Le, ICML 2019; the Lite release of tensorflow/tpu), for inference.

Contract: prepared images float [n, h, w, 3] to what its last layer pools, float32 [n, width]: a
generic embedding learned on photographs (ImageNet), against which those learned for copies can be
held. The Lite variants have ReLU6 for swish and no squeeze-and-excitation. Every BatchNorm is at rest
and lies in the weights of the convolution before it, so that a layer is a convolution and a bias.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from deepssim_jax.ops.depthwise import depthwise_conv
from deepssim_jax.ops.intensity import rescale01
from deepssim_jax.ops.resample import resize
from deepssim_jax.typing import Array, Images

# On a scale of 0 to 255; MEAN_RGB and STDDEV_RGB of `efficientnet_lite_builder.py` in tensorflow/tpu.
_MEAN, _DEVIATION = 127.0, 128.0


@dataclasses.dataclass(frozen=True)
class EfficientNetSpec:
    """Sizes; the defaults are Lite0's (table 1 of the paper, without its width and depth factors).

    `depths`, `dims`, `kernels` and `strides` are blocks, channels, kernel sizes and first strides of
    the stages. The first stage does not expand its channels, the others do by `expansion`.
    `resolution` is the side in pixels that images are brought to.
    """

    stem: int = 32
    depths: tuple[int, ...] = (1, 2, 2, 3, 3, 4, 1)
    dims: tuple[int, ...] = (16, 24, 40, 80, 112, 192, 320)
    kernels: tuple[int, ...] = (3, 3, 5, 3, 5, 5, 3)
    strides: tuple[int, ...] = (1, 2, 2, 2, 1, 2, 1)
    expansion: int = 6
    width: int = 1280
    resolution: int = 224


def _relu6(x: Array) -> Array:
    return jnp.clip(x, 0.0, 6.0)


class Block(nnx.Module):
    """Expand, filter each channel by itself, project (Sandler et al., CVPR 2018, figure 4d)."""

    def __init__(
        self, into: int, out: int, *, kernel: int, stride: int, expansion: int, rngs: nnx.Rngs
    ):
        inner = into * expansion
        self.stride, self.residual = stride, stride == 1 and into == out
        self.expand = nnx.Linear(into, inner, rngs=rngs) if expansion > 1 else None
        drawn = jax.random.normal(rngs.params(), (kernel, kernel, inner)) / kernel
        self.depthwise = nnx.Param(drawn)
        self.depthwise_bias = nnx.Param(jnp.zeros(inner))
        self.project = nnx.Linear(inner, out, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        y = x if self.expand is None else _relu6(self.expand(x))
        y = _strided(depthwise_conv(y, self.depthwise[...]), self.stride)
        y = self.project(_relu6(y + self.depthwise_bias[...][None, None, None]))
        return x + y if self.residual else y


def _strided(x: Array, stride: int) -> Array:
    """What TensorFlow's "SAME" gives with a stride of 1 or 2, from what it gives without.

    Along an even side it pads one pixel less in front than behind, so that its first window is
    centred on the second pixel; along an odd one on the first.
    """
    if stride == 1:
        return x
    row, column = ((side + 1) % 2 for side in x.shape[1:3])
    return x[:, row::stride, column::stride]


class EfficientNet(nnx.Module):
    """The network of an `EfficientNetSpec`, without its classifier."""

    def __init__(self, spec: EfficientNetSpec, *, rngs: nnx.Rngs):
        self.stem = nnx.Conv(3, spec.stem, (3, 3), strides=2, rngs=rngs)
        blocks, into = [], spec.stem
        stages = zip(spec.depths, spec.dims, spec.kernels, spec.strides, strict=True)
        for stage, (depth, out, kernel, stride) in enumerate(stages):
            for number in range(depth):
                blocks.append(
                    Block(
                        into,
                        out,
                        kernel=kernel,
                        stride=1 if number else stride,
                        expansion=spec.expansion if stage else 1,
                        rngs=rngs,
                    )
                )
                into = out
        self.blocks = nnx.List(blocks)
        self.head = nnx.Linear(into, spec.width, rngs=rngs)

    def __call__(self, images: Array) -> Array:
        x = _relu6(self.stem(images))
        for block in self.blocks:
            x = block(x)
        return _relu6(self.head(x)).mean((1, 2))


def prepared(spec: EfficientNetSpec, images: Images) -> Array:
    """Grey images as the network learned to see photographs.

    Each is brought to [0, 255] by its own range, to the resolution of the network by antialiased
    linear resizing, whole (the release cuts out the middle, but a copy may differ at its border), and
    to (x - 127) / 128 in three equal channels.

    Args:
      spec: of the network.
      images: [n, h, w], any real type and intensity scale.

    Returns:
      float32 [n, resolution, resolution, 3].
    """
    grey = resize(255 * rescale01(images), (spec.resolution, spec.resolution))
    return jnp.repeat(((grey - _MEAN) / _DEVIATION)[..., None], 3, axis=-1)
