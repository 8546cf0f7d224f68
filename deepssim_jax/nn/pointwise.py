"""Pointwise products: every place's channels by one kernel.

Contract: x is float [n, *space, c], n spread over the devices of the current mesh, the kernel [c, d] on
all of them. For the gradient of the kernel, a product over several axes, XLA on a CPU turns a whole
activation round first, and not for one over a single axis; to join the axes costs accelerators as much.
"""

import math

import jax

from deepssim_jax import parallel
from deepssim_jax.typing import Array


def pointwise(x: Array, kernel: Array, dimensions: object = None, **_: object) -> Array:
    """The product of every place's channels with a kernel, as `nnx.Linear(dot_general=...)` wants it.

    Args:
      x: [n, *space, c].
      kernel: [c, d].
      dimensions: the last axis of x and the first of the kernel, whatever it says.

    Returns:
      [n, *space, d].
    """
    del dimensions
    return _pointwise(x, kernel)


@jax.custom_vjp
def _pointwise(x: Array, kernel: Array) -> Array:
    return x @ kernel


def _pointwise_backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = saved
    by_kernel = jax.lax.platform_dependent(
        x, gradient, cpu=_over_places, default=parallel.over_batch
    )
    return gradient @ kernel.T, by_kernel


def _over_places(x: Array, gradient: Array) -> Array:
    rows = (parallel.reshape(y, (math.prod(y.shape[:-1]), y.shape[-1])) for y in (x, gradient))
    return parallel.over_batch(*rows)


_pointwise.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), _pointwise_backward)
