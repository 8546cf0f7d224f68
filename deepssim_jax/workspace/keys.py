"""What a piece of work was made from, as one hash: content, settings and the code that makes it.

Contract: `key_of` takes values, never paths: arrays count by dtype, shape and bytes, settings as
canonical JSON of dataclasses, enums, numbers and text. A file counts by `files.sha256`.
"""

import contextlib
import dataclasses
import enum
import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np

_PACKAGE = __name__.split(".")[0]
# Whose versions can change a number.
_LIBRARIES = (
    "jax", "jaxlib", "numpy", "scipy",
    "imagecodecs", "nibabel", "pillow", "pydicom", "pynrrd", "tifffile",  # which read images
)  # fmt: skip
# Import statements, wherever in a file they stand: the module and its names, or the modules. A sentence that
# reads like one costs nothing; the syntax trees of the package took longer than a look-up's own work.
_LISTED = r"(\([^)]*\)|(?:\\\r?\n|[^\n\\;])+)"
_IMPORT = re.compile(
    rf"^[ \t]*(?:from[ \t]+([.\w]+)[ \t]+import[ \t]*{_LISTED}|import[ \t]+{_LISTED})", re.MULTILINE
)


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
    other libraries the versions of those that compute numbers or read images count. The same function
    gives the same hash in every process, and another one as soon as a line that it can reach changes.
    """
    while isinstance(make, functools.partial):
        make = make.func
    module = inspect.getmodule(inspect.unwrap(getattr(make, "__func__", make)))
    if module is None:
        module = inspect.getmodule(type(make))
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
    return key_of(seen, _versions())


@functools.cache
def _versions() -> dict[str, str]:
    """Of those that are installed."""
    found = {}
    for library in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[library] = importlib.metadata.version(library)
    return found


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
    for stem, names, listed in _IMPORT.findall(source.decode("utf-8", "replace")):
        if listed:
            named = _names(listed)
        else:
            dots = len(stem) - len(stem.lstrip("."))
            base = package[: len(package) - dots + 1] if dots else []
            stem = ".".join([*base, *([stem[dots:]] if stem[dots:] else [])])
            # A name may be a module or stand inside of one.
            named = [stem, *(f"{stem}.{name}" for name in _names(names))]
        for name in named:
            # The public face names everything, and is imported for a module that is named beside it.
            if name.startswith(f"{_PACKAGE}.") and _file_of(name) is not None:
                yield name


def _names(listed: str) -> list[str]:
    """What a list of imports names, without comments and without what it is called here."""
    plain = re.sub(r"#[^\n]*", "", listed).replace("\\", " ").strip("() \t\r\n")
    return [part.split()[0] for part in plain.split(",") if part.strip()]
