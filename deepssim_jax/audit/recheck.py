"""Checking a finished audit from its files: every hash, and every flagged score.

The report's claims do not rest on trust in a folder: the pairs are read again from the original
images, aligned again, and scored again.
"""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np

from deepssim_jax.data import store
from deepssim_jax.data.manifest import InputError, Record, Role, read_manifest
from deepssim_jax.data.records import ArrayLayout, Links
from deepssim_jax.data.volume import Unreadable
from deepssim_jax.ops.transform import FLIP_NAMES, Transform
from deepssim_jax.scoring.match import Progress
from deepssim_jax.scoring.verify import verify_from, verify_pairs
from deepssim_jax.workspace import sha256

# Scores are written with six decimals; another machine's arithmetic may differ in the fifth.
TOLERANCE = 1e-3
_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Recheck:
    """How many files and pairs were checked, and all that was wrong, one line each."""

    files: int
    inputs: int
    pairs: int
    problems: tuple[str, ...]


def recheck(directory: Path, *, on_progress: Progress = lambda done, total, what: None) -> Recheck:
    """Re-checks an audit.

    Args:
      directory: the `--out` of an audit; the images must still lie where they lay.
      on_progress: called with (done, total, what).

    Raises:
      InputError: there is no finished audit in the directory.
    """
    summary_path = directory / "summary.json"
    if not summary_path.exists():
        raise InputError("there is no summary.json here; give the --out folder of a finished audit")
    summary = json.loads(summary_path.read_text())
    problems = [
        f"{name}: {'missing' if found is None else 'was changed'}"
        for name, digest in sorted(summary["files"].items())
        if (found := _digest(directory / name)) != digest
    ]
    if any(line.startswith(("inputs.", "pairs.csv")) for line in problems):
        return Recheck(len(summary["files"]), 0, 0, tuple(problems))
    inputs = json.loads((directory / "inputs.json").read_text())
    settings = inputs["settings"]
    records: dict[tuple[str, str], Record] = {}
    for role, source in inputs["sources"].items():
        manifest = read_manifest(
            source,
            role=Role(role),
            subject_regex=settings["subject_regex"] or None,
            links=Links(settings["links"]),
            arrays=ArrayLayout(settings["arrays"]),
        )
        records |= {(role, r.image_id): r for r in manifest.records}
    rows = [row for row in _rows(directory / "inputs.csv") if row["status"] == "read"]
    for number, row in enumerate(rows, start=1):
        record = records.get((row["role"], _plain(row["image_id"])))
        if record is None:
            problems.append(f"inputs.csv, image {number} ({row['role']}): the file is gone")
        elif store.file_hash(record) != row["sha256"]:
            problems.append(f"inputs.csv, image {number} ({row['role']}): the file was changed")
        on_progress(number, len(rows), "hashing images")
    pairs = list(_rows(directory / "pairs.csv"))
    side = settings["size"]
    form = store.InputSettings(size=(side, side), slice=settings["slice"])
    for start in range(0, len(pairs), _BATCH):
        problems += _rescore(pairs[start : start + _BATCH], records, form)
        on_progress(min(start + _BATCH, len(pairs)), len(pairs), "scoring pairs")
    return Recheck(len(summary["files"]), len(rows), len(pairs), tuple(problems))


def _rescore(
    pairs: list[dict[str, str]], records: dict[tuple[str, str], Record], form: store.InputSettings
) -> list[str]:
    images, kept, problems = [], [], []
    for row in pairs:
        names = {"synthetic": _plain(row["synthetic_id"]), "real": _plain(row["real_id"])}
        try:
            images.append([store.load_one(records[key], form) for key in names.items()])
            kept.append(row)
        except (KeyError, Unreadable) as error:
            why = "is gone" if isinstance(error, KeyError) else str(error)
            problems.append(f"pair {row['rank']}: an image cannot be read ({why})")
    if not kept:
        return problems
    moving, fixed = np.stack([a for a, _ in images]), np.stack([b for _, b in images])
    placed = np.array([row["found_by"] == "local_features" for row in kept])
    scores = np.zeros(len(kept), np.float32)
    if not placed.all():
        scores[~placed] = verify_pairs(moving[~placed], fixed[~placed]).score
    if placed.any():
        rows = [row for row, here in zip(kept, placed, strict=True) if here]
        negative = np.array([row["negative"] == "1" for row in rows])
        start = _transform(rows)
        scores[placed] = verify_from(moving[placed], fixed[placed], start, negative).score
    for row, score in zip(kept, scores, strict=True):
        written = float(row["verified_score"])
        # A search from scratch may find an even better alignment, never a much worse one.
        if score < written - TOLERANCE:
            problems.append(f"pair {row['rank']}: scored {written:.4f}, now {score:.4f}")
    return problems


def _transform(rows: list[dict[str, str]]) -> Transform:
    """The transformations that the table holds."""

    def numbers(*columns: str) -> np.ndarray:
        return np.array([[float(row[c]) for c in columns] for row in rows], np.float32)

    matrix = numbers("matrix_yy", "matrix_yx", "matrix_xy", "matrix_xx").reshape(-1, 2, 2)
    flip = np.array([FLIP_NAMES.index(row["flip"]) for row in rows], np.int32)
    return Transform.of(flip, matrix, numbers("shift_y", "shift_x"))


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _plain(cell: str) -> str:
    """Undoes the apostrophe that `tables.cell` puts before what looks like a formula."""
    return cell[1:] if cell.startswith("'") and cell[1:2] in "=+-@\t\r" else cell


def _digest(path: Path) -> str | None:
    return sha256(path) if path.exists() else None
