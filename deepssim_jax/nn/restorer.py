"""RED-CNN: a residual encoder and decoder that cleans an image (Chen et al., IEEE TMI 36, 2017, fig. 1).

Contract: float32 [n, h, w], h and w more than 20, to an estimate of the same shape. Five convolutions
without padding, five transposed ones, and three shortcuts; the published width is 96.
"""

import dataclasses

import jax
from flax import nnx

from deepssim_jax.typing import Array

_KERNEL = (5, 5)
_LAYERS = 5


@dataclasses.dataclass(frozen=True)
class RestorerSpec:
    """`channels` of every layer inside."""

    channels: int = 96


class Restorer(nnx.Module):
    """The network of a `RestorerSpec`."""

    def __init__(self, spec: RestorerSpec, *, rngs: nnx.Rngs):
        inner = [spec.channels] * (_LAYERS - 1)
        down, up = [1, *inner, spec.channels], [spec.channels, *inner, 1]
        self.convs = nnx.List(
            nnx.Conv(a, b, _KERNEL, padding="VALID", rngs=rngs)
            for a, b in zip(down, down[1:], strict=False)
        )
        self.deconvs = nnx.List(
            nnx.ConvTranspose(a, b, _KERNEL, padding="VALID", transpose_kernel=True, rngs=rngs)
            for a, b in zip(up[:-1], up[1:], strict=True)
        )

    def __call__(self, images: Array) -> Array:
        x = images[..., None]
        shortcuts = [x]
        for number, conv in enumerate(self.convs):
            x = jax.nn.relu(conv(x))
            if number in (1, 3):
                shortcuts.append(x)
        for number, deconv in enumerate(self.deconvs):
            x = deconv(x)
            if number % 2 == 0:
                x = x + shortcuts.pop()
            x = jax.nn.relu(x)
        return x[..., 0]
