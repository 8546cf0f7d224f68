"""The job for volumes: which synthetic volumes are replicas of a patient's, at three levels.

Every stage leaves its work under `<out>/work`, named by what it was computed from, as in
`audit.audit`: a killed run goes on, and the files outside of `work` come out the same.
"""

import dataclasses
import functools
import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from deepssim_jax.audit import outputs, replica_outputs
from deepssim_jax.audit.replica_calibration import Evidence, calibrate_levels, kind_of
from deepssim_jax.audit.replica_result import (
    Kind,
    LevelMatch,
    RatingSummary,
    Repeat,
    ReplicaResult,
    VolumeMatch,
)
from deepssim_jax.audit.result import Exclusion
from deepssim_jax.data.embedding_file import read_embeddings
from deepssim_jax.data.manifest import InputError, Manifest, Role, read_manifest
from deepssim_jax.data.store import ImageStore
from deepssim_jax.data.volume import Unreadable
from deepssim_jax.data.whole_volume import Content, VolumeSettings
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.nn.volume_embedding import embed_volumes
from deepssim_jax.scoring import decide, ratings
from deepssim_jax.scoring.match import Progress
from deepssim_jax.scoring.volume_match import (
    DECIDING,
    MEASURES,
    Alignment,
    MatchSettings,
    best_by_level,
    match_volumes,
)
from deepssim_jax.scoring.volume_search import Level, VolumeSide
from deepssim_jax.scoring.volume_sides import (
    Embed,
    LevelSources,
    Modality,
    build_volume_side,
)


@dataclasses.dataclass(frozen=True)
class ReplicaSettings:
    """What a user may choose; every field is echoed in the report.

    `size` is the side in voxels of the cube that every volume is brought to, `spacing` their size in mm
    (None: each file's whole field of view); `modality` decides how label maps are made where none are
    given; `encoder` embeds slices unless embeddings are given; `candidates` of each search are measured.
    """

    size: int = 64
    spacing: float | None = None
    modality: Modality = Modality.OTHER
    alignment: Alignment = Alignment.RIGID
    encoder: str = "default"
    candidates: int = 2
    subject_regex: str | None = None
    level: float = 0.95
    seed: int = 0
    allow_same: bool = False

    def validate(self) -> None:
        """Raises ValueError for values that cannot work."""
        if not 32 <= self.size <= 256:
            raise ValueError(f"size {self.size} must lie in [32, 256] voxels, for example 64")
        if not 1 <= self.candidates <= 32:
            raise ValueError(f"candidates {self.candidates} must lie in [1, 32], for example 2")
        if not 0.5 <= self.level < 1.0:
            raise ValueError(f"level {self.level} must lie in [0.5, 1), for example 0.95")

    @property
    def grid(self) -> VolumeSettings:
        """How volumes are read."""
        return VolumeSettings((self.size,) * 3, self.spacing, self.modality.window)


@dataclasses.dataclass(frozen=True)
class LevelFiles:
    """What the user has made for the levels, each for both sides or for none.

    `segmentations` are folders of label maps named as the volumes are; `embeddings` are `.npz` files
    with `ids` and `embeddings`; by role.
    """

    segmentations: Mapping[Role, str | Path] = dataclasses.field(default_factory=dict)
    embeddings: Mapping[Role, str | Path] = dataclasses.field(default_factory=dict)

    def validate(self) -> None:
        """Raises InputError where a side is missing."""
        for name, given in (("segmentations", self.segmentations), ("embeddings", self.embeddings)):
            if len(given) == 1:
                (only,) = given
                other = Role.REAL if only is Role.SYNTHETIC else Role.SYNTHETIC
                raise InputError(
                    f"--{name}_{only.value} is given and --{name}_{other.value} is not; a level needs both"
                )


_SAME = (
    "--real and --synthetic hold the same files: every volume would be found to be a replica of itself. "
    "Did you mean another folder? If this is intended, add --allow_same"
)
_ROLES = (Role.REAL, Role.SYNTHETIC)


