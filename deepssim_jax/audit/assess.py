"""From what was found to what an audit says of it: labels, rates, intervals, the verdict."""

import dataclasses

import numpy as np

from deepssim_jax.audit import calibration, conclusion, outputs
from deepssim_jax.audit.audit_settings import AuditSettings
from deepssim_jax.audit.control import Control
from deepssim_jax.audit.disclosure import Edition
from deepssim_jax.audit.holdout import Make, difference
from deepssim_jax.audit.inputs import file_counts, file_notes
from deepssim_jax.audit.result import (
    AuditResult,
    Exclusion,
    Label,
    Match,
    Membership,
    Thresholds,
)
from deepssim_jax.data import store
from deepssim_jax.data.manifest import Manifest, Role
from deepssim_jax.scoring import decide
from deepssim_jax.scoring.match import best_matches, placement
from deepssim_jax.scoring.retrieval import Retrieval
from deepssim_jax.scoring.side import Side


@dataclasses.dataclass(frozen=True)
class AuditSet:
    """One folder, read and embedded."""

    manifest: Manifest
    side: Side
    images: store.ImageStore
    doubles: tuple[tuple[object, ...], ...] = ()


def _comparable(side: Side) -> np.ndarray:
    return np.ones(len(side), bool) if side.points is None else side.points.comparable


def _label(score: float, thresholds: Thresholds) -> Label:
    """That of a pair that is a copy."""
    return Label.EXACT if score >= thresholds.exact else Label.NEAR


