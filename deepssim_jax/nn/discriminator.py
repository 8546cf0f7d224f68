"""The discriminator of patches that keeps the autoencoder's images sharp.

Contract: images float [n, h, w] to one number a patch, [n, h', w']; real ones are pushed to 1 and
reconstructions to 0 (Mao et al., ICCV 2017, eq. 2). The structure is MONAI's PatchDiscriminator
(Isola et al., CVPR 2017, section 3.2) with the statistics of the batch it sees: it has no other life
than in training.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from deepssim_jax.typing import Array


@dataclasses.dataclass(frozen=True)
class DiscriminatorSpec:
    """`channels` after the first layer, doubled in each of the `layers` after it."""

    channels: int = 64
    layers: int = 3


class _BatchNorm(nnx.Module):
    def __init__(self, channels: int):
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: Array) -> Array:
        centred = x - x.mean((0, 1, 2), keepdims=True)
        inverse = jax.lax.rsqrt((centred**2).mean((0, 1, 2), keepdims=True) + 1e-5)
        return centred * inverse * self.scale[...][None, None, None] + self.bias[None, None, None]


class Discriminator(nnx.Module):
    """The network of a `DiscriminatorSpec`."""

    def __init__(self, spec: DiscriminatorSpec, *, rngs: nnx.Rngs):
        widths = [spec.channels * 2**i for i in range(spec.layers + 1)]
        strides = [2] * (spec.layers - 1) + [1]

        def layer(into: int, out: int, stride: int, *, bias: bool = True) -> nnx.Conv:
            return nnx.Conv(into, out, (4, 4), strides=stride, padding=1, use_bias=bias, rngs=rngs)

        self.first = layer(1, widths[0], 2)
        self.convs = nnx.List(
            [
                layer(into, out, stride, bias=False)
                for into, out, stride in zip(widths, widths[1:], strides, strict=False)
            ]
        )
        self.norms = nnx.List([_BatchNorm(out) for out in widths[1:]])
        self.last = layer(widths[-1], 1, 1)

    def __call__(self, images: Array) -> Array:
        x = jax.nn.leaky_relu(self.first(images[..., None]), 0.2)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = jax.nn.leaky_relu(norm(conv(x)), 0.2)
        return self.last(x)[..., 0].astype(jnp.float32)
