"""Matrix products whose float32 operands stay float32 on every device.

Contract: as the functions of `jax.numpy` of the same name, at the highest precision. At the default
one an accelerator rounds float32 operands first, a GPU to TF32 and a TPU to bfloat16: a true copy's
score would move from 0.999 to 0.977 and to 0.931, across the limits between the labels. On a CPU
nothing changes. Every product that a reported score depends on goes through here or names its
precision; one of bfloat16 operands may choose candidates, where a bound on its error is known.
"""

import functools

import jax
import jax.numpy as jnp

HIGHEST = jax.lax.Precision.HIGHEST

einsum = functools.partial(jnp.einsum, precision=HIGHEST)
matmul = functools.partial(jnp.matmul, precision=HIGHEST)
tensordot = functools.partial(jnp.tensordot, precision=HIGHEST)
