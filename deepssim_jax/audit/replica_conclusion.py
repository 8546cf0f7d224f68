"""From measured pairs of volumes to a result: kinds, reasons, repeats and what people say."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from deepssim_jax.audit import outputs, replica_outputs
from deepssim_jax.audit.doubles import Doubles
from deepssim_jax.audit.inputs import file_counts, file_notes, file_notes_to_share
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
from deepssim_jax.data.label_maps import map_of
from deepssim_jax.data.manifest import Manifest, Role
from deepssim_jax.data.nifti_reader import TWO_SPACINGS
from deepssim_jax.data.store import ImageStore
from deepssim_jax.detection.assessment import Searched, Subjects, assess
from deepssim_jax.detection.calls import Call, Calls, Chance, Chances
from deepssim_jax.detection.result import Exclusion, excluded
from deepssim_jax.scoring import decide, ratings
from deepssim_jax.scoring.evidence import false_discovery_cut
from deepssim_jax.scoring.volume_evidence import Best, best_of, can_be_copies, scaled
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
    """What measured pairs are worth, corrected for `count` queries and for several levels."""
    found = {at: best_of(pairs, groups, count, at) for at in evidence.thresholds}
    best = {at: x for at, x in found.items() if x is not None}
    p_values = [
        np.where(x.row >= 0, evidence.thresholds[at].p_values(x.evidence), 1.0)
        for at, x in best.items()
        if at in evidence.counting
    ]
    # Of several levels the one that says the most, and as many chances to say it (Bonferroni).
    together_p = np.ones(count)
    if p_values:
        together_p = np.minimum(len(p_values) * np.min(p_values, axis=0), 1.0)
    return Weighed(best, together_p, evidence.at(false_discovery_cut(together_p)))


@dataclasses.dataclass(frozen=True)
class MeasuredVolumes:
    """Everything that a search for replicas measured.

    `pairs` are those of `match_volumes`, synthetic with real; `maps` list the given label maps; `doubles`
    are real volumes that are copies of each other; `evidence` has thresholds, and scans of one patient;
    `label_names` are those of the segmentation level, `one_sided` the labels that only the maps of one side
    have; `votes` what people say, if they were asked.
    """

    pairs: np.ndarray
    sides: Mapping[Role, VolumeSide]
    stores: Mapping[Role, ImageStore]
    manifests: Mapping[Role, Manifest]
    maps: Mapping[Role, Manifest]
    doubles: Doubles
    evidence: Evidence
    label_names: tuple[str, ...]
    one_sided: Mapping[Role, tuple[int, ...]]
    votes: ratings.Ratings | None = None


def conclude(found: MeasuredVolumes, settings: ReplicaSettings) -> ReplicaResult:
    """Every statement about the measured pairs."""
    synthetic = found.stores[Role.SYNTHETIC]
    weighed = weigh(found.pairs, found.sides[Role.REAL].groups, len(synthetic), found.evidence)
    matches, calls, exposed = _matches(found, weighed)
    overlap = None
    if Level.SEGMENTATION in weighed.best:
        rows = weighed.best[Level.SEGMENTATION].row
        overlap = np.where((rows >= 0)[:, None, None], found.pairs["by_label"][rows], np.nan)
    sides = {
        role: Searched(read=len(store), unreadable=len(store.rejected))
        for role, store in found.stores.items()
    }
    copies = sum(m.kind is Kind.REPLICA for m in matches)
    votes = found.votes
    notes = replica_outputs.notes(settings.alignment, tuple(weighed.best), found.label_names)
    return ReplicaResult(
        assessment=assess(
            decide.clopper_pearson(copies, len(matches), level=settings.level),
            sides=sides,
            performance=weighed.evidence.performance,
            calls=Calls.of(calls),
            chance=Chances(Chance(weighed.evidence.chance)),
            subjects=Subjects(len(exposed), len(np.unique(found.sides[Role.REAL].groups))),
        ),
        counts={
            "real": sides[Role.REAL].read,
            "synthetic": sides[Role.SYNTHETIC].read,
            "replicas": copies,
            "same_person": sum(m.kind is Kind.SAME_PERSON for m in matches),
            "disputed": sum(m.disputed for m in matches),
            "unreadable_real": sides[Role.REAL].unreadable,
            "unreadable_synthetic": sides[Role.SYNTHETIC].unreadable,
            **file_counts(found.manifests),
        },
        exclusions=excluded(found.stores),
        without_labels=_without_labels(found),
        two_spacings=_two_spacings(found.stores),
        notes=notes
        + _doubled(found.doubles)
        + stray_maps(found.maps, {role: x.image_ids for role, x in found.stores.items()})
        + _one_sided(found.one_sided)
        + file_notes(found.manifests),
        notes_to_share=notes + file_notes_to_share(found.manifests),
        settings=_echoed(settings, given=bool(found.maps)),
        versions=outputs.versions(settings.encoder),
        matches=matches,
        thresholds=weighed.evidence.thresholds,
        label_names=found.label_names,
        overlap_by_label=overlap,
        ratings=None if votes is None else _rated(votes, found.pairs, synthetic, settings),
        repeats=_repeats(weighed.evidence, found.stores[Role.REAL]),
    )


def _matches(
    found: MeasuredVolumes, weighed: Weighed
) -> tuple[tuple[VolumeMatch, ...], list[Call], frozenset[int]]:
    """What the levels find of each synthetic volume; the replicas as calls; and whom these expose."""
    groups, counting = found.sides[Role.REAL].groups, weighed.evidence.counting
    q_values = decide.benjamini_hochberg(weighed.p_values)
    matches, calls, exposed = [], list[Call](), set[int]()
    for query, name in enumerate(found.stores[Role.SYNTHETIC].image_ids):
        levels, patients, originals = {}, {}, {}
        for at, best in weighed.best.items():
            if best.row[query] < 0:
                continue  # there is no other volume, or no label map
            row = found.pairs[best.row[query]]
            patients[at] = int(groups[int(row["reference"])])
            originals[at] = int(found.doubles.group[int(row["reference"])])
            levels[at] = _level_match(row, query, at, weighed, found.stores[Role.REAL])
        match = together(name, levels, patients, counting)
        if match.kind is Kind.REPLICA:
            exposed.add(patients[_decisive(levels, counting)[0]])
            calls.append(call_of(levels, patients, originals, counting))
        if any(at in counting for at in levels):
            p_value, q_value = float(weighed.p_values[query]), float(q_values[query])
            match = dataclasses.replace(match, p_value=p_value, q_value=q_value)
        matches.append(match)
    return tuple(matches), calls, frozenset(exposed)


def _level_match(
    row: np.void, query: int, at: Level, weighed: Weighed, real: ImageStore
) -> LevelMatch:
    """A query's best pair at a level, which is `row`."""
    reference, thresholds = int(row["reference"]), weighed.evidence.thresholds[at]
    score, can = float(weighed.best[at].evidence[query]), bool(weighed.best[at].can_be_copy[query])
    return LevelMatch(
        real_id=real.image_ids[reference],
        subject_id=real.subject_ids[reference],
        score=score,
        p_value=float(thresholds.p_values(np.array([score]))[0]),
        kind=kind_of(score, thresholds, can_be_copy=can),
        measures={m: float(row[m]) for m in MEASURES[at]},
        mirrored=bool(row["mirrored"]),
        rotation_deg=float(row["rotation_deg"]),
        shift_mm=float(row["shift_mm"]),
    )


