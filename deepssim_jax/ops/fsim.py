"""FSIM of image pairs, in the variant that the study of DeepSSIM picks its candidates with.

Contract: images are real [n, h, w] on the scale 0 to 255, because one of the two constants is not
free of units. FSIM is Zhang et al., IEEE TIP 20, 2011, eq. 3 to 6. The reference implementation
puts the magnitude of the central differences over its maximum where the paper has phase
congruency, and takes Sobel's gradient with mirrored borders where it has Scharr's; so does this.
"""

import jax
import jax.numpy as jnp

from deepssim_jax.typing import Array, Images

_T1, _T2 = 0.85, 160.0


def _sobel(x: Array, axis: int) -> Array:
    """Weights 1, 2, 1 across and -1, 0, 1 along the axis; the edge pixel itself is not repeated."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    n = padded.shape[axis]
    along = jax.lax.slice_in_dim(padded, 2, n, axis=axis) - jax.lax.slice_in_dim(
        padded, 0, n - 2, axis=axis
    )
    other, m = 3 - axis, padded.shape[3 - axis]
    before, here, after = (jax.lax.slice_in_dim(along, i, m - 2 + i, axis=other) for i in range(3))
    return before + 2 * here + after


def _features(images: Array) -> tuple[Array, Array]:
    """Stand-in for phase congruency in [0, 1], and gradient magnitude, [n, h, w] each."""
    rows, columns = jnp.gradient(images, axis=(1, 2))
    magnitude = jnp.hypot(rows, columns)
    largest = magnitude.max((1, 2), keepdims=True)
    congruency = jnp.where(largest > 0, magnitude / jnp.where(largest > 0, largest, 1.0), 0.0)
    return congruency, jnp.hypot(_sobel(images, 1), _sobel(images, 2))


def _similarity(a: Array, b: Array, constant: float) -> Array:
    return (2 * a * b + constant) / (a**2 + b**2 + constant)


@jax.jit
def fsim(a: Images, b: Images) -> Array:
    """Feature similarity of each pair.

    Args:
      a: [n, h, w], 0 to 255.
      b: same shape.

    Returns:
      float32 [n] in (0, 1]; 1 for equal images, and for two flat ones.

    Raises:
      ValueError: the shapes differ or are not [n, h, w].
    """
    if a.shape != b.shape or a.ndim != 3:
        raise ValueError(f"a {a.shape} and b {b.shape} must both be the same [n, h, w]")
    congruency_a, gradient_a = _features(jnp.asarray(a, jnp.float32))
    congruency_b, gradient_b = _features(jnp.asarray(b, jnp.float32))
    weight = jnp.maximum(congruency_a, congruency_b)
    local = _similarity(congruency_a, congruency_b, _T1) * _similarity(gradient_a, gradient_b, _T2)
    total = weight.sum((1, 2))
    return jnp.where(
        total > 0, (local * weight).sum((1, 2)) / jnp.where(total > 0, total, 1.0), 1.0
    )
