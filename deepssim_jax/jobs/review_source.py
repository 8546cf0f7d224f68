"""A finished audit or search for duplicates, as pairs for people to look at.

Contract: a `ReviewSource` lists every pair that the job had to decide, each in one stratum, its label by
the program. Of an audit these are the synthetic images with their best matches, and of duplicates the pairs
that were found. Images are read again from where they lay; a pair keeps the transformation that was found.
"""

import dataclasses
import enum
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepssim_jax.audit import recheck_summary, tables
from deepssim_jax.audit.report import transformation
from deepssim_jax.data.manifest import InputError, Role, read_manifest
from deepssim_jax.data.records import ArrayLayout, Links, Record
from deepssim_jax.data.store import InputSettings
from deepssim_jax.jobs.collection import read_collection
from deepssim_jax.jobs.duplicates_result import How
from deepssim_jax.scoring import points
from deepssim_jax.scoring.decide import clopper_pearson
from deepssim_jax.scoring.match import NO_EVIDENCE

_MATRIX = ("matrix_yy", "matrix_yx", "matrix_xy", "matrix_xx")
_PARTIAL = ("partial_fine", "partial_middle", "partial_coarse")
_SHOWN = ("verified_score", "local_evidence", "local_points", *_PARTIAL)


class Job(enum.StrEnum):
    """Whose folder it is."""

    AUDIT = "audit"
    DUPLICATES = "duplicates"


@dataclasses.dataclass(frozen=True)
class Placed:
    """How the fixed image was moved to give the moving one; see `ops.transform`.

    `matrix` is row by row; shifts are in pixels of a square of the source's declared size.
    """

    flip: str = "none"
    matrix: tuple[float, ...] = (1.0, 0.0, 0.0, 1.0)
    shift_y: float = 0.0
    shift_x: float = 0.0
    rotation_deg: float = 0.0
    scale: float = 1.0
    negative: bool = False


@dataclasses.dataclass(frozen=True)
class ReviewPair:
    """A pair to decide: `moving` (the synthetic image, or the first of two) and `fixed` by image id.

    `margin` is how far the evidence lies beyond the nearest threshold, relative to it: below 0 the program
    says that it is no copy. `facts` are shown beside the pictures unless the reader is blind.
    """

    stratum: str
    moving: str
    fixed: str
    placed: Placed
    margin: float
    facts: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class ReviewSource:
    """What can be reviewed of a finished job.

    `names` are what both pictures of a pair are called. `pairs` are all that were decided; `moving` and
    `fixed` their files by image id. `rate` is the program's own, as in `summary.json`; `copies` are the
    strata that the program calls copies. `doubles` are fixed images that are copies of each other.
    """

    job: Job
    names: tuple[str, str]
    pairs: tuple[ReviewPair, ...]
    moving: Mapping[str, Record]
    fixed: Mapping[str, Record]
    form: InputSettings
    rate: Mapping[str, Any]
    copies: frozenset[str]
    doubles: frozenset[str] = frozenset()

    @property
    def strata(self) -> dict[str, int]:
        """How many pairs have which label."""
        found: dict[str, int] = {}
        for pair in self.pairs:
            found[pair.stratum] = found.get(pair.stratum, 0) + 1
        return dict(sorted(found.items()))


def job_of(folder: Path) -> Job:
    """Whose finished folder it is.

    Raises:
      InputError: it is of neither job, or not finished.
    """
    for job, table in ((Job.AUDIT, "nearest.csv"), (Job.DUPLICATES, "groups.csv")):
        if (folder / table).is_file() and (folder / recheck_summary.NAME).is_file():
            return job
    raise InputError(
        f"AUDIT={folder.name!r} must be the --out of a finished `deepssim audit` or `deepssim duplicates`"
    )


