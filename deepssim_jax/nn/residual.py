"""Parts that the autoencoder and the denoising U-Net are made of.

Contract: x is float [n, h, w, c]. Names and order are those of MONAI's AutoencoderKL and
DiffusionModelUNet (Pinaya et al., arXiv 2307.15208), so that weights go over by one rule.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from deepssim_jax.ops.layers import group_norm
from deepssim_jax.typing import Array

_EPSILON = 1e-6


class GroupNorm(nnx.Module):
    """Group normalisation with a scale and a bias a channel."""

    def __init__(self, channels: int, *, groups: int):
        self.groups = groups
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: Array) -> Array:
        return group_norm(x, self.scale[...], self.bias[...], groups=self.groups, epsilon=_EPSILON)


def convolution(
    channels: int,
    out: int,
    *,
    width: int = 3,
    stride: int = 1,
    padding: int | tuple[tuple[int, int], ...] | None = None,
    zero: bool = False,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """A square kernel; `padding` keeps the size if None; `zero` starts at 0."""
    return nnx.Conv(
        channels,
        out,
        (width, width),
        strides=stride,
        padding=width // 2 if padding is None else padding,
        rngs=rngs,
        kernel_init=nnx.initializers.zeros_init() if zero else nnx.initializers.lecun_normal(),
    )


class ResidualBlock(nnx.Module):
    """Twice (norm, SiLU, convolution), and the input added; with `time` an embedding in between."""

    def __init__(
        self, channels: int, out: int, *, groups: int, time: int | None = None, rngs: nnx.Rngs
    ):
        self.norm1 = GroupNorm(channels, groups=groups)
        self.conv1 = convolution(channels, out, rngs=rngs)
        self.time_emb_proj = None if time is None else nnx.Linear(time, out, rngs=rngs)
        self.norm2 = GroupNorm(out, groups=groups)
        # A denoiser starts as the identity, so that its first gradients are those of a shallow one.
        self.conv2 = convolution(out, out, zero=time is not None, rngs=rngs)
        self.shortcut = None if out == channels else convolution(channels, out, width=1, rngs=rngs)

    def __call__(self, x: Array, embedding: Array | None = None) -> Array:
        h = self.conv1(jax.nn.silu(self.norm1(x)))
        if self.time_emb_proj is not None and embedding is not None:
            h = h + self.time_emb_proj(jax.nn.silu(embedding))[:, None, None]
        h = self.conv2(jax.nn.silu(self.norm2(h)))
        return h + (x if self.shortcut is None else self.shortcut(x))


class Upsample(nnx.Module):
    """Every pixel becomes 2 x 2 of them, then a convolution."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.postconv = convolution(channels, channels, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        n, h, w, c = x.shape
        # One axis at a time: a reshape that joins two pairs at once cannot be spread over devices.
        x = jnp.broadcast_to(x[:, :, None], (n, h, 2, w, c)).reshape(n, 2 * h, w, c)
        x = jnp.broadcast_to(x[:, :, :, None], (n, 2 * h, w, 2, c)).reshape(n, 2 * h, 2 * w, c)
        return self.postconv(x)


def filled(x: Array, *, multiple: int, border: bool) -> Array:
    """[n, h, w, c] with rows below and columns at the right until both sides are multiples.

    They are copies of the last one with `border`, else zeros.
    """
    for axis in (1, 2):
        missing = -x.shape[axis] % multiple
        if missing:
            last = jax.lax.slice_in_dim(x, x.shape[axis] - 1, x.shape[axis], axis=axis)
            more = [last if border else jnp.zeros_like(last)] * missing
            x = jnp.concatenate([x, *more], axis)
    return x