def replicas(
    real: str | Path,
    synthetic: str | Path,
    *,
    out: str | Path | None = None,
    files: LevelFiles = LevelFiles(),
    rated: str | Path | None = None,
    settings: ReplicaSettings = ReplicaSettings(),
    on_progress: Progress = lambda done, total, what: None,
) -> ReplicaResult:
    """Finds the synthetic volumes that are replicas of a real one, at up to three levels.

    The levels and their names are those of RELICT; see `scoring.volume_search` for how each is
    searched and `audit.replica_calibration` for where thresholds come from.

    Args:
      real: folder, manifest or BIDS root of the training volumes (NIfTI, DICOM series, NumPy).
      synthetic: the volumes to judge, likewise.
      out: directory for the report and tables; None writes nothing that stays.
      files: label maps and embeddings that the user has made.
      rated: a `.csv` of what people say, see `scoring.ratings.read_ratings`.
      settings: see `ReplicaSettings`.
      on_progress: called with (done, total, what) as the work goes on.

    Returns:
      The result; with `out`, `report.html`, `report_share.html`, `replicas.csv` and `summary.json` lie
      there too.

    Raises:
      InputError: a folder is missing or holds no readable volume, or both are the same.
      ValueError: a setting cannot work, or a file does not fit the volumes.
    """
    settings.validate()
    files.validate()
    if out is None:
        with tempfile.TemporaryDirectory() as folder:
            return replicas(
                real,
                synthetic,
                out=folder,
                files=files,
                rated=rated,
                settings=settings,
                on_progress=on_progress,
            )
    out = Path(out)
    work = out / "work"
    votes = None if rated is None else ratings.read_ratings(rated)
    if not settings.allow_same and Path(real).resolve() == Path(synthetic).resolve():
        raise InputError(_SAME)
    embed: Embed | None = None
    embed_id = ""
    if not files.embeddings:
        encoder = encoders.load_encoder(settings.encoder)

        def embed(volumes: np.ndarray) -> np.ndarray:
            return embed_volumes(encoder, settings.modality.contrast(volumes, settings.grid))

        embed_id = encoders.encoder_hash(settings.encoder)
    names = settings.modality.label_names
    maps = {role: read_manifest(folder, role=role) for role, folder in files.segmentations.items()}
    labels = tuple(range(1, len(names) + 1))
    if maps:
        labels = _labels_in(maps, settings)
        names = tuple(f"label {label}" for label in labels)
    sides: dict[Role, VolumeSide] = {}
    stores: dict[Role, ImageStore] = {}
    for role, root in zip(_ROLES, (real, synthetic), strict=True):
        regex = settings.subject_regex if role is Role.REAL else None
        manifest = read_manifest(root, role=role, subject_regex=regex)
        given = files.embeddings.get(role)
        sides[role], stores[role] = build_volume_side(
            manifest,
            work / role.value,
            settings=settings.grid,
            sources=LevelSources(
                modality=settings.modality,
                embed=embed,
                embed_id=embed_id,
                given=None if given is None else read_embeddings(given),
                segmentations=maps.get(role),
                labels=labels,
            ),
            on_progress=on_progress,
            what=f"reading {role.value}",
        )
    real_store, synthetic_store = (stores[role] for role in _ROLES)
    if not settings.allow_same and set(real_store.sha256) == set(synthetic_store.sha256):
        raise InputError(_SAME)
    found_versions = outputs.versions(settings.encoder)
    how = [settings.size, settings.spacing, settings.modality, settings.alignment]
    how += [settings.candidates, found_versions, _hashes(files)]

    def journal(what: str, *others: object) -> Path:
        digest = hashlib.sha256(json.dumps([what, how, *others]).encode()).hexdigest()
        return work / f"{what}-{digest[:16]}"

    prints = [s.fingerprint for s in stores.values()]
    journals = [journal("search", prints), journal("calibration", prints[0], settings.seed)]
    matching = MatchSettings(
        candidates=settings.candidates,
        alignment=settings.alignment,
        labels=labels,
        voxel_mm=settings.spacing or 1.0,
    )
    pairs = match_volumes(
        sides[Role.SYNTHETIC],
        sides[Role.REAL],
        settings=matching,
        journal=journals[0],
        embed=embed,
        on_progress=on_progress,
        what="synthetic with real",
    )
    segment = None
    if not maps and settings.modality.label_names:
        segment = functools.partial(settings.modality.segment, settings=settings.grid)
    evidence = calibrate_levels(
        sides[Role.REAL],
        settings=matching,
        embed=embed,
        segment=segment,
        journal=journals[1],
        seed=settings.seed,
        level=settings.level,
        on_progress=on_progress,
    )
    result = _conclude(pairs, sides, stores, evidence, settings, names, votes, found_versions)
    replica_outputs.write_all(
        result,
        out,
        sides=sides,
        stores=stores,
        contrast=lambda volumes: settings.modality.contrast(volumes, settings.grid),
        alignment=settings.alignment,
    )
    keep = {path.name for path in journals} | {role.value for role in _ROLES}
    keep |= {f"{role.value}-segmentations" for role in maps}
    for path in work.iterdir():
        if path.is_dir() and path.name not in keep:
            shutil.rmtree(path)
    return result


