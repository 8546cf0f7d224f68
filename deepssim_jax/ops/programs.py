"""Programs that are ready at the next start: what tracing gives is kept beside what compiling gives.

JAX keeps compiled programs, and still traces each function in every process, which takes a look-up three
times as long as its computation. A `kept` function is exported once (`jax.export`, StableHLO) into the
user's own folder of compiled programs; the next process reads it and compiles it from JAX's cache. Its
numbers are those of the function: it is the same program. Whoever can write the folder can run code as
this user, as with JAX's cache.
"""

import contextlib
import functools
import importlib.util
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax import export

from deepssim_jax.ops.arguments import is_traced
from deepssim_jax.workspace import code_of, files, key_of

_LEAST = "jax_persistent_cache_min_compile_time_secs"
# None: functions are traced as ever.
_folder: Path | None = None
_naming = threading.Lock()
_named: set[type] = set()


@contextlib.contextmanager
def kept_in(folder: Path | None) -> Iterator[None]:
    """Keeps the programs of `kept` functions in a private folder while the block runs; in None, none.

    Without the library `flatbuffers`, in whose form they are kept, nothing is kept.
    """
    global _folder
    least = getattr(jax.config, _LEAST)
    _folder = folder if importlib.util.find_spec("flatbuffers") else None
    if _folder is not None:
        # Programs that compile in no time add up at the start of a process that does little else.
        jax.config.update(_LEAST, 0.0)
    try:
        yield
    finally:
        _folder = None
        jax.config.update(_LEAST, least)


def kept(*nodes: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a jitted function of arrays, whose keywords are static; see the module.

    Args:
      *nodes: dataclasses of arrays alone in its arguments and results.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        ready: dict[str, Callable[..., Any]] = {}
        one_at_a_time = threading.RLock()  # several functions can load at once

        @functools.wraps(function)
        def call(*args: Any, **static: Any) -> Any:
            leaves = jax.tree.leaves(args)
            folder = _folder  # the block can end while another thread loads
            if folder is None or is_traced(*leaves):
                return function(*args, **static)
            shapes = [[list(x.shape), str(x.dtype)] for x in leaves]
            key = key_of(shapes, static, jax.default_backend())
            with one_at_a_time:  # who comes second finds it ready
                if key not in ready:
                    code = key_of(code_of(function), key)
                    place = folder / f"{function.__name__.strip('_')}-{code}.stablehlo"
                    ready[key] = _ready(function, args, static, place, nodes)
            return ready[key](*args)

        return call

    return decorate


def _ready(
    function: Callable[..., Any], args: Any, static: Any, place: Path, nodes: tuple[type, ...]
) -> Callable[..., Any]:
    with _naming:
        for node in set(nodes) - _named:
            export.register_pytree_node_serialization(
                node,
                serialized_name=f"{node.__module__}.{node.__qualname__}",
                serialize_auxdata=lambda _: b"",
                deserialize_auxdata=lambda _: (),
            )
            _named.add(node)
    try:
        content = bytearray(place.read_bytes())
    except FileNotFoundError:
        made = export.export(jax.jit(functools.partial(function, **static)))(*args)
        content = made.serialize()
        with contextlib.suppress(OSError):  # as with JAX's cache, a full disk only costs time
            files.write_bytes(
                place, bytes(content), access=files.Access.PRIVATE, process=os.getpid()
            )
    return jax.jit(export.deserialize(content).call).lower(*args).compile()
