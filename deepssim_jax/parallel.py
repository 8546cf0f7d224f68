"""The mesh and its axis names: the only file that builds one or spells them.

Images of a batch are spread over the axis "data"; parameters are replicated. Axis types are
explicit, so a sharding that does not fit is an error at trace time, not a silent copy.
"""

import contextlib

import jax

DATA = "data"


def data_mesh(devices: int | None = None) -> jax.sharding.Mesh:
    """A mesh with the single axis "data".

    Args:
      devices: how many; all of them if None.

    Raises:
      ValueError: if there are fewer devices than asked for.
    """
    found = jax.devices()
    count = len(found) if devices is None else devices
    if not 1 <= count <= len(found):
        raise ValueError(f"{count} devices were asked for, and there are {len(found)}")
    return jax.make_mesh((count,), (DATA,), devices=found[:count])


def replicated(mesh: jax.sharding.Mesh) -> jax.NamedSharding:
    """Every device holds the whole array."""
    return jax.NamedSharding(mesh, jax.P())


def batch_sharding(mesh: jax.sharding.Mesh) -> jax.NamedSharding:
    """The leading axis is spread over the devices; its length must be a multiple of them."""
    return jax.NamedSharding(mesh, jax.P(DATA))


def using(mesh: jax.sharding.Mesh) -> contextlib.AbstractContextManager:
    """Makes a mesh the current one for a `with` block."""
    return jax.set_mesh(mesh)
