"""ResNet (He et al., CVPR 2016) with bottlenecks, whose stride is at the 3 x 3 kernel.

Contract: grey images float [n, h, w] to float32 [n, dim]. Order and names are torchvision's, so that
both agree from the same weights.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from deepssim_jax.typing import Array

_WIDER = 4


@dataclasses.dataclass(frozen=True)
class ResNetSpec:
    """Bottlenecks of each stage, channels inside those of the first, length of the output."""

    depths: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    dim: int = 128


def _norm(channels: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return nnx.BatchNorm(channels, epsilon=1e-5, momentum=0.9, rngs=rngs)


def _convolution(into: int, out: int, width: int, stride: int, rngs: nnx.Rngs) -> nnx.Conv:
    return nnx.Conv(
        into, out, (width, width), strides=stride, padding=width // 2, use_bias=False, rngs=rngs
    )


class Bottleneck(nnx.Module):
    """Kernels of 1, 3 and 1, each normalised, and the input added before the last ReLU."""

    def __init__(self, into: int, width: int, stride: int, *, rngs: nnx.Rngs):
        out = _WIDER * width
        shapes = ((into, width, 1, 1), (width, width, 3, stride), (width, out, 1, 1))
        self.convs = nnx.List([_convolution(a, b, k, s, rngs) for a, b, k, s in shapes])
        self.norms = nnx.List([_norm(b, rngs) for _, b, _, _ in shapes])
        other = into != out or stride > 1
        self.shortcut = _convolution(into, out, 1, stride, rngs) if other else None
        self.shortcut_norm = _norm(out, rngs) if other else None

    def __call__(self, x: Array) -> Array:
        y = x
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(y))
            y = jax.nn.relu(y) if number < 2 else y
        if self.shortcut is not None and self.shortcut_norm is not None:
            x = self.shortcut_norm(self.shortcut(x))
        return jax.nn.relu(x + y)


class ResNet(nnx.Module):
    """The network of a `ResNetSpec`."""

    def __init__(self, spec: ResNetSpec, *, rngs: nnx.Rngs):
        self.stem = _convolution(1, spec.width, 7, 2, rngs)
        self.stem_norm = _norm(spec.width, rngs)
        blocks, into = [], spec.width
        for stage, depth in enumerate(spec.depths):
            width = spec.width * 2**stage
            for number in range(depth):
                stride = 2 if stage and not number else 1
                blocks.append(Bottleneck(into, width, stride, rngs=rngs))
                into = _WIDER * width
        self.blocks = nnx.List(blocks)
        self.last = nnx.Linear(into, spec.dim, rngs=rngs)

    def __call__(self, images: Array) -> Array:
        x = jax.nn.relu(self.stem_norm(self.stem(images[..., None])))
        x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for block in self.blocks:
            x = block(x)
        return self.last(x.mean((1, 2))).astype(jnp.float32)
