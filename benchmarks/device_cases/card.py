"""What a card can do at most: its maker's figures where they are known, and what it is seen to do."""

import dataclasses
import enum
import functools
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp


class Kind(enum.StrEnum):
    """What operands of a product are rounded to."""

    F32 = "float32"
    TF32 = "tf32"
    BF16 = "bfloat16"
    INT8 = "int8"


@dataclasses.dataclass(frozen=True)
class Card:
    """Bytes of its memory moved a second, and operations of products a second, of each kind."""

    bytes_per_s: float
    products_per_s: Mapping[Kind, float]


# Dense figures of NVIDIA's data sheets for the SXM modules.
_HOPPER = {Kind.F32: 67e12, Kind.TF32: 495e12, Kind.BF16: 989e12, Kind.INT8: 1979e12}
NOMINAL = {"H100 80GB HBM3": Card(3.35e12, _HOPPER), "NVIDIA H200": Card(4.8e12, _HOPPER)}


@functools.cache
def nominal() -> Card | None:
    """The figures of this card; None where they are not known."""
    name = jax.devices()[0].device_kind
    return next((card for part, card in NOMINAL.items() if part in name), None)


@functools.cache
def ceilings() -> Card:
    """Nominal figures, or where there are none what `product` and `copy` were seen to do."""
    if card := nominal():
        return card
    _, moved, copied = copy(tiny=True)
    side = 512
    rates = {
        kind: 2 * side**3 / _fastest(product(kind, side=side))
        for kind in (Kind.F32, Kind.BF16, Kind.INT8)
    }
    return Card(moved / _fastest(copied), rates | {Kind.TF32: rates[Kind.F32]})


def _fastest(run: Callable[[], jax.Array]) -> float:
    """Seconds of the fastest of five runs."""
    spent = []
    for _ in range(6):
        start = time.perf_counter()
        jax.block_until_ready(run())
        spent.append(time.perf_counter() - start)
    return min(spent[1:])


def product(kind: Kind, *, side: int) -> Callable[[], jax.Array]:
    """A product of two square matrices of random numbers."""
    given = [jax.random.normal(jax.random.key(i), (side, side)) for i in range(2)]
    if kind is Kind.INT8:
        given = [(16 * x).astype(jnp.int8) for x in given]
    if kind is Kind.BF16:
        given = [x.astype(jnp.bfloat16) for x in given]
    precision = {Kind.F32: "highest", Kind.TF32: "tensorfloat32"}.get(kind)
    result = jnp.int32 if kind is Kind.INT8 else jnp.float32
    run = jax.jit(functools.partial(jnp.matmul, preferred_element_type=result))
    if precision == "tensorfloat32" and jax.default_backend() != "gpu":
        precision = None  # no other device has it
    if precision:
        run = jax.jit(functools.partial(jnp.matmul, precision=precision))
    return lambda: run(*given)


def copy(*, tiny: bool) -> tuple[int, float, Callable[[], jax.Array]]:
    """Numbers of a large array, bytes read and written by touching each once, and that."""
    count = 1 << (22 if tiny else 30)
    block = jnp.ones(count, jnp.float32)
    run = jax.jit(lambda x: x + 1)
    return count, 8.0 * count, lambda: run(block)


def machine() -> dict[str, object]:
    """Device, cores and versions, as every record has them."""
    versions = {}
    for name in ("jax", "jaxlib", "jax-cuda13-plugin", "flax", "numpy", "torch", "monai"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
    }
