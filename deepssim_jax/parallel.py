"""The mesh and its axis names: the only file that builds one or spells them.

Images of a batch are spread over the axis "data"; parameters are replicated, or, where there is an
axis "fsdp", each is spread over it and gathered where it is used; the batch is spread over both.
Axis types are explicit, so a sharding that does not fit is an error at trace time, not a silent copy.
"""

import contextlib
import functools
import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax._src import (
    distributed,  # the store of keys that the processes of a job share has no public name
)
from jax.experimental import multihost_utils

from deepssim_jax.workspace import Processes

DATA = "data"
FSDP = "fsdp"
Tree = TypeVar("Tree")
Program = TypeVar("Program", bound=Any)
# One process may be at work for hours while the others wait; one that is lost ends the job by itself.
_PATIENCE_MS = 7 * 24 * 3600 * 1000
_asked = itertools.count()


def use_cores(batch: int) -> None:
    """Makes every core a device where there is no accelerator, before the first computation.

    XLA computes a convolution of up to about a hundred channels in one thread, whatever the cores:
    two devices take a batch of images through such networks in little more than half of the time.
    There are as many devices as divide `batch` and get at least four images of it each. Where the
    user has set their number, or several processes work together, it stays as it is.
    """
    chosen = jax.config.values["jax_num_cpu_devices"] != -1
    chosen |= "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if chosen or jax.distributed.is_initialized():
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    fitting = (n for n in range(1, (cores or 1) + 1) if batch % n == 0 and batch // n >= 4)
    jax.config.update("jax_num_cpu_devices", max(fitting, default=1))


@functools.cache
def fast_bfloat16(platform: str) -> bool:
    """Whether bfloat16 is multiplied faster than float32: by accelerators, and by some CPUs on Linux."""
    flags = Path("/proc/cpuinfo")
    return platform != "cpu" or (
        flags.exists() and "avx512_bf16" in flags.read_text(encoding="utf-8").split()
    )


def data_mesh(
    devices: int | None = None, *, found: Sequence[jax.Device] | None = None, fsdp: int = 1
) -> jax.sharding.Mesh:
    """A mesh with the axis "data", and with "fsdp" where parameters are to be spread.

    Args:
      devices: how many; all of them if None.
      found: the devices to take from; those of this run if None.
      fsdp: devices that share one copy of the parameters; with 1 there is no such axis.

    Raises:
      ValueError: if there are fewer devices than asked for, or `fsdp` does not divide them.
    """
    found = jax.devices() if found is None else found
    count = len(found) if devices is None else devices
    if not 1 <= count <= len(found):
        raise ValueError(f"{count} devices were asked for, and there are {len(found)}")
    if fsdp < 1 or count % fsdp:
        raise ValueError(f"fsdp {fsdp} must divide the {count} devices")
    if fsdp > 1:
        return jax.make_mesh((count // fsdp, fsdp), (DATA, FSDP), devices=found[:count])
    return jax.make_mesh((count,), (DATA,), devices=found[:count])


def own_mesh() -> jax.sharding.Mesh:
    """A mesh of this process's devices alone, for work that processes do apart from each other."""
    return data_mesh(found=jax.local_devices())


def replicated(mesh: jax.sharding.Mesh) -> jax.NamedSharding:
    """Every device holds the whole array."""
    return jax.NamedSharding(mesh, jax.P())


def batch_sharding(mesh: jax.sharding.Mesh) -> jax.NamedSharding:
    """The leading axis is spread over the devices; its length must be a multiple of them."""
    return jax.NamedSharding(mesh, jax.P((DATA, FSDP) if FSDP in mesh.shape else DATA))


def state_shardings(tree: Tree, mesh: jax.sharding.Mesh) -> Tree:
    """Where each array of a training state belongs: on every device, or spread over "fsdp".

    Spread is the longest axis that the devices divide, the last one of several; an array without
    one, a bias or a counter, is on every device.
    """
    count = mesh.shape.get(FSDP, 1)

    def place(x: jax.Array) -> jax.NamedSharding:
        fitting = [axis for axis, side in enumerate(x.shape) if side % count == 0 and side > count]
        if count == 1 or len(x.shape) < 2 or not fitting:
            return replicated(mesh)
        chosen = max(fitting, key=lambda axis: (x.shape[axis], axis))
        return jax.NamedSharding(mesh, jax.P(*(None,) * chosen, FSDP))

    return jax.tree.map(place, tree)


def using(mesh: jax.sharding.Mesh) -> contextlib.AbstractContextManager:
    """Makes a mesh the current one for a `with` block."""
    return jax.set_mesh(mesh)


def spread(tree: Tree, sharding: jax.NamedSharding | Tree) -> Tree:
    """Puts arrays that every process holds alike on the devices of all of them.

    `sharding` is one for all, or a tree of them.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def put(x: jax.Array, where: jax.NamedSharding) -> jax.Array:
        whole = np.asarray(x)
        return jax.make_array_from_callback(whole.shape, where, lambda index: whole[index])

    if isinstance(sharding, jax.NamedSharding):
        return jax.tree.map(lambda x: put(x, sharding), tree)
    return jax.tree.map(put, tree, sharding)


def gathered(tree: Tree) -> Tree:
    """Inside a program: arrays that are spread over the current mesh, whole on every device.

    Their gradients come back summed and spread as the arrays were.
    """
    return jax.tree.map(everywhere, tree)


def like_batch(x: jax.Array, *, axis: int = 0) -> jax.Array:
    """Inside a program: an array of which this axis is to be spread as a batch is."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    names = (DATA, FSDP) if FSDP in mesh.shape else DATA
    return jax.sharding.reshard(x, jax.P(*(None,) * axis, names))


def reshape(x: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Inside a program: `x.reshape(shape)`; the leading axis stays spread as it was."""
    spec = jax.typeof(x).sharding.spec
    mesh = jax.sharding.get_abstract_mesh()
    where = None if mesh.empty else jax.P(spec[0] if spec else None)
    return jax.lax.reshape(x, shape, out_sharding=where)


def over_batch(a: jax.Array, b: jax.Array) -> jax.Array:
    """Inside a program: products [c, d] of channels, summed over all other axes and all devices."""
    axes = tuple(range(a.ndim - 1))
    where = None if jax.sharding.get_abstract_mesh().empty else jax.P()
    return jax.lax.dot_general(a, b, ((axes, axes), ((), ())), out_sharding=where)


def everywhere(x: jax.Array) -> jax.Array:
    """Inside a program: gathers an array that is spread over the current mesh on every device."""
    return x if jax.sharding.get_abstract_mesh().empty else jax.sharding.reshard(x, jax.P())


def stream(visit: Callable, *, mesh: jax.sharding.Mesh, ring: bool) -> Callable:
    """Lets every device's queries meet all references.

    Args:
      visit: (state, queries, references, number of the first reference, total) -> state, on one
        device; state and queries are that device's rows, references a tree of rows.
      mesh: devices; state and queries are spread over them.
      ring: references are spread too, in order, and passed on from device to device; the next
        ones travel while `visit` works on the present ones. Otherwise every device holds all.

    Returns:
      The same function of whole arrays, to be called under jit.
    """

    def body(state, queries, references, first, total):
        if not ring:
            return visit(state, queries, references, first, total)
        share = len(jax.tree.leaves(references)[0])
        devices, mine = mesh.size, jax.lax.axis_index(DATA)
        onward = [(i, (i - 1) % devices) for i in range(devices)]

        def begin(step: int) -> jax.Array:
            return first + (mine + step) % devices * share

        def step(number, carry):
            state, held = carry
            following = jax.lax.ppermute(held, DATA, onward)
            return visit(state, queries, held, begin(number), total), following

        state, held = jax.lax.fori_loop(0, devices - 1, step, (state, references))
        return visit(state, queries, held, begin(devices - 1), total)

    rows, one = jax.P(DATA), jax.P()
    specs = (rows, rows, rows if ring else one, one, one)
    # The states start as constants, which the check of varying axes would want marked.
    return jax.shard_map(body, mesh=mesh, in_specs=specs, out_specs=rows, check_vma=False)


def processes() -> Processes:
    """The processes of this run, for a workspace that they share."""
    return Processes(jax.process_index(), jax.process_count(), agreed)


def whole(tree: Any) -> Any:
    """Arrays of a mesh as NumPy arrays, the same in every process that takes part in it."""

    def gather(x: jax.Array) -> np.ndarray:
        if x.is_fully_addressable:  # of this process's devices alone
            return np.asarray(x)
        return multihost_utils.process_allgather(x, tiled=True)

    return jax.tree.map(gather, tree)


def compiled(program: Program, *args: Any) -> Program:
    """A jitted program that every process of a job has compiled for these arguments.

    Compiling can take minutes longer in one process than in another, and on CPUs who waits half a
    minute in a program for another process gives up.
    """
    if jax.process_count() > 1:
        program.lower(*args).compile()
        agreed(True)
    return program


def unanimous(number: int) -> bool:
    """Whether every process names the same number."""
    if jax.process_count() == 1:
        return True
    said = f"deepssim/said/{next(_asked)}"
    _store().key_value_set(f"{said}/{jax.process_index()}", str(number))
    _store().wait_at_barrier(f"{said}/all", _PATIENCE_MS)
    return len({value for _, value in _store().key_value_dir_get(said)}) == 1


def agreed(answer: bool) -> bool:
    """What the first process answers, sent to all: files may not show everywhere at once.

    All processes ask in the same order, each from one thread. Nothing of it goes over the devices, so
    that they may wait for each other as long as it takes.
    """
    if jax.process_count() == 1:
        return answer
    number, store = next(_asked), _store()
    key = f"deepssim/agreed/{number}"
    if jax.process_index() == 0:
        store.key_value_set(key, str(int(answer)))
    store.wait_at_barrier(f"{key}/all", _PATIENCE_MS)
    return store.blocking_key_value_get(key, _PATIENCE_MS) == "1"


def first_to_say(name: str, value: str) -> bool:
    """Leaves a word for all processes; False if another one has left it already.

    Where the first process is gone, and with it what they share, nobody has.
    """
    try:
        _store().key_value_set(f"deepssim/{name}", value)
    except jax.errors.JaxRuntimeError as error:
        return "ALREADY_EXISTS" not in str(error)
    return True


def heard(name: str) -> str | None:
    """The word that a process has left for all under this name."""
    try:
        return _store().key_value_try_get(f"deepssim/{name}")
    except jax.errors.JaxRuntimeError:
        return None


def _store() -> Any:
    return distributed.global_state.client
