"""Checking a finished audit from its files: every hash, every count, and every flagged score.

The report's claims do not rest on trust in a folder: what is summed up is summed up again, and the
pairs are read again from the original images, placed as the table says, and scored again.
"""

import collections
import dataclasses
from collections.abc import Mapping, Set
from pathlib import Path

import numpy as np

from deepssim_jax.audit import recheck_summary
from deepssim_jax.audit.recheck_summary import Rows
from deepssim_jax.data import store
from deepssim_jax.data.manifest import InputError, Record, Role, read_manifest
from deepssim_jax.data.records import ArrayLayout, Links
from deepssim_jax.data.sheet_records import named_fields
from deepssim_jax.data.table_rows import plain
from deepssim_jax.data.volume import SliceSpec, Unreadable
from deepssim_jax.ops.transform import FLIP_NAMES, Transform
from deepssim_jax.scoring.match import Progress
from deepssim_jax.scoring.verify import score_at
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
      InputError: there is no finished audit in the directory, or its summary is damaged.
    """
    if not (directory / recheck_summary.NAME).exists():
        raise InputError("there is no summary.json here; give the --out folder of a finished audit")
    summary = recheck_summary.read(directory / recheck_summary.NAME)
    try:
        problems = _unlike(directory, summary["files"]) or recheck_summary.problems(
            directory, summary
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise recheck_summary.damaged(recheck_summary.NAME) from error
    files = len(summary["files"])
    if any(line.startswith(recheck_summary.FILE) for line in problems):
        return Recheck(files, 0, 0, tuple(problems))  # its tables are not those of the audit
    inputs = recheck_summary.read(directory / "inputs.json")
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
    listed = recheck_summary.rows(directory / "inputs.csv")
    known = {(row["role"], plain(row["image_id"])) for row in listed}
    records |= _fields(records, known, SliceSpec.parse(settings["slice"]))
    added = collections.Counter(role for role, image_id in records if (role, image_id) not in known)
    # They may lie there, and their names were not kept.
    added.subtract(recheck_summary.images_left_out(inputs) or {})
    problems += [
        f"{n:,} {role} images were added since" for role, n in sorted(added.items()) if n > 0
    ]
    rows = [row for row in listed if row["status"] == "read"]
    for number, row in enumerate(rows, start=1):
        record = records.get((row["role"], plain(row["image_id"])))
        if record is None:
            problems.append(f"inputs.csv, image {number} ({row['role']}): the file is gone")
        elif store.file_hash(record) != row["sha256"]:
            problems.append(f"inputs.csv, image {number} ({row['role']}): the file was changed")
        on_progress(number, len(rows), "hashing images")
    pairs = recheck_summary.rows(directory / "pairs.csv")
    side = settings["size"]
    form = store.InputSettings(size=(side, side), slice=settings["slice"])
    for start in range(0, len(pairs), _BATCH):
        problems += _rescore(pairs[start : start + _BATCH], records, form)
        on_progress(min(start + _BATCH, len(pairs)), len(pairs), "scoring pairs")
    return Recheck(files, len(rows), len(pairs), tuple(problems))


def _fields(
    records: dict[tuple[str, str], Record], known: Set[tuple[str, str]], spec: SliceSpec
) -> dict[tuple[str, str], Record]:
    """The fields of sheets among the images that were compared."""
    role = Role.SYNTHETIC.value
    files = {image_id: record for (of, image_id), record in records.items() if of == role}
    try:
        found = named_fields(files, sorted(name for of, name in known if of == role), spec)
    except Unreadable:  # the sheet itself will be said to be changed
        found = {}
    return {(role, name): record for name, record in found.items()}


def _unlike(directory: Path, files: Mapping[str, str]) -> list[str]:
    """What is missing, changed, or without a hash."""
    changed = [
        f"{recheck_summary.FILE}{name}: {'missing' if found is None else 'was changed'}"
        for name, digest in sorted(files.items())
        if (found := _digest(directory / name)) != digest
    ]
    return recheck_summary.unlisted(files) + changed


def _rescore(
    pairs: Rows, records: dict[tuple[str, str], Record], form: store.InputSettings
) -> list[str]:
    images, kept, problems = [], [], []
    for row in pairs:
        names = {
            "synthetic": plain(row["synthetic_id"]),
            "real": plain(row["real_id"]),
        }
        try:
            images.append([store.load_one(records[key], form) for key in names.items()])
            kept.append(row)
        except (KeyError, Unreadable) as error:
            why = "is gone" if isinstance(error, KeyError) else str(error)
            problems.append(f"pair {row['rank']}: an image cannot be read ({why})")
    if not kept:
        return problems
    moving, fixed = np.stack([a for a, _ in images]), np.stack([b for _, b in images])
    negative = np.array([row["negative"] == "1" for row in kept])
    scores = score_at(moving, fixed, transforms(kept), negative)
    for row, score in zip(kept, scores, strict=True):
        written = float(row["verified_score"])
        if abs(score - written) > TOLERANCE:
            problems.append(f"pair {row['rank']}: scored {written:.4f}, now {score:.4f}")
    return problems


def transforms(rows: Rows) -> Transform:
    """The transformations that the table holds."""

    def numbers(*columns: str) -> np.ndarray:
        return np.array([[float(row[c]) for c in columns] for row in rows], np.float32)

    matrix = numbers("matrix_yy", "matrix_yx", "matrix_xy", "matrix_xx").reshape(-1, 2, 2)
    flip = np.array([FLIP_NAMES.index(row["flip"]) for row in rows], np.int32)
    return Transform.of(flip, matrix, numbers("shift_y", "shift_x"))


def _digest(path: Path) -> str | None:
    return sha256(path) if path.exists() else None
