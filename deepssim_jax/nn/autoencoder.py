"""The autoencoder with a KL penalty in whose latents the diffusion model lives.

Contract: images float [n, h, w] in [0, 1] to latents [n, h / f, w / f, c] (mean and deviation of a
normal distribution), and back. Sides that are no multiple of the factor are filled up by their
border on the way in and cut on the way out. The structure is MONAI's AutoencoderKL without
attention (Rombach et al., CVPR 2022, section 3.1).
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from deepssim_jax.nn.residual import GroupNorm, ResidualBlock, Upsample, convolution, filled
from deepssim_jax.typing import Array


@dataclasses.dataclass(frozen=True)
class AutoencoderSpec:
    """What an autoencoder is built from; stored beside its weights.

    `channels` of each level, each half the resolution of the one before; `groups` divides them.
    """

    channels: tuple[int, ...] = (64, 128, 128)
    latent: int = 3
    blocks: int = 2
    groups: int = 32

    def __post_init__(self) -> None:
        if any(c % self.groups for c in self.channels):
            raise ValueError(f"channels {self.channels} must be multiples of groups {self.groups}")

    @property
    def factor(self) -> int:
        """Pixels of an image along one pixel of its latents."""
        return 2 ** (len(self.channels) - 1)

    def latent_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the latents of images of this size."""
        return -(-size[0] // self.factor), -(-size[1] // self.factor)


class _Downsample(nnx.Module):
    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.conv = convolution(channels, channels, stride=2, padding=((0, 1), (0, 1)), rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.conv(x)


class _Chain(nnx.Module):
    """Blocks one after the other."""

    def __init__(self, blocks: list):
        self.blocks = nnx.List(blocks)

    def __call__(self, x: Array) -> Array:
        for block in self.blocks:
            x = block(x)
        return x


def _encoder(spec: AutoencoderSpec, rngs: nnx.Rngs) -> _Chain:
    held, last = spec.channels[0], len(spec.channels) - 1
    blocks: list = [convolution(1, held, rngs=rngs)]
    for level, channels in enumerate(spec.channels):
        for _ in range(spec.blocks):
            blocks.append(ResidualBlock(held, channels, groups=spec.groups, rngs=rngs))
            held = channels
        if level < last:
            blocks.append(_Downsample(held, rngs=rngs))
    blocks += [GroupNorm(held, groups=spec.groups), convolution(held, spec.latent, rngs=rngs)]
    return _Chain(blocks)


def _decoder(spec: AutoencoderSpec, rngs: nnx.Rngs) -> _Chain:
    held, last = spec.channels[-1], len(spec.channels) - 1
    blocks: list = [convolution(spec.latent, held, rngs=rngs)]
    for level, channels in enumerate(reversed(spec.channels)):
        for _ in range(spec.blocks):
            blocks.append(ResidualBlock(held, channels, groups=spec.groups, rngs=rngs))
            held = channels
        if level < last:
            blocks.append(Upsample(held, rngs=rngs))
    blocks += [GroupNorm(held, groups=spec.groups), convolution(held, 1, rngs=rngs)]
    return _Chain(blocks)


class Autoencoder(nnx.Module):
    """The network of an `AutoencoderSpec`."""

    def __init__(self, spec: AutoencoderSpec, *, rngs: nnx.Rngs):
        self.spec = spec
        self.encoder = _encoder(spec, rngs)
        self.decoder = _decoder(spec, rngs)
        self.quant_conv_mu, self.quant_conv_log_sigma, self.post_quant_conv = (
            convolution(spec.latent, spec.latent, width=1, rngs=rngs) for _ in range(3)
        )

    def encode(self, images: Array) -> tuple[Array, Array]:
        """Images [n, h, w] to the mean and the deviation of their latents, float32 [n, h', w', c]."""
        x = filled(images[..., None], multiple=self.spec.factor, border=True)
        h = self.encoder(x)
        mean = self.quant_conv_mu(h).astype(jnp.float32)
        log_variance = self.quant_conv_log_sigma(h).astype(jnp.float32)
        return mean, jnp.exp(jnp.clip(log_variance, -30.0, 20.0) / 2)

    def decode(self, latents: Array, *, size: tuple[int, int]) -> Array:
        """Latents [n, h', w', c] to images float32 [n, *size], not clipped."""
        out = self.decoder(self.post_quant_conv(latents))
        return out[:, : size[0], : size[1], 0].astype(jnp.float32)


def sampled(mean: Array, deviation: Array, key: Array) -> Array:
    """Latents drawn from their distribution."""
    return mean + deviation * jax.random.normal(key, mean.shape)


def kl_divergence(mean: Array, deviation: Array) -> Array:
    """From the standard normal, summed over each image's latents: [n] (Kingma and Welling, 2014,
    appendix B).
    """
    each = 0.5 * (mean**2 + deviation**2 - 2 * jnp.log(deviation) - 1)
    return each.sum((1, 2, 3))