def conclude(
    sets: dict[Role, AuditSet],
    pairs: np.ndarray,
    copy: np.ndarray,
    evidences: tuple[calibration.Evidence, calibration.Evidence],
    control: Control | None,
    settings: AuditSettings,
    retrieval: Retrieval,
    inferred: Membership | None,
) -> AuditResult:
    """Everything that the report says.

    Args:
      sets: the images by role.
      pairs: of `calibration.called`.
      copy: bool, which of them are copies.
      evidences: what the detector is worth here, at the thresholds of this audit, and at those of a single
        image, which do not depend on what was found.
      control: what was found of held-out images, where there are any.
      settings: of the audit.
      retrieval: the search that was made.
      inferred: membership, where a model was given.
    """
    real, synthetic = sets[Role.REAL].images, sets[Role.SYNTHETIC].images
    evidence, usual = evidences
    thresholds, level = evidence.thresholds, settings.level
    best = best_matches(pairs, len(synthetic))
    hits = np.zeros(len(synthetic), bool)
    hits[pairs["query"][copy]] = True
    p_values = q_values = discoveries = None
    if control is not None and len(control.holdout_to_real):
        p_values = decide.conformal_p_values(best["verified"], control.holdout_to_real.scores)
        q_values = decide.benjamini_hochberg(p_values)
        discoveries = decide.discoveries(p_values, holdout=len(control.holdout_to_real))

    def to_match(row: np.void, is_copy: bool) -> Match:
        query, reference = int(row["query"]), int(row["reference"])
        return Match(
            synthetic_id=synthetic.image_ids[query],
            real_id=real.image_ids[reference],
            subject_id=real.subject_ids[reference],
            embedding_score=float(row["embedding"]),
            label=_label(float(row["verified"]), thresholds) if is_copy else Label.UNRELATED,
            p_value=None if p_values is None else float(p_values[query]),
            q_value=None if q_values is None else float(q_values[query]),
            by_points=bool(row["by_points"]),
            partial=tuple(float(x) for x in row["partial"]),
            share=float(row["share"]),
            **placement(row),
        )

    nearest = tuple(to_match(row, bool(hit)) for row, hit in zip(best, hits, strict=True))
    flagged = pairs[copy]
    flagged = flagged[np.lexsort((flagged["reference"], flagged["query"], -flagged["verified"]))]
    copies = int(hits.sum())
    classes = {label.value: sum(m.label is label for m in nearest) for label in Label}
    # Images that are doubles of each other count as one patient.
    names = [int(number) for number in sets[Role.REAL].side.grouped()[1]]
    exposed = {names[row] for row in flagged["reference"]}
    # An image exposes the patient that it copies best; a second one is as a rule the same person.
    first = [names[row] for row in best["reference"][hits]]
    times = np.unique(first, return_counts=True)[1]
    owners = np.unique([names[row] for row in best["reference"]], return_inverse=True)[1]
    compared = _comparable(sets[Role.SYNTHETIC].side)
    by_patient = decide.clustered_interval(
        hits[compared], owners[compared], level=level, seed=settings.seed
    )
    distributions = {
        "synthetic_to_real": best["verified"][compared],
        "real_to_real": evidence.null_scores,
    }
    rates = {}
    for name in ("holdout_to_real", "synthetic_to_holdout") if control is not None else ():
        trial = getattr(control, name)
        if not len(trial):  # every held-out image is of a patient of the real side
            continue
        if name == "synthetic_to_holdout":
            trial = trial[compared]
        distributions[name] = trial.scores
        count = int(trial.copies(thresholds).sum())
        rates[name] = decide.clopper_pearson(count, len(trial), level=level)
    holdout_rate = rates.get("holdout_to_real")
    manifests = {role: one.manifest for role, one in sets.items()}
    exclusions = tuple(
        Exclusion(role.value, item.image_id, item.reason)
        for role, one in sets.items()
        for item in one.images.rejected
    )
    counts = {
        "real": len(real),
        "synthetic": len(synthetic),
        "holdout": len(sets[Role.HOLDOUT].images) if Role.HOLDOUT in sets else 0,
        "unreadable_real": len(real.rejected),
        "unreadable_synthetic": len(synthetic.rejected),
        "real_with_doubles": len(sets[Role.REAL].doubles),
        "not_comparable_real": int((~_comparable(sets[Role.REAL].side)).sum()),
        "not_comparable_synthetic": int((~compared).sum()),
        **file_counts(manifests),
    }
    copy_rate = decide.clopper_pearson(copies, int(compared.sum()), level=level)
    numbers = (counts, classes, copy_rate, holdout_rate, thresholds)
    verdict, reasons = conclusion.verdict(*numbers)
    _, reasons_to_share = conclusion.verdict(*numbers, edition=Edition.SHARED)
    if control is not None:
        makes = [
            Make.of(sets[role].manifest, sets[role].images, settings.slice_spec)
            for role in (Role.REAL, Role.HOLDOUT)
        ]
        if other := difference(*makes):
            reasons, reasons_to_share = (other, *reasons), (other, *reasons_to_share)
    return AuditResult(
        verdict=verdict,
        reasons=reasons,
        reasons_to_share=reasons_to_share,
        counts=counts,
        thresholds=thresholds,
        thresholds_to_share=usual.thresholds,
        classes=classes,
        copy_rate=copy_rate,
        holdout_rate=holdout_rate,
        synthetic_to_holdout_rate=rates.get("synthetic_to_holdout"),
        subjects_exposed=len(exposed),
        subjects_total=len(set(names)),
        real_doubles=sets[Role.REAL].doubles,
        subjects_known=all(s is not None for s in real.subject_ids),
        nearest=nearest,
        pairs=tuple(to_match(row, True) for row in flagged),
        distributions=distributions,
        exclusions=exclusions,
        notes=conclusion.notes(
            settings.size,
            settings.slice_spec,
            retrieval,
            left_out=0 if control is None else control.left_out,
            attacked=inferred is not None and bool(inferred.figures),
        )
        + file_notes(manifests),
        settings={
            "size": settings.size,
            "slice": settings.slice_spec,
            "subject_regex": settings.subject_regex or "",
            "encoder": settings.encoder if settings.encoder == "default" else "custom",
            "retrieval": retrieval.value,
            "level": settings.level,
            "explain": settings.explain,
            "plant": settings.plant,
            "links": settings.links.value,
            "arrays": settings.arrays.value,
            "model": "" if inferred is None else inferred.weights,
            "seed": settings.seed,
        },
        versions=outputs.versions(settings.encoder),
        discoveries=discoveries,
        exposure=decide.exposure(times, len(synthetic)),
        copy_rate_by_patient=by_patient if copies else None,
        planted=evidence.by_change(),
        planted_to_share=usual.by_change(),
        membership=inferred,
    )