def _labels_in(maps: Mapping[Role, Manifest], settings: ReplicaSettings) -> tuple[int, ...]:
    """Every label of the first twenty maps of each side."""
    plain = dataclasses.replace(settings.grid, content=Content.LABELS, window=None)
    seen: set[int] = set()
    for manifest in maps.values():
        for record in manifest.records[:20]:
            try:
                seen |= {int(x) for x in np.unique(plain.load(record))}
            except Unreadable:
                continue
    if not seen - {0}:
        raise InputError("the label maps hold no label but 0; check --segmentations_real")
    return tuple(sorted(seen - {0}))


def _hashes(files: LevelFiles) -> list[str]:
    """Of what the user made: embeddings by content, label maps by names, sizes and times."""
    out = []
    for role in _ROLES:
        if role in files.embeddings:
            content = Path(files.embeddings[role]).read_bytes()
            out.append(hashlib.sha256(content).hexdigest())
        if role in files.segmentations:
            manifest = read_manifest(files.segmentations[role], role=role)
            stats = [(r.image_id, r.path.stat()) for r in manifest.records]
            rows = [[name, s.st_size, s.st_mtime_ns] for name, s in stats]
            out.append(hashlib.sha256(json.dumps(rows).encode()).hexdigest())
    return out


def _conclude(
    pairs: np.ndarray,
    sides: Mapping[Role, VolumeSide],
    stores: Mapping[Role, ImageStore],
    evidence: Evidence,
    settings: ReplicaSettings,
    names: tuple[str, ...],
    votes: ratings.Ratings | None,
    found_versions: dict[str, str],
) -> ReplicaResult:
    real, synthetic = stores[Role.REAL], stores[Role.SYNTHETIC]
    groups, thresholds = sides[Role.REAL].groups, evidence.thresholds
    best = best_by_level(pairs, len(synthetic))
    matches = []
    for query, name in enumerate(synthetic.image_ids):
        levels = {}
        for level, rows in best.items():
            row = rows[query]
            reference, score = int(row["reference"]), float(row[DECIDING[level]])
            if reference < 0:
                continue
            levels[level] = LevelMatch(
                real_id=real.image_ids[reference],
                subject_id=real.subject_ids[reference],
                score=score,
                kind=kind_of(score, thresholds[level]),
                measures={m: float(row[m]) for m in MEASURES[level]},
                mirrored=bool(row["mirrored"]),
                rotation_deg=float(row["rotation_deg"]),
                shift_mm=float(row["shift_mm"]),
            )
        patients = {level: int(groups[int(best[level][query]["reference"])]) for level in levels}
        matches.append(_together(name, levels, patients))
    copies = sum(m.kind is Kind.REPLICA for m in matches)
    rate = decide.clopper_pearson(copies, len(matches), level=settings.level)
    overlap = None
    if Level.SEGMENTATION in best:
        overlap = best[Level.SEGMENTATION]["by_label"]
    counts = {
        "real": len(real),
        "synthetic": len(synthetic),
        "replicas": copies,
        "same_person": sum(m.kind is Kind.SAME_PERSON for m in matches),
        "disputed": sum(m.disputed for m in matches),
        "unreadable_real": len(real.rejected),
        "unreadable_synthetic": len(synthetic.rejected),
    }
    verdict, reasons = replica_outputs.verdict(counts, rate, thresholds)
    repeats = []
    for row in evidence.repeats:
        scores = {
            level: float(row[DECIDING[level]])
            for level in thresholds
            if np.isfinite(row[DECIDING[level]])
        }
        repeats.append(
            Repeat(
                first_id=real.image_ids[int(row["query"])],
                second_id=real.image_ids[int(row["reference"])],
                subject_id=real.subject_ids[int(row["query"])] or "",
                scores=scores,
                kinds={level: kind_of(score, thresholds[level]) for level, score in scores.items()},
            )
        )
    return ReplicaResult(
        verdict=verdict,
        reasons=reasons,
        counts=counts,
        rate=rate,
        matches=tuple(matches),
        thresholds=thresholds,
        label_names=names,
        overlap_by_label=overlap,
        ratings=None if votes is None else _rated(votes, best, synthetic, settings),
        repeats=tuple(repeats),
        exclusions=tuple(
            Exclusion(role.value, item.image_id, item.reason)
            for role, images in stores.items()
            for item in images.rejected
        ),
        notes=replica_outputs.notes(settings.alignment, tuple(best), names),
        settings={
            "size": settings.size,
            "spacing": "whole field of view" if settings.spacing is None else settings.spacing,
            "modality": settings.modality.value,
            "align": settings.alignment.value,
            "encoder": settings.encoder if settings.encoder == "default" else "custom",
            "candidates": settings.candidates,
            "subject_regex": settings.subject_regex or "",
            "level": settings.level,
            "seed": settings.seed,
        },
        versions=found_versions,
    )


