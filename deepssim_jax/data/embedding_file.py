"""Embeddings that another program made, as a file.

Contract: a `.npz` with `ids`, text [n], and `embeddings`, real [n, d]; nothing else of it is read.
"""

import zipfile
from pathlib import Path

import numpy as np


def read_embeddings(path: str | Path) -> dict[str, np.ndarray]:
    """The embedding of each id.

    Raises:
      ValueError: the file is missing or damaged, an array is missing or of another form, or an id
        stands there twice.
    """
    path = Path(path)
    form = "it needs the arrays `ids`, text [n], and `embeddings`, numbers [n, d]"
    if not path.is_file():
        raise ValueError(f"there is no file of embeddings {path.name!r}; check the path")
    try:
        with np.load(path, allow_pickle=False) as file:
            ids, rows = file["ids"], file["embeddings"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path.name} is no file of embeddings ({error}); {form}") from None
    if ids.dtype.kind != "U" or ids.ndim != 1 or rows.dtype.kind != "f" or rows.ndim != 2:
        raise ValueError(f"{path.name} holds ids {ids.dtype} and embeddings {rows.dtype}; {form}")
    if len(ids) != len(rows) or not np.isfinite(rows).all():
        raise ValueError(
            f"{path.name} holds {len(ids)} ids and {len(rows)} embeddings; they must be as many, and finite"
        )
    out = dict(zip(map(str, ids), rows, strict=True))
    if len(out) < len(ids):
        raise ValueError(f"{path.name} holds an id twice; keep one embedding for each volume")
    return out
