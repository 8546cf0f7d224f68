"""From measured pairs of volumes to a result: kinds, votes, repeats and what people say."""

from collections.abc import Mapping

import numpy as np

from deepssim_jax.audit import replica_outputs
from deepssim_jax.audit.replica_calibration import Evidence, kind_of
from deepssim_jax.audit.replica_result import (
    Kind,
    LevelMatch,
    RatingSummary,
    Repeat,
    ReplicaResult,
    VolumeMatch,
)
from deepssim_jax.audit.replica_settings import ReplicaSettings
from deepssim_jax.audit.result import Exclusion
from deepssim_jax.data.manifest import Role
from deepssim_jax.data.store import ImageStore
from deepssim_jax.scoring import decide, ratings
from deepssim_jax.scoring.volume_match import DECIDING, MEASURES, best_by_level, best_by_measure
from deepssim_jax.scoring.volume_search import Level, VolumeSide


def conclude(
    pairs: np.ndarray,
    sides: Mapping[Role, VolumeSide],
    stores: Mapping[Role, ImageStore],
    evidence: Evidence,
    settings: ReplicaSettings,
    names: tuple[str, ...],
    votes: ratings.Ratings | None,
    found_versions: dict[str, str],
) -> ReplicaResult:
    """Every statement about the measured pairs.

    Args:
      pairs: of `match_volumes`, synthetic with real.
      sides: both sides by role.
      stores: their ids, hashes and what was refused.
      evidence: thresholds, and scans of one patient.
      settings: those of the search.
      names: of the labels.
      votes: what people say, if they were asked.
      found_versions: of what can change a score.
    """
    real, synthetic = stores[Role.REAL], stores[Role.SYNTHETIC]
    groups, thresholds = sides[Role.REAL].groups, evidence.thresholds
    best = best_by_level(pairs, len(synthetic))
    matches = []
    for query, name in enumerate(synthetic.image_ids):
        levels = {}
        for level, rows in best.items():
            row = rows[query]
            reference, score = int(row["reference"]), float(row[DECIDING[level]])
            if reference < 0 or np.isnan(score):
                continue  # there is no other volume, or no label map
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
        matches.append(together(name, levels, patients))
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
                kinds={
                    level: Kind.REPLICA
                    if kind_of(score, thresholds[level]) is Kind.REPLICA
                    else Kind.SAME_PERSON
                    for level, score in scores.items()
                },
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
        ratings=None if votes is None else _rated(votes, pairs, synthetic, settings),
        repeats=tuple(repeats),
        exclusions=tuple(
            Exclusion(role.value, item.image_id, item.reason)
            for role, images in stores.items()
            for item in images.rejected
        )
        + _without_labels(sides, stores),
        notes=replica_outputs.notes(settings.alignment, tuple(best), names),
        settings={
            "size": settings.size,
            "spacing": "whole field of view" if settings.spacing is None else settings.spacing,
            "modality": settings.modality.value,
            "align": settings.alignment.value,
            "encoder": settings.encoder if settings.encoder == "default" else "custom",
            "candidates": settings.candidates,
            "subject_regex": settings.subject_regex or "",
            "links": settings.links.value,
            "arrays": settings.arrays.value,
            "level": settings.level,
            "seed": settings.seed,
        },
        versions=found_versions,
    )


def _without_labels(
    sides: Mapping[Role, VolumeSide], stores: Mapping[Role, ImageStore]
) -> tuple[Exclusion, ...]:
    """Volumes that take no part in the segmentation level, where there is one."""
    reason = "has no label map, or an empty one: not compared at the segmentation level"
    out = []
    for role, side in sides.items():
        if side.occupancy is not None:
            empty = np.flatnonzero(~side.occupancy.any(1))
            out += [Exclusion(role.value, stores[role].image_ids[row], reason) for row in empty]
    return tuple(out)


def together(
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
    elif levels and 2 * related >= len(levels):
        kind = Kind.SAME_PERSON
    called = sum(match.kind is Kind.REPLICA for match in levels.values())
    disputed = 0 < called < len(levels) or votes < called
    return VolumeMatch(name, levels, kind, votes, disputed)


def _rated(
    votes: ratings.Ratings,
    pairs: np.ndarray,
    synthetic: ImageStore,
    settings: ReplicaSettings,
) -> RatingSummary:
    place = {name: row for row, name in enumerate(synthetic.image_ids)}
    unknown = [name for name in votes.synthetic_ids if name not in place]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {len(votes.synthetic_ids)} rated volumes are none of the readable synthetic "
            f"ones, the first of them number {votes.synthetic_ids.index(unknown[0]) + 1} of the ratings; ids "
            "are the files' paths inside the folder"
        )
    rows = np.array([place[name] for name in votes.synthetic_ids])
    found = best_by_measure(pairs, len(synthetic))
    scores = {(level.value, name): values[rows] for (level, name), values in found.items()}
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
