"""Published score files: a matrix, the keys of its rows and columns, and a table of labels.

Contract: `matrix.npz` holds `data` [real, synthetic] (float16), `real.npz` and `synth.npz` hold
`data` with the keys `uid___name`, the CSV file has `real_key`, `synth_key` and `label` or
`final_label`: 0 different, 1 duplicate, 2 similar, or our words. Nothing is unpickled, and the matrix
is mapped, never read whole.
"""

import dataclasses
import zipfile
from pathlib import Path

import numpy as np

from deepssim_jax.data.manifest import InputError
from deepssim_jax.data.table_rows import named_rows

# Their numbers to ours, which rise with similarity.
_LABELS = {
    "0": 0,
    "1": 2,
    "2": 1,
    "unrelated": 0,
    "near_duplicate": 1,
    "exact_duplicate": 2,
}
_LOCAL_HEADER = 30


@dataclasses.dataclass(frozen=True)
class LabelledScores:
    """Scores [n] of the table's pairs, labels 0 to 2 by similarity, and the real images' uids."""

    scores: np.ndarray
    labels: np.ndarray
    patients: np.ndarray


def read_labelled(
    matrix: Path, real_keys: Path, synthetic_keys: Path, table: Path
) -> LabelledScores:
    """The scores of the pairs that the table labels.

    Raises:
      InputError: a file is not as the module says, or a key of the table has no row.
    """
    values = open_matrix(matrix)
    keys = [_keys(path) for path in (real_keys, synthetic_keys)]
    if values.shape != (len(keys[0]), len(keys[1])):
        raise InputError(
            f"{matrix.name} is {values.shape[0]} x {values.shape[1]}, and there are {len(keys[0])} "
            f"real and {len(keys[1])} synthetic keys"
        )
    places: list[tuple[int, int]] = []
    labels, patients = [], []
    with table.open(newline="", encoding="utf-8-sig") as file:
        columns, lines = named_rows(file, table.name)
        name = next((c for c in ("final_label", "label") if c in columns), None)
        if name is None or not {"real_key", "synth_key"} <= set(columns):
            raise InputError(f"{table.name} needs real_key, synth_key, and final_label or label")
        for number, row in lines:
            pair = (row["real_key"], row["synth_key"])
            label = row[name].strip().removesuffix(".0")
            wrong = "real_key" if pair[0] not in keys[0] else "synth_key"
            if pair[0] not in keys[0] or pair[1] not in keys[1]:
                raise InputError(f"{table.name}, line {number}: its {wrong} is not in the indices")
            if label not in _LABELS:
                raise InputError(
                    f"{table.name}, line {number}: its {name} is none of {', '.join(_LABELS)}"
                )
            places.append((keys[0][pair[0]], keys[1][pair[1]]))
            labels.append(_LABELS[label])
            patients.append(pair[0].split("___")[0])
    if not places:
        raise InputError(f"{table.name} holds no pair")
    rows, columns_ = np.array(places).T
    scores = np.asarray(values[rows, columns_], np.float64)
    return LabelledScores(scores, np.array(labels), np.array(patients))


def open_matrix(path: Path) -> np.ndarray:
    """Maps `data` of an uncompressed `.npz`, or a `.npy` file.

    Raises:
      InputError: it is neither, or compressed, or holds no plain numbers.
    """
    if path.suffix == ".npy":
        return np.load(path, mmap_mode="r", allow_pickle=False)
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo("data.npy")
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise InputError(f"{path.name} is no .npz file with an array `data`") from error
    if member.compress_type != zipfile.ZIP_STORED:
        raise InputError(f"{path.name} is compressed and cannot be mapped; save it by numpy.savez")
    with path.open("rb") as file:
        # The lengths in the local header are those of this copy of the name.
        file.seek(member.header_offset)
        header = file.read(_LOCAL_HEADER)
        names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        file.seek(member.header_offset + _LOCAL_HEADER + names)
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(file)
        if dtype.hasobject or len(shape) != 2:
            raise InputError(
                f"{path.name} holds {dtype} of shape {shape}, and no matrix of numbers"
            )
        return np.memmap(path, dtype, "r", file.tell(), shape, order="F" if fortran else "C")


def _keys(path: Path) -> dict[str, int]:
    try:
        with np.load(path, allow_pickle=False) as file:
            names = file["data"]
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path.name} is no .npz file with keys in `data`") from error
    return {str(name): row for row, name in enumerate(names)}
