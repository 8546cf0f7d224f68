"""The U-Net that tells the noise in latents.

Contract: latents float [n, h, w, c], times [n] (steps of the training schedule, any real number)
and, where it was built for one, a context [n, tokens, context] to latents float32 of the same
shape. Sides that the levels do not divide are filled with zeros and cut again. The structure is
MONAI's DiffusionModelUNet (Rombach et al., CVPR 2022, appendix E.2).
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from deepssim_jax.nn.residual import GroupNorm, ResidualBlock, Upsample, convolution, filled
from deepssim_jax.typing import Array


@dataclasses.dataclass(frozen=True)
class UNetSpec:
    """What a U-Net is built from; stored beside its weights.

    `attention` says which levels have it, `heads` the channels of one head there; `context` is the
    length of a token of the condition, None for none.
    """

    latent: int = 3
    channels: tuple[int, ...] = (256, 512, 768)
    attention: tuple[bool, ...] = (False, True, True)
    heads: tuple[int, ...] = (0, 512, 768)
    blocks: int = 2
    groups: int = 32
    context: int | None = None

    def __post_init__(self) -> None:
        if not len(self.channels) == len(self.attention) == len(self.heads):
            raise ValueError(
                f"channels {self.channels}, attention {self.attention} and heads {self.heads} must "
                "have one entry a level each"
            )
        if any(c % self.groups for c in self.channels):
            raise ValueError(f"channels {self.channels} must be multiples of groups {self.groups}")
        # Between the way down and the way up there is attention always, with the last level's heads.
        attention = (*self.attention[:-1], True)
        for channels, head, has in zip(self.channels, self.heads, attention, strict=True):
            if has and (head < 1 or channels % head):
                raise ValueError(f"{channels} channels do not part into heads of {head}")


def time_features(times: Array, width: int) -> Array:
    """Cosines and sines [n, width] of times [n] (Ho et al., NeurIPS 2020, appendix B)."""
    half = width // 2
    rates = jnp.exp(-math.log(10_000) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = times.astype(jnp.float32)[:, None] * rates[None]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)


class _Attention(nnx.Module):
    """Attention of tokens [n, t, c] to themselves or to a context."""

    def __init__(
        self, channels: int, *, head: int, context: int | None, bias: bool, rngs: nnx.Rngs
    ):
        self.head = head
        into = channels if context is None else context
        self.to_q = nnx.Linear(channels, channels, use_bias=bias, rngs=rngs)
        self.to_k = nnx.Linear(into, channels, use_bias=bias, rngs=rngs)
        self.to_v = nnx.Linear(into, channels, use_bias=bias, rngs=rngs)
        self.out_proj = nnx.Linear(channels, channels, rngs=rngs)

    def __call__(self, x: Array, context: Array | None = None) -> Array:
        seen = x if context is None else context

        def heads(y: Array) -> Array:
            return y.reshape(*y.shape[:2], -1, self.head)

        out = jax.nn.dot_product_attention(
            heads(self.to_q(x)), heads(self.to_k(seen)), heads(self.to_v(seen))
        )
        return self.out_proj(out.reshape(x.shape))


class _SelfAttention(nnx.Module):
    """Of all pixels, with the input added."""

    def __init__(self, channels: int, *, head: int, groups: int, rngs: nnx.Rngs):
        self.norm = GroupNorm(channels, groups=groups)
        self.attn = _Attention(channels, head=head, context=None, bias=True, rngs=rngs)

    def __call__(self, x: Array, context: Array | None = None) -> Array:
        del context
        n, h, w, c = x.shape
        return x + self.attn(self.norm(x).reshape(n, h * w, c)).reshape(x.shape)


class _FeedForward(nnx.Module):
    """Gated by GELU (Shazeer, arXiv 2002.05202)."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.linear1 = nnx.Linear(channels, 8 * channels, rngs=rngs)
        self.linear2 = nnx.Linear(4 * channels, channels, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        value, gate = jnp.split(self.linear1(x), 2, -1)
        return self.linear2(value * jax.nn.gelu(gate, approximate=False))


class _TransformerBlock(nnx.Module):
    def __init__(self, channels: int, *, head: int, context: int, rngs: nnx.Rngs):
        self.attn1 = _Attention(channels, head=head, context=None, bias=False, rngs=rngs)
        self.attn2 = _Attention(channels, head=head, context=context, bias=False, rngs=rngs)
        self.ff = _FeedForward(channels, rngs=rngs)
        self.norm1, self.norm2, self.norm3 = (
            nnx.LayerNorm(channels, epsilon=1e-5, rngs=rngs) for _ in range(3)
        )

    def __call__(self, x: Array, context: Array) -> Array:
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class _SpatialTransformer(nnx.Module):
    """Pixels attend to each other and to the context."""

    def __init__(self, channels: int, *, head: int, groups: int, context: int, rngs: nnx.Rngs):
        self.norm = GroupNorm(channels, groups=groups)
        self.proj_in = convolution(channels, channels, width=1, rngs=rngs)
        block = _TransformerBlock(channels, head=head, context=context, rngs=rngs)
        self.transformer_blocks = nnx.List([block])
        self.proj_out = convolution(channels, channels, width=1, zero=True, rngs=rngs)

    def __call__(self, x: Array, context: Array) -> Array:
        n, h, w, c = x.shape
        tokens = self.proj_in(self.norm(x)).reshape(n, h * w, c)
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        return x + self.proj_out(tokens.reshape(n, h, w, c))


class _Downsample(nnx.Module):
    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.op = convolution(channels, channels, stride=2, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.op(x)


class _Level(nnx.Module):
    """Residual blocks, each with attention where the level has it."""

    def __init__(self, spec: UNetSpec, level: int, into: list[int], *, rngs: nnx.Rngs):
        out = spec.channels[level]
        time = 4 * spec.channels[0]
        self.resnets = nnx.List(
            [ResidualBlock(c, out, groups=spec.groups, time=time, rngs=rngs) for c in into]
        )
        self.attentions = (
            nnx.List([_attention(spec, level, rngs) for _ in into])
            if spec.attention[level]
            else None
        )


def _attention(spec: UNetSpec, level: int, rngs: nnx.Rngs) -> Any:
    common = {"head": spec.heads[level], "groups": spec.groups, "rngs": rngs}
    channels = spec.channels[level]
    if spec.context is None:
        return _SelfAttention(channels, **common)
    return _SpatialTransformer(channels, context=spec.context, **common)


class _Down(_Level):
    def __init__(self, spec: UNetSpec, level: int, *, rngs: nnx.Rngs):
        before, out = spec.channels[max(level - 1, 0)], spec.channels[level]
        super().__init__(spec, level, [before, *[out] * (spec.blocks - 1)], rngs=rngs)
        last = level == len(spec.channels) - 1
        self.downsampler = None if last else _Downsample(out, rngs=rngs)


class _Up(_Level):
    def __init__(self, spec: UNetSpec, level: int, *, rngs: nnx.Rngs):
        top = len(spec.channels) - 1
        out, below = spec.channels[level], spec.channels[min(level + 1, top)]
        skips = [out] * spec.blocks + [spec.channels[max(level - 1, 0)]]
        into = [below, *[out] * spec.blocks]
        super().__init__(spec, level, [a + b for a, b in zip(into, skips, strict=True)], rngs=rngs)
        self.upsampler = None if level == 0 else Upsample(out, rngs=rngs)


class _Middle(nnx.Module):
    def __init__(self, spec: UNetSpec, *, rngs: nnx.Rngs):
        channels, last = spec.channels[-1], len(spec.channels) - 1
        time = 4 * spec.channels[0]
        self.resnet_1, self.resnet_2 = (
            ResidualBlock(channels, channels, groups=spec.groups, time=time, rngs=rngs)
            for _ in range(2)
        )
        self.attention = _attention(spec, last, rngs)


class UNet(nnx.Module):
    """The network of a `UNetSpec`."""

    def __init__(self, spec: UNetSpec, *, rngs: nnx.Rngs):
        first, time = spec.channels[0], 4 * spec.channels[0]
        self.spec = spec
        self.conv_in = convolution(spec.latent, first, rngs=rngs)
        self.time_embed = nnx.List(
            [nnx.Linear(first, time, rngs=rngs), nnx.Linear(time, time, rngs=rngs)]
        )
        levels = range(len(spec.channels))
        self.down_blocks = nnx.List([_Down(spec, level, rngs=rngs) for level in levels])
        self.middle_block = _Middle(spec, rngs=rngs)
        self.up_blocks = nnx.List([_Up(spec, level, rngs=rngs) for level in reversed(levels)])
        self.out = nnx.List(
            [
                GroupNorm(first, groups=spec.groups),
                convolution(first, spec.latent, zero=True, rngs=rngs),
            ]
        )

    def __call__(
        self, x: Array, times: Array, context: Array | None = None, *, remat: bool = False
    ) -> Array:
        if (context is None) != (self.spec.context is None):
            wanted = "no context" if self.spec.context is None else "a context"
            raise ValueError(f"this network takes {wanted}; see UNetSpec.context")
        _, height, width, _ = x.shape
        x = filled(x, multiple=2 ** (len(self.spec.channels) - 1), border=False)
        features = time_features(times, self.spec.channels[0]).astype(x.dtype)
        embedding = self.time_embed[1](jax.nn.silu(self.time_embed[0](features)))

        def block(resnet: Any, attention: Any, x: Array) -> Array:
            x = resnet(x, embedding)
            return x if attention is None else attention(x, context)

        run = _again(block) if remat else block
        x = self.conv_in(x)
        skips = [x]
        for level in self.down_blocks:
            for resnet, attention in _pairs(level):
                x = run(resnet, attention, x)
                skips.append(x)
            if level.downsampler is not None:
                x = level.downsampler(x)
                skips.append(x)
        x = run(self.middle_block.resnet_1, self.middle_block.attention, x)
        x = run(self.middle_block.resnet_2, None, x)
        for level in self.up_blocks:
            for resnet, attention in _pairs(level):
                x = run(resnet, attention, jnp.concatenate([x, skips.pop()], -1))
            if level.upsampler is not None:
                x = level.upsampler(x)
        x = self.out[1](jax.nn.silu(self.out[0](x)))
        return x[:, :height, :width].astype(jnp.float32)


def _pairs(level: Any) -> Any:
    attentions = level.attentions or [None] * len(level.resnets)
    return zip(level.resnets, attentions, strict=True)


def _again(block: Any) -> Any:
    """The block without its intermediate values kept: the backward pass makes them again."""

    def run(resnet: Any, attention: Any, x: Array) -> Array:
        graph, state = nnx.split((resnet, attention))

        @jax.checkpoint
        def pure(state: nnx.State, x: Array) -> Array:
            return block(*nnx.merge(graph, state), x)

        return pure(nnx.as_pure(state), x)

    return run
