"""Operations of a function's products, counted from its jaxpr: XLA's own count needs a CPU's client.

What is counted is what a model's FLOPs utilisation means by it: matrix products and convolutions, two
operations a multiplication, borders as if they were inside.
"""

import math
from collections.abc import Callable, Iterator

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


def products(function: Callable[..., object], *args: object) -> float:
    """Operations of one call; a loop of unknown length counts once, of branches the largest."""
    return _of(jax.make_jaxpr(function)(*args).jaxpr)


def _of(jaxpr: Jaxpr) -> float:
    return float(sum(_equation(equation) for equation in jaxpr.eqns))


def _equation(equation: JaxprEqn) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        result = math.prod(equation.outvars[0].aval.shape)
        return 2.0 * result * math.prod(shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        outputs = kernel[params["dimension_numbers"].rhs_spec[0]]
        result = math.prod(equation.outvars[0].aval.shape)
        # The zeros between the rows of a dilated image are nothing to multiply.
        return 2.0 * result * math.prod(kernel) / outputs / math.prod(params["lhs_dilation"])
    inside = [_of(jaxpr) for jaxpr in _jaxprs(params)]
    if name == "cond":
        return max(inside)
    return sum(inside) * (params["length"] if name == "scan" else 1)


def _jaxprs(params: dict[str, object]) -> Iterator[Jaxpr]:
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item
