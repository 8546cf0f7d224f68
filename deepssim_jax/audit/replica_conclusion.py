"""From measured pairs of volumes to a result: kinds, reasons, repeats and what people say."""

import dataclasses
from collections.abc import Mapping, Sequence

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
from deepssim_jax.data.nifti_reader import TWO_SPACINGS
from deepssim_jax.data.store import ImageStore
from deepssim_jax.scoring import decide, ratings
from deepssim_jax.scoring.evidence import false_discovery_cut
from deepssim_jax.scoring.volume_evidence import Best, best_of, scaled
from deepssim_jax.scoring.volume_match import best_by_measure
from deepssim_jax.scoring.volume_measure import DECIDING, MEASURES
from deepssim_jax.scoring.volume_search import Level, VolumeSide


@dataclasses.dataclass(frozen=True)
class Weighed:
    """Each query's best pair by level; `p_values` [n] of the counting levels together; `evidence` with
    thresholds for as many queries.
    """

    best: dict[Level, Best]
    p_values: np.ndarray
    evidence: Evidence


def weigh(pairs: np.ndarray, groups: np.ndarray, count: int, evidence: Evidence) -> Weighed:
    """What measured pairs are worth, with room for `count` queries and for several levels."""
    found = {at: best_of(pairs, groups, count, at) for at in evidence.thresholds}
    best = {at: x for at, x in found.items() if x is not None}
    p_values = [
        np.where(x.row >= 0, evidence.thresholds[at].law.p_values(x.evidence), 1.0)
        for at, x in best.items()
        if at in evidence.counting
    ]
    # Of several levels the one that says the most, and as many chances to say it (Bonferroni).
    together_p = np.ones(count)
    if p_values:
        together_p = np.minimum(len(p_values) * np.min(p_values, axis=0), 1.0)
    return Weighed(best, together_p, evidence.at(false_discovery_cut(together_p)))


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
    groups = sides[Role.REAL].groups
    weighed = weigh(pairs, groups, len(synthetic), evidence)
    best, evidence = weighed.best, weighed.evidence
    q_values = decide.benjamini_hochberg(weighed.p_values)
    thresholds = evidence.thresholds
    matches = []
    for query, name in enumerate(synthetic.image_ids):
        levels, patients = {}, {}
        for at, found in best.items():
            if found.row[query] < 0:
                continue  # there is no other volume, or no label map
            row, score = pairs[found.row[query]], float(found.evidence[query])
            reference = int(row["reference"])
            patients[at] = int(groups[reference])
            levels[at] = LevelMatch(
                real_id=real.image_ids[reference],
                subject_id=real.subject_ids[reference],
                score=score,
                p_value=float(thresholds[at].law.p_values(np.array([score]))[0]),
                kind=kind_of(score, thresholds[at]),
                measures={m: float(row[m]) for m in MEASURES[at]},
                mirrored=bool(row["mirrored"]),
                rotation_deg=float(row["rotation_deg"]),
                shift_mm=float(row["shift_mm"]),
            )
        found_kind = together(name, levels, patients, evidence.counting)
        matches.append(
            dataclasses.replace(
                found_kind, p_value=float(weighed.p_values[query]), q_value=float(q_values[query])
            )
        )
    copies = sum(m.kind is Kind.REPLICA for m in matches)
    rate = decide.clopper_pearson(copies, len(matches), level=settings.level)
    overlap = None
    if Level.SEGMENTATION in best:
        rows = best[Level.SEGMENTATION].row
        overlap = np.where((rows >= 0)[:, None, None], pairs["by_label"][rows], np.nan)
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
            at: float(scaled(row[DECIDING[at]], at))
            for at in thresholds
            if np.isfinite(row[DECIDING[at]])
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
        two_spacings=tuple(
            Exclusion(role.value, images.image_ids[row], TWO_SPACINGS)
            for role, images in stores.items()
            for row in np.flatnonzero(images.two_spacings)
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
    reason = (
        "has no label map, an empty one, or one that cannot be what it says (too large, too small, in "
        "pieces or in the wrong place): not compared at the segmentation level"
    )
    out = []
    for role, side in sides.items():
        if side.occupancy is not None:
            empty = np.flatnonzero(~side.occupancy.any(1))
            out += [Exclusion(role.value, stores[role].image_ids[row], reason) for row in empty]
    return tuple(out)


def together(
    name: str,
    levels: Mapping[Level, LevelMatch],
    patients: Mapping[Level, int],
    counting: Sequence[Level],
) -> VolumeMatch:
    """What the levels say of one volume; see `VolumeMatch`."""
    having_a_say = [at for at in levels if at in counting]
    calls = [at for at in levels if levels[at].kind is Kind.REPLICA]
    decisive = sorted((levels[at].p_value, at) for at in having_a_say if at in calls)
    if decisive:
        patient = patients[decisive[0][1]]
        votes = sum(patients[at] == patient for at in calls)
        others = [
            at for at in having_a_say
            if levels[at].kind is Kind.DIFFERENT or patients[at] != patient
        ]  # fmt: skip
        by = ", ".join(at.value for at in calls if patients[at] == patient)
        reason = f"a replica by {by}"
        if others:
            reason += f"; not by {', '.join(at.value for at in others)}"
        return VolumeMatch(name, levels, Kind.REPLICA, votes, bool(others), reason=reason)
    same = [at for at in having_a_say if levels[at].kind is Kind.SAME_PERSON]
    if calls:
        reason = (
            f"a replica by {', '.join(at.value for at in calls)} alone, which finds too few of the copies "
            "made of these volumes to count"
        )
    elif same:
        reason = f"like another scan of the patient by {', '.join(at.value for at in same)}"
    else:
        reason = "no level that counts finds it more like a patient's than unrelated volumes are"
    kind = Kind.SAME_PERSON if same else Kind.DIFFERENT
    return VolumeMatch(name, levels, kind, 0, bool(calls), reason=reason)


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