def read_source(folder: Path) -> ReviewSource:
    """Reads a finished folder.

    Raises:
      InputError: it is of no job that can be reviewed, is damaged, or its images are gone.
    """
    job = job_of(folder)
    if job is Job.DUPLICATES and not (folder / "inputs.json").is_file():
        raise InputError(
            f"AUDIT={folder.name!r} was made by an earlier version, which did not note where its images "
            "lie; run the same deepssim duplicates command again"
        )
    try:
        summary = recheck_summary.read(folder / recheck_summary.NAME)
        inputs = recheck_summary.read(folder / "inputs.json")
        return (
            _audit(folder, summary, inputs)
            if job is Job.AUDIT
            else _duplicates(folder, summary, inputs)
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise recheck_summary.damaged(recheck_summary.NAME) from error


def _audit(folder: Path, summary: dict[str, Any], inputs: dict[str, Any]) -> ReviewSource:
    settings, limits = inputs["settings"], summary["thresholds"]
    files: dict[Role, dict[str, Record]] = {}
    for role in (Role.REAL, Role.SYNTHETIC):
        manifest = read_manifest(
            inputs["sources"][role.value],
            role=role,
            subject_regex=settings["subject_regex"] or None,
            links=Links(settings["links"]),
            arrays=ArrayLayout(settings["arrays"]),
        )
        files[role] = {record.image_id: record for record in manifest.records}
    thresholds = {"verified_score": limits["near"], "local_evidence": limits["local"]}
    thresholds |= dict(zip(_PARTIAL, limits["partial"], strict=True))
    rows = [row for row in recheck_summary.rows(folder / "nearest.csv") if _compared(row)]
    ids = ("synthetic_id", "real_id")
    doubles = recheck_summary.rows(folder / "real_duplicates.csv")
    return ReviewSource(
        job=Job.AUDIT,
        names=("synthetic", "real"),
        # One threshold that is reached makes a copy.
        pairs=tuple(
            _pair(row, ids=ids, stratum=row["label"], margin=max(_margins(row, thresholds)))
            for row in rows
        ),
        moving=files[Role.SYNTHETIC],
        fixed=files[Role.REAL],
        form=_form(settings),
        rate=summary["copy_rate"],
        copies=frozenset({"exact_duplicate", "near_duplicate"}),
        doubles=frozenset(tables.plain(row["image_id"]) for row in doubles),
    )


def _duplicates(folder: Path, summary: dict[str, Any], inputs: dict[str, Any]) -> ReviewSource:
    settings = inputs["settings"]
    collection = read_collection(
        [Path(source) for source in inputs["sources"]],
        subject_regex=settings["subject_regex"] or None,
        links=Links(settings["links"]),
        arrays=ArrayLayout(settings["arrays"]),
    )
    files = {record.image_id: record for record in collection.manifest.records}
    limits = summary["thresholds"]
    thresholds = {"local_evidence": limits["evidence"], "local_points": limits["points"]}
    # Equal files and equal pixels need no eye.
    looked_at = (How.COPY.value, How.SIMILAR.value)
    rows = [r for r in recheck_summary.rows(folder / "pairs.csv") if r["how"] in looked_at]
    # Both thresholds are to be reached.
    pairs = tuple(
        _pair(
            row,
            ids=("first_id", "second_id"),
            stratum=row["how"],
            margin=min(_margins(row, thresholds)),
        )
        for row in rows
    )
    copies = sum(pair.stratum == How.COPY.value for pair in pairs)
    return ReviewSource(
        job=Job.DUPLICATES,
        names=("first", "second"),
        pairs=pairs,
        moving=files,
        fixed=files,
        form=_form(settings),
        rate=tables.proportion(clopper_pearson(copies, len(pairs), level=settings["level"])) or {},
        copies=frozenset({How.COPY.value}),
        doubles=frozenset(
            tables.plain(row["file"]) for row in recheck_summary.rows(folder / "groups.csv")
        ),
    )


def _form(settings: Mapping[str, Any]) -> InputSettings:
    side = int(settings["size"])
    return InputSettings(size=(side, side), slice=str(settings["slice"]), canvas=points.SIDE)


def _compared(row: Mapping[str, str]) -> bool:
    """Whether the image held enough to be compared; the others take no part in the rate."""
    return float(row["verified_score"]) > 0 or float(row["local_evidence"]) > NO_EVIDENCE


def _pair(
    row: Mapping[str, str], *, ids: tuple[str, str], stratum: str, margin: float
) -> ReviewPair:
    placed = Placed(
        flip=row["flip"],
        matrix=tuple(float(row[name]) for name in _MATRIX),
        negative=row["negative"] == "1",
        **{name: float(row[name]) for name in ("shift_y", "shift_x", "rotation_deg", "scale")},
    )
    facts = [("program’s label", stratum.replace("_", " "))]
    facts += [
        (name.replace("_", " "), f"{float(row[name]):.3f}") for name in _SHOWN if row.get(name)
    ]
    words = transformation(placed) + (", negative" if placed.negative else "")
    moving, fixed = (tables.plain(row[name]) for name in ids)
    return ReviewPair(stratum, moving, fixed, placed, margin, (*facts, ("transformation", words)))


def _margins(row: Mapping[str, str], thresholds: Mapping[str, float]) -> list[float]:
    """How far each kind of evidence lies beyond its threshold, relative to this."""
    found = [
        (float(row[name]) - limit) / max(abs(limit), 1e-6)
        for name, limit in thresholds.items()
        if row.get(name)
    ]
    return [x for x in found if math.isfinite(x)] or [-1.0]
