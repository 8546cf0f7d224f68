"""What is known of each image, as numbers that a generator can be conditioned on.

Contract: a condition is float32 [n, tokens, d] whose last entry is 1 where something is said; all
zeros mean that nothing is known. Variables are columns of a table, numbers standardised and words
one-hot; texts are vectors, given in files or made here from hashed parts of words.
"""

import dataclasses
import enum
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deepssim_jax.data.manifest import InputError
from deepssim_jax.data.table_rows import named_rows

TEXT_DIM = 512
_MISSING = {"", "n/a", "na", "nan"}


class Conditioning(enum.StrEnum):
    """What a generator is conditioned on of an image."""

    NONE = "none"
    VARIABLES = "variables"
    TEXT = "text"


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of a table: words where `words` are its values, numbers otherwise."""

    name: str
    mean: float = 0.0
    deviation: float = 1.0
    words: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Numbers that it becomes."""
        return len(self.words) or 1

    def encode(self, text: str) -> np.ndarray:
        """float32 [width]; a missing value is the mean, an unknown word none of them."""
        out = np.zeros(self.width, np.float32)
        if text.strip().lower() in _MISSING:
            return out
        if self.words:
            if text in self.words:
                out[self.words.index(text)] = 1.0
            return out
        out[0] = (float(text) - self.mean) / self.deviation
        return out


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Column names and rows of a `.csv` or `.tsv` file."""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(newline="", encoding="utf-8-sig") as file:
        names, rows = named_rows(file, path.name, delimiter=delimiter)
        return names, [row for _, row in rows]


def fit_columns(rows: Sequence[dict[str, str]], names: Sequence[str]) -> tuple[Column, ...]:
    """Means and deviations, or the words, of columns of these rows."""
    out = []
    for name in names:
        known = [row[name] for row in rows if row[name].strip().lower() not in _MISSING]
        try:
            values = np.array([float(text) for text in known])
        except ValueError:
            out.append(Column(name, words=tuple(sorted(set(known)))))
            continue
        if not len(values) or not np.isfinite(values).all():
            raise InputError(f"column {name!r} holds no finite number and no word; leave it out")
        out.append(Column(name, float(values.mean()), float(values.std()) or 1.0))
    return tuple(out)


def rows_of(path: Path, image_ids: Sequence[str], columns: Sequence[str]) -> list[dict[str, str]]:
    """The row of each image, in the order of the images.

    Raises:
      InputError: a column is missing, or an image has no row.
    """
    names, rows = read_table(path)
    missing = [c for c in columns if c not in names]
    if missing:
        raise InputError(
            f"{path.name} has no column {', '.join(missing)} among the {len(names)} that its first line "
            "names; choose among these by --config.columns"
        )
    key = "image_id" if "image_id" in names else "path"
    if key not in names:
        raise InputError(f"{path.name} needs a column `image_id` or `path` to tell the images")
    found = {row[key]: row for row in rows}
    absent = [name for name in image_ids if name not in found]
    if absent:
        raise InputError(f"{path.name} has no row for {len(absent)} of {len(image_ids)} images")
    return [found[name] for name in image_ids]


def variables(rows: Sequence[dict[str, str]], columns: Sequence[Column]) -> np.ndarray:
    """Conditions float32 [n, 1, d] of rows of a table."""
    values = [np.concatenate([c.encode(row[c.name]) for c in columns]) for row in rows]
    return _said(np.stack(values))


def texts(rows: Sequence[dict[str, str]], *, root: Path) -> np.ndarray:
    """Conditions float32 [n, 1, d] of a column `embedding` (a `.npy` file each) or `prompt`.

    Raises:
      InputError: a file is missing, is no vector, or is of another length than the first.
    """
    if "embedding" not in rows[0]:
        return _said(np.stack([embed_text(row["prompt"]) for row in rows]))
    out: list[np.ndarray] = []
    for number, row in enumerate(rows, start=1):
        path = root / row["embedding"]
        try:
            vector = np.load(path, allow_pickle=False).astype(np.float32).ravel()
        except (OSError, ValueError) as error:
            raise InputError(f"the embedding of image {number} cannot be read") from error
        if out and len(vector) != len(out[0]):
            raise InputError(
                f"the embedding of image {number} has {len(vector)} numbers, the first {len(out[0])}"
            )
        out.append(vector)
    return _said(np.stack(out))


def embed_text(text: str, *, dim: int = TEXT_DIM) -> np.ndarray:
    """A vector of unit length of a text, the same everywhere and without a model.

    Each word and each three letters in a row are hashed to a place and a sign (Weinberger et al.,
    ICML 2009): different prompts get different vectors, similar ones similar vectors.
    """
    words = text.lower().split()
    padded = f" {' '.join(words)} "
    parts = words + [padded[i : i + 3] for i in range(max(0, len(padded) - 2))]
    out = np.zeros(dim, np.float32)
    for part in parts:
        digest = hashlib.blake2b(part.encode(), digest_size=8).digest()
        number = int.from_bytes(digest, "little")
        out[number % dim] += 1.0 if number >> 63 else -1.0
    return out / max(float(np.linalg.norm(out)), 1e-12)


def _said(values: np.ndarray) -> np.ndarray:
    flags = np.ones((len(values), 1), np.float32)
    return np.concatenate([values.astype(np.float32), flags], axis=1)[:, None]


def columns_to_json(columns: Sequence[Column]) -> str:
    """For the metadata of a file."""
    return json.dumps([dataclasses.asdict(column) for column in columns])
