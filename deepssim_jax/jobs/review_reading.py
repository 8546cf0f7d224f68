"""Reads the folder of a finished audit, or search for duplicates or replicas, as a `ReviewSource`."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepssim_jax.audit import recheck_summary, tables
from deepssim_jax.audit.page import transformation
from deepssim_jax.audit.replica_result import Kind
from deepssim_jax.data.manifest import InputError, Role, read_manifest
from deepssim_jax.data.records import ArrayLayout, Links, Record
from deepssim_jax.data.sheet_records import named_fields
from deepssim_jax.data.store import InputSettings
from deepssim_jax.data.table_rows import plain
from deepssim_jax.data.volume import SliceSpec
from deepssim_jax.data.whole_volume import VolumeSettings
from deepssim_jax.jobs.collection import read_collection
from deepssim_jax.jobs.duplicate_settings import WHOLE_VOLUMES
from deepssim_jax.jobs.how import How
from deepssim_jax.jobs.review_source import Job, ReviewPair, ReviewSource, VolumeForm
from deepssim_jax.scoring import points
from deepssim_jax.scoring.decide import clopper_pearson
from deepssim_jax.scoring.match import NO_EVIDENCE, Moved
from deepssim_jax.scoring.volume_measure import Alignment
from deepssim_jax.scoring.volume_search import Level
from deepssim_jax.scoring.volume_sides import Modality

_MATRIX = ("matrix_yy", "matrix_yx", "matrix_xy", "matrix_xx")
_PARTIAL = ("partial_fine", "partial_middle", "partial_coarse")
_SHOWN = ("verified_score", "local_evidence", "local_points", *_PARTIAL)


def job_of(folder: Path) -> Job:
    """Whose finished folder it is.

    Raises:
      InputError: it is of no such job, or not finished.
    """
    for job in Job:
        if (folder / job.table).is_file() and (folder / recheck_summary.NAME).is_file():
            return job
    raise InputError(
        f"AUDIT={folder.name!r} must be the --out of a finished `deepssim audit`, `deepssim duplicates` or "
        "`deepssim replicas`"
    )


def read_source(folder: Path) -> ReviewSource:
    """Reads a finished folder.

    Raises:
      InputError: it is of no job that can be reviewed, is damaged, or its images are gone.
    """
    job = job_of(folder)
    if not (folder / "inputs.json").is_file():
        raise InputError(
            f"AUDIT={folder.name!r} was made by an earlier version, which did not note where its images "
            f"lie; run the same deepssim {job} command again"
        )
    try:
        summary = recheck_summary.read(folder / recheck_summary.NAME)
        inputs = recheck_summary.read(folder / "inputs.json")
        read = {Job.AUDIT: _audit, Job.DUPLICATES: _duplicates, Job.REPLICAS: _replicas}[job]
        return read(folder, summary, inputs)
    except (KeyError, TypeError, AttributeError) as error:
        raise recheck_summary.damaged(recheck_summary.NAME) from error


def _audit(folder: Path, summary: dict[str, Any], inputs: dict[str, Any]) -> ReviewSource:
    limits = summary["thresholds"]
    files, settings = _files(inputs), inputs["settings"]
    thresholds = {"verified_score": limits["near"], "local_evidence": limits["local"]}
    thresholds |= dict(zip(_PARTIAL, limits["partial"], strict=True))
    rows = [row for row in recheck_summary.rows(folder / "nearest.csv") if _compared(row)]
    ids = ("synthetic_id", "real_id")
    named = [plain(row["synthetic_id"]) for row in rows]
    files[Role.SYNTHETIC] |= named_fields(
        files[Role.SYNTHETIC], named, SliceSpec.parse(str(settings["slice"]))
    )
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
        doubles=frozenset(plain(row["image_id"]) for row in doubles),
        left_out=sum((recheck_summary.images_left_out(inputs) or {}).values()),
    )


def _files(inputs: dict[str, Any]) -> dict[Role, dict[str, Record]]:
    """The images of both sides by id."""
    settings, files = inputs["settings"], {}
    for role in (Role.REAL, Role.SYNTHETIC):
        manifest = read_manifest(
            inputs["sources"][role.value],
            role=role,
            subject_regex=(settings["subject_regex"] or None) if role is Role.REAL else None,
            links=Links(settings["links"]),
            arrays=ArrayLayout(settings["arrays"]),
        )
        files[role] = {record.image_id: record for record in manifest.records}
    return files


def _replicas(folder: Path, summary: dict[str, Any], inputs: dict[str, Any]) -> ReviewSource:
    files, settings = _files(inputs), inputs["settings"]
    modality = Modality(settings["modality"])
    spacing = settings["spacing"] if isinstance(settings["spacing"], int | float) else None
    grid = VolumeSettings((int(settings["size"]),) * 3, spacing, modality.window)
    pairs = []
    for row in recheck_summary.rows(folder / "replicas.csv"):
        levels = [level for level in Level if row.get(f"{level}_real_id")]
        if not levels:
            continue
        order = [str(kind) for kind in Kind]
        level = min(
            levels,
            key=lambda x: (order.index(row[f"{x}_kind"]), float(row[f"{x}_p_value"] or 1)),
        )
        facts = [("program’s label", row["kind"].replace("_", " ")), ("reason", row["reason"])]
        facts += [
            (f"{x} level", f"{row[f'{x}_kind'].replace('_', ' ')}, {row[f'{x}_real_id']}")
            for x in levels
        ]
        # Past a threshold that is not written here: by how improbable chance is.
        p_value = max(float(row["p_value"] or 1), 1e-12)
        pairs.append(
            ReviewPair(
                stratum=row["kind"],
                moving=plain(row["synthetic_id"]),
                fixed=plain(row[f"{level}_real_id"]),
                placed=Moved(),
                margin=-math.log10(p_value / 0.001),
                facts=tuple(facts),
            )
        )
    doubles = recheck_summary.rows(folder / "real_duplicates.csv")
    return ReviewSource(
        job=Job.REPLICAS,
        names=("synthetic", "real"),
        pairs=tuple(pairs),
        moving=files[Role.SYNTHETIC],
        fixed=files[Role.REAL],
        form=VolumeForm(grid, Alignment(settings["align"]), modality),
        rate=summary["replica_rate"],
        copies=frozenset({Kind.REPLICA.value}),
        doubles=frozenset(plain(row["image_id"]) for row in doubles),
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
    # A pair is a copy that reaches both of either.
    ways = [{"local_evidence": limits["evidence"], "local_points": limits["points"]}]
    if "sure_score" in limits:
        ways.append({"verified_score": limits["sure_score"], "local_points": limits["sure_points"]})
    # Equal files and equal pixels need no eye.
    looked_at = (How.COPY.value, How.SIMILAR.value)
    rows = [r for r in recheck_summary.rows(folder / "pairs.csv") if r["how"] in looked_at]
    pairs = tuple(
        _pair(
            row,
            ids=("first_id", "second_id"),
            stratum=row["how"],
            margin=max(min(_margins(row, way)) for way in ways),
        )
        for row in rows
    )
    volumes = settings["slice"] == WHOLE_VOLUMES
    grid = VolumeSettings((int(settings["size"]),) * 3)
    copies = sum(pair.stratum == How.COPY.value for pair in pairs)
    return ReviewSource(
        job=Job.DUPLICATES,
        names=("first", "second"),
        pairs=pairs,
        moving=files,
        fixed=files,
        form=VolumeForm(grid, Alignment.AFFINE, Modality.OTHER) if volumes else _form(settings),
        rate=tables.proportion(clopper_pearson(copies, len(pairs), level=settings["level"])) or {},
        copies=frozenset({How.COPY.value}),
        doubles=frozenset(
            plain(row["file"]) for row in recheck_summary.rows(folder / "groups.csv")
        ),
        left_out=recheck_summary.images_left_out(inputs) or 0,
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
    facts = [("program’s label", stratum.replace("_", " "))]
    facts += [
        (name.replace("_", " "), f"{float(row[name]):.3f}") for name in _SHOWN if row.get(name)
    ]
    moving, fixed = (plain(row[name]) for name in ids)
    if "matrix_yy" not in row:  # volumes are aligned again
        facts += [("rotation deg", row["rotation_deg"]), ("shift mm", row["shift_mm"])]
        return ReviewPair(stratum, moving, fixed, Moved(), margin, tuple(facts))
    placed = Moved(
        flip=row["flip"],
        matrix=tuple(float(row[name]) for name in _MATRIX),
        negative=row["negative"] == "1",
        **{name: float(row[name]) for name in ("shift_y", "shift_x", "rotation_deg", "scale")},
    )
    words = transformation(placed) + (", negative" if placed.negative else "")
    return ReviewPair(stratum, moving, fixed, placed, margin, (*facts, ("transformation", words)))


def _margins(row: Mapping[str, str], thresholds: Mapping[str, float]) -> list[float]:
    """How far each kind of evidence lies beyond its threshold, relative to this."""
    found = [
        (float(row[name]) - limit) / max(abs(limit), 1e-6)
        for name, limit in thresholds.items()
        if row.get(name)
    ]
    return [x for x in found if math.isfinite(x)] or [-1.0]
