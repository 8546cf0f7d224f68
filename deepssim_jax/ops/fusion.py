"""Where a fusion ends.

Contract: nothing here changes a value. XLA on a CPU makes what is cheap, a sum of shifted slices for
instance, again in every operation that reads it, however many slices that are, and it drops
optimization barriers before it fuses. A branch ends a fusion there, and a barrier on accelerators.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from deepssim_jax.typing import Array


def made_once(run: Callable[..., Array], number: Array, *operands: Array) -> Array:
    """`run(*operands)`, computed once, however many operations read it.

    Args:
      run: returns one array.
      number: any real scalar that is not known when the program is compiled.
      *operands: all arrays that it computes from.
    """

    def in_a_branch(number: Array, *operands: Array) -> Array:
        bits = jax.lax.bitcast_convert_type(number.astype(jnp.float32), jnp.uint32)
        always = (bits | jnp.uint32(1)) != 0  # which the compiler does not see
        return jax.lax.cond(always, run, lambda *given: jnp.zeros_like(run(*given)), *operands)

    def behind_a_barrier(_: Array, *operands: Array) -> Array:
        return jax.lax.optimization_barrier(run(*operands))

    return jax.lax.platform_dependent(number, *operands, cpu=in_a_branch, default=behind_a_barrier)
