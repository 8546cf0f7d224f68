"""Layer normalisation and GELU, written so that XLA on a CPU runs them at full speed.

Contract: x is float [..., c]. On a CPU XLA fuses a reduction with whatever made its operand, and
makes it again for each reduction: after a depthwise convolution, the three of a layer norm cost
eight times the convolution. A product with ones ends the fusion. GELU by the error function is half
the work of the complementary one that `jax.nn.gelu` takes for the sake of very negative x.
"""

import functools
import math

import jax
import jax.numpy as jnp

from deepssim_jax.typing import Array


def _mean(x: Array) -> Array:
    """[..., c] -> [..., 1]."""

    def product(x: Array) -> Array:
        return jnp.matmul(x, jnp.full((x.shape[-1], 1), 1 / x.shape[-1], x.dtype))

    return jax.lax.platform_dependent(x, cpu=product, default=lambda x: x.mean(-1, keepdims=True))


def _standard(x: Array, epsilon: float) -> tuple[Array, Array]:
    """x without its mean over its deviation, and one over the deviation."""
    centred = x - _mean(x)
    inverse = jax.lax.rsqrt(_mean(centred * centred) + epsilon)
    return centred * inverse, inverse


def _row(values: Array, like: Array) -> Array:
    return values.reshape((1,) * (like.ndim - 1) + (-1,))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(x: Array, scale: Array, bias: Array, epsilon: float) -> Array:
    """Layer normalisation (Ba et al., 2016, eq. 4) over the last axis.

    Args:
      x: [..., c].
      scale: [c].
      bias: [c].
      epsilon: added to the variance.

    Returns:
      [..., c].
    """
    return _standard(x, epsilon)[0] * _row(scale, x) + _row(bias, x)


def _forward(
    x: Array, scale: Array, bias: Array, epsilon: float
) -> tuple[Array, tuple[Array, Array, Array]]:
    standard, inverse = _standard(x, epsilon)
    return standard * _row(scale, x) + _row(bias, x), (standard, inverse, scale)


def _backward(
    epsilon: float, saved: tuple[Array, Array, Array], gradient: Array
) -> tuple[Array, Array, Array]:
    del epsilon
    standard, inverse, scale = saved
    scaled = gradient * _row(scale, gradient)
    by_x = inverse * (scaled - _mean(scaled) - standard * _mean(scaled * standard))
    axes = tuple(range(gradient.ndim - 1))
    return by_x, (gradient * standard).sum(axes), gradient.sum(axes)


layer_norm.defvjp(_forward, _backward)


@jax.custom_vjp
def gelu(x: Array) -> Array:
    """x times the normal distribution function (Hendrycks and Gimpel, 2016, eq. 1).

    Args:
      x: any shape.

    Returns:
      The same shape and type; in float32 within 5e-7 of the exact value.
    """
    return x * _normal_cdf(x)


def _normal_cdf(x: Array) -> Array:
    return 0.5 + 0.5 * jax.lax.erf(x * math.sqrt(0.5))


def _gelu_backward(x: Array, gradient: Array) -> tuple[Array]:
    density = math.sqrt(0.5 / math.pi) * jnp.exp(-0.5 * x * x)
    return (gradient * (_normal_cdf(x) + x * density),)


gelu.defvjp(lambda x: (x * _normal_cdf(x), x), _gelu_backward)


def group_norm(x: Array, scale: Array, bias: Array, *, groups: int, epsilon: float) -> Array:
    """Group normalisation (Wu and He, ECCV 2018, eq. 1) over space and the channels of a group.

    Args:
      x: [n, h, w, c].
      scale: [c].
      bias: [c].
      groups: c is a multiple of it; as many as c is instance normalisation.
      epsilon: added to the variance.

    Returns:
      [n, h, w, c] in the type of x; the figures are float32.
    """
    n, *_, c = x.shape
    wide = x.astype(jnp.float32)
    # Sums over space first: they keep the channels last, and a group is then a few numbers.
    mean = wide.mean((1, 2)).reshape(n, groups, -1).mean(-1)
    mean = jnp.repeat(mean, c // groups, axis=1)[:, None, None]
    centred = wide - mean
    variance = (centred * centred).mean((1, 2)).reshape(n, groups, -1).mean(-1)
    inverse = jax.lax.rsqrt(jnp.repeat(variance, c // groups, axis=1) + epsilon)[:, None, None]
    return (centred * (inverse * _row(scale, x)) + _row(bias, x)).astype(x.dtype)