def _together(
    name: str, levels: Mapping[Level, LevelMatch], patients: Mapping[Level, int]
) -> VolumeMatch:
    """What the levels say of one volume; see `VolumeMatch`."""

    def most(*kinds: Kind) -> int:
        named = [patients[level] for level, match in levels.items() if match.kind in kinds]
        return max((named.count(patient) for patient in named), default=0)

    votes, related = most(Kind.REPLICA), most(Kind.REPLICA, Kind.SAME_PERSON)
    kind = Kind.DIFFERENT
    if 2 * votes > len(levels):
        kind = Kind.REPLICA
    elif 2 * related > len(levels):
        kind = Kind.SAME_PERSON
    called = sum(match.kind is Kind.REPLICA for match in levels.values())
    disputed = 0 < called < len(levels) or votes < called
    return VolumeMatch(name, levels, kind, votes, disputed)


def _rated(
    votes: ratings.Ratings,
    best: Mapping[Level, np.ndarray],
    synthetic: ImageStore,
    settings: ReplicaSettings,
) -> RatingSummary:
    place = {name: row for row, name in enumerate(synthetic.image_ids)}
    unknown = [name for name in votes.synthetic_ids if name not in place]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {len(votes.synthetic_ids)} rated volumes are none of the readable synthetic "
            f"ones, the first of them {unknown[0]!r}; ids are the files' paths inside the folder"
        )
    rows = np.array([place[name] for name in votes.synthetic_ids])
    scores = {}
    for level, found in best.items():
        for measure, more_is_alike in MEASURES[level].items():
            values = found[measure][rows].astype(np.float64)
            if np.isfinite(values).all():
                scores[level.value, measure] = values if more_is_alike else -values
    labels = votes.majority
    same = (votes.votes == votes.votes[:, :1]).all(1)
    return RatingSummary(
        raters=len(votes.raters),
        rated=len(rows),
        replicas=int(labels.sum()),
        kappa=ratings.fleiss_kappa(votes.votes) if len(votes.raters) > 1 else None,
        agreement=float(same.mean()),
        measures=ratings.rate_measures(scores, labels, level=settings.level, seed=settings.seed),
    )
