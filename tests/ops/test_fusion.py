"""A branch that is always taken, against the plain call."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepssim_jax.ops.fusion import made_once


def _sum_of_shifts(x: jax.Array) -> jax.Array:
    return x[:-2] + x[1:-1] + x[2:]


@pytest.mark.parametrize("number", [0.0, -0.0, 1.0, -3.5, np.nan, np.inf, -np.inf])
def test_it_is_the_plain_call_whatever_the_number(number: float) -> None:
    x = jnp.arange(6.0)
    found = jax.jit(lambda n, x: made_once(_sum_of_shifts, n, x))(jnp.float32(number), x)
    np.testing.assert_array_equal(found, [3, 6, 9, 12])


def test_it_has_the_gradient_of_the_plain_call() -> None:
    x = jnp.arange(6.0)
    gradient = jax.grad(lambda x: (made_once(_sum_of_shifts, x[0], x) ** 2).sum())(x)
    np.testing.assert_allclose(gradient, jax.grad(lambda x: (_sum_of_shifts(x) ** 2).sum())(x))


def test_the_compiler_leaves_the_branch_where_it_is() -> None:
    def twice(x: jax.Array) -> jax.Array:
        once = made_once(_sum_of_shifts, x[0], x)
        return jnp.tanh(once) + once[::-1]

    program = jax.jit(twice).lower(jnp.arange(600.0)).compile().as_text()
    assert program is not None and "conditional(" in program
