"""Arrays that outgrow memory, opened for reading by slices.

Contract: what comes back has a `shape`, and slices of it become NumPy arrays. Nothing is read until
a slice is asked for.
"""

from pathlib import Path

import numpy as np
import tensorstore

_CACHE_BYTES = 64 << 20


def open_rows(source: str | Path) -> np.ndarray | tensorstore.TensorStore:
    """Opens rows of numbers on a disk or in a bucket.

    Args:
      source: a `.npy` file, which is mapped into memory; or the folder or address (`gs://...`,
        `file://...`) of an array in a chunked format that TensorStore recognises: Zarr 2 or 3, N5.

    Raises:
      ValueError: there is nothing to open, or it is not of a known format.
    """
    text = str(source)
    if text.endswith(".npy") and "://" not in text:
        try:
            return np.load(text, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot open {text} as an array: {error}") from None
    address = text if "://" in text else Path(text).resolve().as_uri() + "/"
    spec = {"driver": "auto", "kvstore": address}
    context = tensorstore.Context({"cache_pool": {"total_bytes_limit": _CACHE_BYTES}})
    try:
        return tensorstore.open(spec, context=context, open=True, read=True).result()
    except ValueError as error:
        raise ValueError(
            f"cannot open {text} as a Zarr or N5 array: {str(error).splitlines()[0][:200]}"
        ) from None
