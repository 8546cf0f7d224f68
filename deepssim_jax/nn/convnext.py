"""ConvNeXt (Liu et al., CVPR 2022), the four stages that the embedders read.

Contract: images float [n, h, w, c]; stage i gives [n, h / 2^(i+2), w / 2^(i+2), dims[i]], odd sizes
rounded down as a strided convolution without padding does.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from deepssim_jax.ops.depthwise import depthwise_conv
from deepssim_jax.ops.layers import gelu, layer_norm
from deepssim_jax.typing import Array

_EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class ConvNeXtSpec:
    """Sizes of a ConvNeXt: channels of the input, blocks and channels of the stages."""

    channels: int
    depths: tuple[int, ...]
    dims: tuple[int, ...]
    layer_scale: float = 1e-6


class LayerNorm(nnx.LayerNorm):
    """`nnx.LayerNorm`'s parameters and values, by `ops.layers`; computed in float32."""

    def __call__(self, x: Array) -> Array:
        assert self.scale is not None and self.bias is not None
        wide = (y.astype(jnp.float32) for y in (x, self.scale[...], self.bias[...]))
        return layer_norm(*wide, self.epsilon).astype(x.dtype)


class Block(nnx.Module):
    """x + scale * MLP(LayerNorm(depthwise 7 x 7 (x)))."""

    def __init__(self, dim: int, scale: float, *, rngs: nnx.Rngs):
        kernel = jax.random.truncated_normal(rngs.params(), -2, 2, (7, 7, dim)) * 0.02
        self.depthwise = nnx.Param(kernel)
        self.depthwise_bias = nnx.Param(jnp.zeros(dim))
        self.norm = LayerNorm(dim, epsilon=_EPSILON, rngs=rngs)
        self.expand = nnx.Linear(dim, 4 * dim, rngs=rngs)
        self.project = nnx.Linear(4 * dim, dim, rngs=rngs)
        self.scale = nnx.Param(jnp.full(dim, scale, jnp.float32))

    def __call__(self, x: Array) -> Array:
        y = depthwise_conv(x, self.depthwise[...])
        y = self.norm(y + self.depthwise_bias[...][None, None, None])
        y = self.project(gelu(self.expand(y)))
        return x + y * self.scale[...][None, None, None]


class Patchify(nnx.Module):
    """A convolution whose stride is its size: a linear map of the pixels of each patch.

    As a product it runs at full speed on every platform, unlike a strided convolution on a CPU.
    """

    def __init__(self, patch: int, into: int, out: int, *, rngs: nnx.Rngs):
        self.patch = patch
        self.linear = nnx.Linear(patch * patch * into, out, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        p = self.patch
        n, height, width, channels = x.shape
        rows, columns = height // p, width // p
        # One axis at a time, so that a sharded batch keeps its sharding.
        x = x[:, : rows * p, : columns * p].reshape(n, rows, p, columns * p, channels)
        x = x.reshape(n, rows, p, columns, p, channels).transpose(0, 1, 3, 2, 4, 5)
        return self.linear(x.reshape(n, rows, columns, p * p * channels))


class Stage(nnx.Module):
    """Downsampling and blocks. The stem normalises after its patches, the others before."""

    def __init__(
        self, patch: int, into: int, out: int, depth: int, scale: float, *, rngs: nnx.Rngs
    ):
        self.stem = patch == 4
        self.norm = LayerNorm(out if self.stem else into, epsilon=_EPSILON, rngs=rngs)
        self.patches = Patchify(patch, into, out, rngs=rngs)
        self.blocks = nnx.List([Block(out, scale, rngs=rngs) for _ in range(depth)])

    def __call__(self, x: Array) -> Array:
        x = self.norm(self.patches(x)) if self.stem else self.patches(self.norm(x))
        for block in self.blocks:
            x = block(x)
        return x


class ConvNeXt(nnx.Module):
    """The stages; calling it gives the output of each."""

    def __init__(self, spec: ConvNeXtSpec, *, rngs: nnx.Rngs):
        into = (spec.channels, *spec.dims[:-1])
        self.stages = nnx.List(
            [
                Stage(4 if i == 0 else 2, a, b, depth, spec.layer_scale, rngs=rngs)
                for i, (a, b, depth) in enumerate(zip(into, spec.dims, spec.depths, strict=True))
            ]
        )

    def __call__(self, images: Array) -> list[Array]:
        outputs = []
        for stage in self.stages:
            images = stage(images)
            outputs.append(images)
        return outputs
