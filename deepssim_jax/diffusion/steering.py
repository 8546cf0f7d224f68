"""Steering what is drawn away from the training images.

Contract: latents are float [n, ...]; how alike two are is Pearson's correlation over all of their
values. At every step of sampling the network's answer says what the clean image is. Where that is
more like a training image than the limit, it is moved along the sphere of its norm, straight away from
the nearest one, until it is as like as the limit allows: where descending that similarity, as guidance
by dissimilarity does (Chen et al., CVPR 2024, arXiv 2404.00922), comes to an end. The limit is what two
people's training images have in common, so that nobody is pushed further away
than an image of another patient is.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.typing import Array

_QUANTILE = 0.99
_ASKED = 512  # training images whose nearest neighbour settles the limit


@dataclasses.dataclass(frozen=True)
class Steering:
    """Unit directions [m, d] float32 of the training latents, and the largest correlation allowed."""

    directions: np.ndarray
    limit: float

    @classmethod
    def of(cls, latents: np.ndarray, groups: np.ndarray) -> "Steering":
        """From training latents [m, ...] and the person of each, int [m].

        The limit is the 99 % quantile of the largest correlation with another person's latent.

        Raises:
          ValueError: there are latents of one person only, or one of them is constant.
        """
        flat = np.asarray(latents, np.float32).reshape(len(latents), -1)
        centred = flat - flat.mean(1, keepdims=True)
        norms = np.linalg.norm(centred, axis=1, keepdims=True)
        if len(np.unique(groups)) < 2 or norms.min() == 0:
            raise ValueError(
                "steering needs training images of two people at least, none of them blank, to know "
                "how similar unrelated images are; draw without --away"
            )
        directions = centred / norms
        rows = np.random.default_rng(0).permutation(len(directions))[:_ASKED]
        alike = directions[rows] @ directions.T
        others = groups[rows][:, None] != groups[None]
        nearest = np.where(others, alike, -1.0).max(1)
        return cls(directions, float(np.quantile(nearest, _QUANTILE)))


def steer(latents: Array, directions: Array, limit: Array) -> Array:
    """Latents [n, ...], moved where they correlate with the nearest direction by more than the limit.

    Args:
      latents: estimates of clean latents.
      directions: [m, d], see `Steering`.
      limit: scalar in (-1, 1).
    """
    flat = latents.reshape(len(latents), -1)
    mean = flat.mean(1, keepdims=True)
    centred = flat - mean
    norm = jnp.maximum(jnp.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
    unit = centred / norm
    alike = jnp.matmul(unit, directions.T, precision=jax.lax.Precision.HIGHEST)
    chosen = jax.nn.one_hot(alike.argmax(1), len(directions))
    nearest = jnp.matmul(chosen, directions, precision=jax.lax.Precision.HIGHEST)
    most = alike.max(1, keepdims=True)
    aside = unit - most * nearest
    aside = aside / jnp.maximum(jnp.linalg.norm(aside, axis=1, keepdims=True), 1e-9)
    moved = limit * nearest + jnp.sqrt(1 - limit**2) * aside
    return jnp.where(most > limit, mean + norm * moved, flat).reshape(latents.shape)