def _repeats(evidence: Evidence, real: ImageStore) -> tuple[Repeat, ...]:
    """The scans of one patient, and what each level would call them."""
    out = []
    can = {at: can_be_copies(evidence.repeats, at) for at in evidence.thresholds}
    for number, row in enumerate(evidence.repeats):
        scores = {
            at: float(scaled(row[DECIDING[at]], at))
            for at in evidence.thresholds
            if np.isfinite(row[DECIDING[at]])
        }
        kinds = {
            at: Kind.REPLICA
            if kind_of(score, evidence.thresholds[at], can_be_copy=can[at][number]) is Kind.REPLICA
            else Kind.SAME_PERSON
            for at, score in scores.items()
        }
        out.append(
            Repeat(
                first_id=real.image_ids[int(row["query"])],
                second_id=real.image_ids[int(row["reference"])],
                subject_id=real.subject_ids[int(row["query"])] or "",
                scores=scores,
                kinds=kinds,
            )
        )
    return tuple(out)


def _doubled(doubles: Doubles) -> tuple[str, ...]:
    """A sentence on real volumes that are copies of each other."""
    count = len(np.unique(np.concatenate([doubles.pairs["first"], doubles.pairs["second"]])))
    if not count:
        return ()
    return (
        f"{count:,} real volumes are copies of other real ones (real_duplicates.csv). Patients whose volumes "
        "are copies of each other count as one.",
    )


def stray_maps(
    maps: Mapping[Role, Manifest], volumes: Mapping[Role, Sequence[str]]
) -> tuple[str, ...]:
    """Sentences on label maps that belong to none of the volumes that were read."""
    out = []
    for role, manifest in maps.items():
        names = [record.image_id for record in manifest.records]
        strays = len(names) - len(set(map_of(volumes[role], names)) - {-1})
        if strays:
            out.append(
                f"{strays:,} label maps of the {role.value} side belong to no volume that was read: their "
                "names begin with none of the volumes' names, or another map has the volume."
            )
    return tuple(out)


