"""What a piece of work was made from, as one hash: content, settings and the code that makes it.

Contract: `key_of` takes values, never paths: arrays count by dtype, shape and bytes, settings as
canonical JSON of dataclasses, enums, numbers and text. A file counts by `files.sha256`.
"""

import ast
import dataclasses
import enum
import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np

_PACKAGE = __name__.split(".")[0]
# Whose versions can change a number.
_LIBRARIES = ("jax", "jaxlib", "numpy")
# CPython 3.11 counts the depth of a syntax tree for all threads together, and may fail over it.
_ONE_AT_A_TIME = threading.Lock()


def key_of(*inputs: object) -> str:
    """SHA-256 of values, in 64 hexadecimal digits.

    Raises:
      TypeError: a value has no content of its own to be hashed: a path, a function, a generator.
    """
    text = json.dumps([_canonical(x) for x in inputs], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: object) -> object:
    """Plain JSON in which values of different kinds never look alike."""
    # Enums first: a StrEnum is text as well.
    if isinstance(value, enum.Enum):
        return {"enum": f"{type(value).__qualname__}.{value.name}"}
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, bytes):
        return {"bytes": hashlib.sha256(value).hexdigest()}
    if isinstance(value, np.generic) or hasattr(value, "__array__"):
        return _array(np.asarray(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _canonical(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"dataclass": type(value).__qualname__, "fields": sorted(fields.items())}
    if isinstance(value, Mapping):
        pairs = [[_canonical(k), _canonical(v)] for k, v in value.items()]
        return {"mapping": sorted(pairs, key=lambda pair: json.dumps(pair[0]))}
    if isinstance(value, Set):
        return {"set": sorted((_canonical(x) for x in value), key=json.dumps)}
    if isinstance(value, list | tuple | range):
        return [_canonical(x) for x in value]
    raise TypeError(
        f"a {type(value).__name__} has no content to make a key of; give values, and of a file "
        "its sha256"
    )


def _array(array: np.ndarray) -> object:
    if array.dtype.hasobject:
        raise TypeError("an array of objects has no content to make a key of; give its values")
    content = hashlib.sha256(np.ascontiguousarray(array).data if array.size else b"")
    described = array.dtype.descr if array.dtype.names else array.dtype.str
    return {"array": [repr(described), list(array.shape), content.hexdigest()]}


def code_of(make: Callable[..., Any]) -> str:
    """Hash of the code behind a function: the source of its module and of what that imports here.

    Modules of this package count with their own imports of it, wherever in a file they stand; of
    other libraries the versions of those that compute numbers count. The same function gives the
    same hash in every process, and another one as soon as a line that it can reach changes.
    """
    while isinstance(make, functools.partial):
        make = make.func
    module = inspect.getmodule(inspect.unwrap(getattr(make, "__func__", make)))
    if module is None:
        module = inspect.getmodule(type(make))
    with _ONE_AT_A_TIME:
        return _code_of_module(module.__name__ if module is not None else _PACKAGE)


@functools.cache
def _code_of_module(name: str) -> str:
    seen: dict[str, str] = {}
    waiting = [name]
    while waiting:
        module = waiting.pop()
        if module not in seen:
            source = _source(module)
            seen[module] = hashlib.sha256(source).hexdigest()
            waiting += _imported(module, source)
    versions = {library: importlib.metadata.version(library) for library in _LIBRARIES}
    return key_of(seen, versions)


def _source(module: str) -> bytes:
    """The text of a module; of one without a file, such as a prompt's, nothing."""
    found = _file_of(module)
    return found.read_bytes() if found is not None else b""


@functools.cache
def _file_of(module: str) -> Path | None:
    loaded = sys.modules.get(module)
    origin = getattr(loaded, "__file__", None)
    if origin is None:
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            return None
        origin = None if spec is None else spec.origin
    return Path(origin) if origin and Path(origin).is_file() else None


def _imported(module: str, source: bytes) -> Iterator[str]:
    """Modules of this package that a module imports."""
    path = _file_of(module)
    if path is None or path.suffix != ".py":
        return
    own = module.split(".")
    package = own if path.name == "__init__.py" else own[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            # A name may be a module or stand inside of one.
            names = [stem, *(f"{stem}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            # The public face names everything, and is imported for a module that is named beside it.
            if name.startswith(f"{_PACKAGE}.") and _file_of(name) is not None:
                yield name
