"""ConvNeXt (Liu et al., CVPR 2022), the four stages that the embedders read.

Contract: images float [n, h, w, c]; stage i gives [n, h / 2^(i+2), w / 2^(i+2), dims[i]], odd sizes
rounded down as a strided convolution without padding does. Volumes [n, d, h, w, c] likewise, where
the specification has three axes.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from deepssim_jax.nn.pointwise import pointwise
from deepssim_jax.nn.stages import Stages
from deepssim_jax.ops.depthwise import depthwise_conv
from deepssim_jax.ops.layers import gelu, layer_norm
from deepssim_jax.typing import Array

_EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class ConvNeXtSpec:
    """Sizes of a ConvNeXt: channels of the input, blocks and channels of the stages.

    `space` is 2 for images and 3 for volumes, `kernel` the width of the depthwise convolutions.
    """

    channels: int
    depths: tuple[int, ...]
    dims: tuple[int, ...]
    layer_scale: float = 1e-6
    space: int = 2
    kernel: int = 7

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of what each stage gives."""
        return self.dims

    def build(self, *, rngs: nnx.Rngs) -> Stages:
        """The backbone."""
        return Stages(Stage(self, number, rngs=rngs) for number in range(len(self.dims)))


class LayerNorm(nnx.LayerNorm):
    """`nnx.LayerNorm`'s parameters and values, by `ops.layers`; computed in float32."""

    def __call__(self, x: Array) -> Array:
        assert self.scale is not None and self.bias is not None
        wide = (y.astype(jnp.float32) for y in (x, self.scale[...], self.bias[...]))
        return layer_norm(*wide, self.epsilon).astype(x.dtype)


class Block(nnx.Module):
    """x + scale * MLP(LayerNorm(depthwise convolution(x)))."""

    def __init__(self, spec: ConvNeXtSpec, dim: int, *, rngs: nnx.Rngs):
        shape = (spec.kernel,) * spec.space + (dim,)
        kernel = jax.random.truncated_normal(rngs.params(), -2, 2, shape) * 0.02
        self.depthwise = nnx.Param(kernel)
        self.depthwise_bias = nnx.Param(jnp.zeros(dim))
        self.norm = LayerNorm(dim, epsilon=_EPSILON, rngs=rngs)
        self.expand = nnx.Linear(dim, 4 * dim, dot_general=pointwise, rngs=rngs)
        self.project = nnx.Linear(4 * dim, dim, dot_general=pointwise, rngs=rngs)
        self.scale = nnx.Param(jnp.full(dim, spec.layer_scale, jnp.float32))

    def __call__(self, x: Array) -> Array:
        y = depthwise_conv(x, self.depthwise[...])
        lead = (None,) * (x.ndim - 1)
        y = self.norm(y + self.depthwise_bias[...][lead])
        y = self.project(gelu(self.expand(y)))
        return x + y * self.scale[...][lead]


class Patchify(nnx.Module):
    """A convolution whose stride is its size: a linear map of the pixels of each patch.

    As a product it runs at full speed on every platform, unlike a strided convolution on a CPU.
    """

    def __init__(self, space: int, patch: int, into: int, out: int, *, rngs: nnx.Rngs):
        self.patch = patch
        self.linear = nnx.Linear(patch**space * into, out, dot_general=pointwise, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        p, dims = self.patch, x.ndim - 2
        counts = [size // p for size in x.shape[1:-1]]
        # One axis at a time, so that a sharded batch keeps its sharding.
        for axis, count in enumerate(counts):
            place = 1 + 2 * axis
            x = jax.lax.slice_in_dim(x, 0, count * p, axis=place)
            x = x.reshape(*x.shape[:place], count, p, *x.shape[place + 1 :])
        whole, inner = range(1, 2 * dims, 2), range(2, 2 * dims + 1, 2)
        x = x.transpose(0, *whole, *inner, 2 * dims + 1)
        return self.linear(x.reshape(x.shape[0], *counts, p**dims * x.shape[-1]))


class Stage(nnx.Module):
    """Downsampling and blocks. The stem normalises after its patches, the others before."""

    def __init__(self, spec: ConvNeXtSpec, number: int, *, rngs: nnx.Rngs):
        self.stem = number == 0
        into, out = (spec.channels, *spec.dims)[number : number + 2]
        self.norm = LayerNorm(out if self.stem else into, epsilon=_EPSILON, rngs=rngs)
        self.patches = Patchify(spec.space, 4 if self.stem else 2, into, out, rngs=rngs)
        self.blocks = nnx.List([Block(spec, out, rngs=rngs) for _ in range(spec.depths[number])])

    def __call__(self, x: Array) -> Array:
        x = self.norm(self.patches(x)) if self.stem else self.patches(self.norm(x))
        for block in self.blocks:
            x = block(x)
        return x