def _one_sided(labels: Mapping[Role, tuple[int, ...]]) -> tuple[str, ...]:
    """Sentences on labels that cannot be compared."""
    return tuple(
        f"Labels in maps of the {role.value} side only are not compared: "
        f"{', '.join(map(str, found[:8]))}{' and more' if len(found) > 8 else ''}."
        for role, found in labels.items()
    )


def _echoed(settings: ReplicaSettings, *, given: bool) -> dict[str, object]:
    """The settings as the report and `summary.json` show them; `given` are label maps of the user's."""
    made = "made here" if settings.modality.label_names else "none"
    return {
        "segmentations": "given" if given else made,
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
    }


def _two_spacings(stores: Mapping[Role, ImageStore]) -> tuple[Exclusion, ...]:
    """The volumes that were used though their headers say two spacings."""
    return tuple(
        Exclusion(role.value, images.image_ids[row], TWO_SPACINGS)
        for role, images in stores.items()
        for row in np.flatnonzero(images.two_spacings)
    )


def _without_labels(found: MeasuredVolumes) -> tuple[Exclusion, ...]:
    """Volumes that take no part in the segmentation level, where there is one."""
    reason = (
        "the segmentation made of it cannot be right (too large, small, scattered or misplaced)"
    )
    if found.maps:
        reason = (
            "no label map of its name could be read, or it is empty, or of another field of view"
        )
    out = []
    for role, side in found.sides.items():
        if side.occupancy is not None:
            empty = np.flatnonzero(~side.occupancy.any(1))
            ids = found.stores[role].image_ids
            out += [Exclusion(role.value, ids[row], reason) for row in empty]
    return tuple(out)


def together(
    name: str,
    levels: Mapping[Level, LevelMatch],
    patients: Mapping[Level, int],
    counting: Sequence[Level],
) -> VolumeMatch:
    """What the levels say of one volume; see `VolumeMatch`."""
    deciding = [at for at in levels if at in counting]
    calls = [at for at in levels if levels[at].kind is Kind.REPLICA]
    decisive = _decisive(levels, counting)
    if decisive:
        patient = patients[decisive[0]]
        votes = sum(patients[at] == patient for at in calls)
        others = [
            at for at in deciding
            if patients[at] != patient or levels[at].kind is Kind.DIFFERENT
            or (at is Level.POINTS and levels[at].kind is Kind.SAME_PERSON)
        ]  # fmt: skip
        by = ", ".join(at.value for at in calls if patients[at] == patient)
        reason = f"a replica by {by}"
        if others:
            reason += f"; not by {', '.join(at.value for at in others)}"
        return VolumeMatch(name, levels, Kind.REPLICA, votes, bool(others), reason=reason)
    same = [at for at in deciding if levels[at].kind is Kind.SAME_PERSON]
    if calls:
        reason = (
            f"a replica by {', '.join(at.value for at in calls)} alone, which does not count here: it finds "
            "too few of the copies made of these volumes, or too many unrelated volumes"
        )
    elif not deciding:
        reason = "not measured at any level that counts"
    elif same:
        reason = f"like another scan of the patient by {', '.join(at.value for at in same)}"
    else:
        reason = "no level that counts finds it more like a patient's than unrelated volumes are"
    kind = Kind.SAME_PERSON if same else Kind.DIFFERENT
    return VolumeMatch(name, levels, kind, 0, bool(calls), reason=reason)


def call_of(
    levels: Mapping[Level, LevelMatch],
    patients: Mapping[Level, int],
    originals: Mapping[Level, int],
    counting: Sequence[Level],
) -> Call:
    """What a replica is one of; confirmed if most other levels find the same patient nearest."""
    first = _decisive(levels, counting)[0]
    agree = [patients[at] == patients[first] for at in levels if at is not first]
    return Call(originals[first], 2 * sum(agree) > len(agree))


def _decisive(levels: Mapping[Level, LevelMatch], counting: Sequence[Level]) -> list[Level]:
    """The counting levels that call a volume a replica, the one that says the most first."""
    calls = [at for at, found in levels.items() if found.kind is Kind.REPLICA and at in counting]
    return sorted(calls, key=lambda at: (levels[at].p_value, at))


def check_rated(votes: ratings.Ratings, synthetic: ImageStore) -> None:
    """Raises ValueError where volumes are rated that were not read."""
    read = set(synthetic.image_ids)
    unknown = [name for name in votes.synthetic_ids if name not in read]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {len(votes.synthetic_ids)} rated volumes are none of the readable synthetic "
            f"ones, the first of them number {votes.synthetic_ids.index(unknown[0]) + 1} of the ratings; ids "
            "are the files' paths inside the folder"
        )


def _rated(
    votes: ratings.Ratings,
    pairs: np.ndarray,
    synthetic: ImageStore,
    settings: ReplicaSettings,
) -> RatingSummary:
    place = {name: row for row, name in enumerate(synthetic.image_ids)}
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
