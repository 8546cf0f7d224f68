"""The values that steps keep, and their files.

Contract: a NumPy array (structured ones too) is a `.npy` file, a mapping of names to arrays a `.npz`
file without compression, and whatever JSON holds a `.json` file; the same value gives the same
bytes. What comes back is equal to what was given, with lists for tuples.
"""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Value = (
    np.ndarray | Mapping[str, np.ndarray] | Mapping[str, Any] | Sequence[Any] | str | float | None
)
SUFFIXES = (".npy", ".npz", ".json")


def encoded(value: Any) -> tuple[str, bytes]:
    """The ending of a value's file, and its content.

    Raises:
      TypeError: neither array nor mapping of arrays nor JSON.
    """
    buffer = io.BytesIO()
    if isinstance(value, np.ndarray):
        np.save(buffer, _plain(value), allow_pickle=False)
        return ".npy", buffer.getvalue()
    if _is_arrays(value):
        # NumPy writes each member with the date of 1980, so the bytes hold no time.
        np.savez(buffer, allow_pickle=False, **{k: _plain(v) for k, v in sorted(value.items())})
        return ".npz", buffer.getvalue()
    return ".json", json.dumps(value, sort_keys=True, allow_nan=True).encode()


def decoded(suffix: str, content: bytes) -> Any:
    """The value of a file, or None if it is damaged."""
    try:
        if suffix == ".json":
            return json.loads(content)
        found = np.load(io.BytesIO(content), allow_pickle=False)
        return found if suffix == ".npy" else {name: found[name] for name in found.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile):
        return None


def joined(parts: Sequence[Any]) -> Any:
    """The parts of a value that was made in blocks of rows, as one: arrays and lists, end to end."""
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    if _is_arrays(parts[0]):
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if all(isinstance(part, list) for part in parts):
        return [row for part in parts for row in part]
    raise TypeError("what is made in blocks of rows must be arrays, mappings of arrays or lists")


def _is_arrays(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(x, np.ndarray) for x in value.values())
    )


def _plain(array: np.ndarray) -> np.ndarray:
    # NumPy's file format has no names for the types of other libraries: bfloat16 would come back
    # as two bytes without a meaning.
    if array.dtype.kind == "V" and array.dtype.names is None:
        raise TypeError(f"{array.dtype} is no type of NumPy's own; convert it, say to float32")
    return array
