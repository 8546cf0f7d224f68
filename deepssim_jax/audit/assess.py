"""From what an audit measured to its result: matches with labels, rates, intervals, the assessment."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from deepssim_jax.audit import calibration, outputs, sentences
from deepssim_jax.audit.audit_settings import AuditSettings
from deepssim_jax.audit.chances import calls_of, chances_of
from deepssim_jax.audit.control import Control
from deepssim_jax.audit.holdout import Make, difference
from deepssim_jax.audit.inputs import file_counts, file_notes, file_notes_to_share
from deepssim_jax.audit.result import AuditResult, Label, Match, Membership
from deepssim_jax.data import store
from deepssim_jax.data.manifest import Manifest, Role
from deepssim_jax.detection.assessment import (
    Assessment,
    Cause,
    Reason,
    Searched,
    Subjects,
    assess,
)
from deepssim_jax.detection.calls import FalseCalls, originals_of
from deepssim_jax.detection.result import Exclusion, excluded, not_compared
from deepssim_jax.scoring import decide
from deepssim_jax.scoring.match import best_matches, placement
from deepssim_jax.scoring.points import TOO_LITTLE
from deepssim_jax.scoring.retrieval import Retrieval
from deepssim_jax.scoring.side import Side


@dataclasses.dataclass(frozen=True)
class AuditSet:
    """One folder, read and embedded."""

    manifest: Manifest
    side: Side
    images: store.ImageStore
    doubles: tuple[tuple[object, ...], ...] = ()

    @property
    def originals(self) -> np.ndarray:
        """int64 [n]: the same of images that are copies of each other."""
        doubles = [(row[0], str(row[1])) for row in self.doubles]
        names = originals_of(self.images.image_ids, doubles)
        return np.unique(names, return_inverse=True)[1]

    @property
    def searched(self) -> Searched:
        """What of it took part."""
        return Searched(
            read=len(self.images),
            unreadable=len(self.images.rejected),
            not_comparable=int((~self.side.comparable).sum()),
            duplicated=len(self.doubles),
        )


@dataclasses.dataclass(frozen=True)
class Measured:
    """Everything that an audit measured.

    `pairs` are those of `called`, and `copy`, `other_image` and `confirmed` bool, which of them are copies,
    show another image of the real image's patient, or are copies by both kinds of evidence. `trial` is the
    best of each kind of evidence of each synthetic image. `evidence` is what
    the detector is worth here at the thresholds of this audit, and `usual` at those of a single image, which
    do not depend on what was found. `control` is there with held-out images, `inferred` with a model.
    """

    sets: Mapping[Role, AuditSet]
    pairs: np.ndarray
    copy: np.ndarray
    other_image: np.ndarray
    confirmed: np.ndarray
    trial: calibration.Trial
    evidence: calibration.Evidence
    usual: calibration.Evidence
    control: Control | None
    retrieval: Retrieval
    inferred: Membership | None = None

    @property
    def best(self) -> np.ndarray:
        """The pair that explains each synthetic image best."""
        return best_matches(self.pairs, len(self.sets[Role.SYNTHETIC].images))

    @property
    def hits(self) -> np.ndarray:
        """Bool [n]: the synthetic images that are copies."""
        hits = np.zeros(len(self.sets[Role.SYNTHETIC].images), bool)
        hits[self.pairs["query"][self.copy]] = True
        return hits

    @property
    def others(self) -> np.ndarray:
        """Bool [n]: the synthetic images that show another image of a patient, and are no copies."""
        others = np.zeros(len(self.sets[Role.SYNTHETIC].images), bool)
        others[self.pairs["query"][self.other_image]] = True
        return others & ~self.hits

    @property
    def sure(self) -> np.ndarray:
        """Bool [n]: the synthetic images whose best pair is a copy by both kinds of evidence."""
        sure = np.zeros(len(self.sets[Role.SYNTHETIC].images), bool)
        first = np.flatnonzero(np.diff(self.pairs["query"], prepend=-1))
        sure[self.pairs["query"][first]] = (self.copy & self.confirmed)[first]
        return sure

    @property
    def subjects(self) -> list[int]:
        """Whose each real image is; images that are duplicates of each other count as one patient."""
        return [int(number) for number in self.sets[Role.REAL].side.grouped()[1]]


def conclude(found: Measured, settings: AuditSettings) -> AuditResult:
    """Everything that the report states."""
    best, hits, subjects = found.best, found.hits, found.subjects
    compared = found.sets[Role.SYNTHETIC].side.comparable
    held_out = None if found.control is None else found.control.holdout_to_real
    significance = Significance.of(found.evidence.laws, held_out, found.trial, compared)
    nearest = _matches(found, _Rows(best, hits, found.sure, found.others), significance)
    order = np.flatnonzero(found.copy)
    flagged = found.pairs[order]
    order = order[np.lexsort((flagged["reference"], flagged["query"], -flagged["verified"]))]
    flagged = _Rows(
        found.pairs[order], found.copy[order], found.confirmed[order], np.zeros(len(order), bool)
    )
    judged = [m.label for m in nearest if m.comparable]
    classes = {label.value: judged.count(label) for label in Label}
    rates, distributions = _control_rates(found, compared, level=settings.level)
    distributions = {
        "synthetic_to_real": best["verified"][compared],
        "real_to_real": found.evidence.null_scores,
        **distributions,
    }
    manifests = {role: one.manifest for role, one in found.sets.items()}
    notes = _notes(found, settings)
    # An image exposes the patient that it copies best; a second one is as a rule the same person.
    times = np.unique([subjects[row] for row in best["reference"][hits]], return_counts=True)[1]
    owners = np.unique([subjects[row] for row in best["reference"]], return_inverse=True)[1]
    by_patient = decide.clustered_interval(
        hits[compared], owners[compared], level=settings.level, seed=settings.seed
    )
    holdout_rate, holdout_calls = rates.get("holdout_to_real"), _holdout_calls(found)
    return AuditResult(
        assessment=_assessment(found, nearest, holdout_rate, settings),
        counts=_counts(found.sets),
        exclusions=_excluded(found.sets),
        notes=notes + file_notes(manifests),
        notes_to_share=notes + file_notes_to_share(manifests),
        settings=_echoed(found, settings),
        versions=outputs.versions(settings.encoder),
        thresholds=found.evidence.thresholds,
        thresholds_to_share=found.usual.thresholds,
        classes=classes,
        holdout_rate=holdout_rate,
        holdout_calls=holdout_calls,
        synthetic_to_holdout_rate=rates.get("synthetic_to_holdout"),
        real_doubles=found.sets[Role.REAL].doubles,
        subjects_known=all(s is not None for s in found.sets[Role.REAL].images.subject_ids),
        nearest=nearest,
        pairs=_matches(found, flagged, significance),
        distributions=distributions,
        discoveries=significance.discoveries,
        exposure=decide.exposure(times, len(best)),
        copy_rate_by_patient=by_patient if hits.any() else None,
        recall_to_share=found.usual.by_change(),
        membership=found.inferred,
    )


def _assessment(
    found: Measured,
    nearest: Sequence[Match],
    holdout_rate: decide.Proportion | None,
    settings: AuditSettings,
) -> Assessment:
    sides = {role: found.sets[role].searched for role in (Role.REAL, Role.SYNTHETIC)}
    compared = found.sets[Role.SYNTHETIC].side.comparable
    subjects = found.subjects
    false_calls = found.evidence.thresholds.false_calls
    assessment = assess(
        decide.clopper_pearson(int(found.hits.sum()), int(compared.sum()), level=settings.level),
        sides=sides,
        performance=found.evidence.performance,
        calls=calls_of(
            [(m.real_id, m.confirmed, m.label) for m in nearest],
            [(row[0], str(row[1])) for row in found.sets[Role.REAL].doubles],
        ),
        chance=chances_of(false_calls, _holdout_calls(found)),
        subjects=Subjects(
            exposed=len({subjects[row] for row in found.pairs["reference"][found.copy]}),
            total=len(set(subjects)),
        ),
    )
    if found.control is None:
        return assessment
    first, last = list[Reason](), list[Reason]()
    makes = [
        Make.of(found.sets[role].manifest, found.sets[role].images, settings.slice_spec)
        for role in (Role.REAL, Role.HOLDOUT)
    ]
    if detail := difference(*makes):
        first.append(Reason(Cause.HELD_OUT_DIFFER, detail=detail))
    if not len(found.control.holdout_to_real):
        first.append(Reason(Cause.HELD_OUT_KNOWN))
    if holdout_rate is not None and holdout_rate.count:
        last.append(Reason(Cause.HELD_OUT_CALLED, (Role.HOLDOUT,), holdout_rate.count))
    return dataclasses.replace(assessment, reasons=(*first, *assessment.reasons, *last))


def _excluded(sets: Mapping[Role, AuditSet]) -> tuple[Exclusion, ...]:
    """What was not read, and what was and could not be compared."""
    out = excluded({role: one.images for role, one in sets.items()})
    for role, one in sets.items():
        out += not_compared(role, one.images, one.side.comparable, TOO_LITTLE)
    return out


def _holdout_calls(found: Measured) -> FalseCalls | None:
    """How many held-out images are called copies, by kind of evidence."""
    if found.control is None or not len(found.control.holdout_to_real):
        return None
    return found.control.holdout_to_real.false_calls(found.evidence.thresholds)


@dataclasses.dataclass(frozen=True)
class Significance:
    """P-values of synthetic images by held-out ones, [n] each, nan of what was not compared; None without
    any held-out images.
    """

    p_values: np.ndarray | None = None
    q_values: np.ndarray | None = None
    discoveries: decide.Discoveries | None = None

    @classmethod
    def of(
        cls,
        laws: calibration.Laws,
        held_out: calibration.Trial | None,
        found: calibration.Trial,
        compared: np.ndarray,
    ) -> "Significance":
        """By all the evidence that makes an image a copy, of the images `compared`, bool [n]."""
        if held_out is None or not len(held_out):
            return cls()
        null, seen = (
            -np.log(np.maximum(laws.p_values(trial), np.finfo(np.float64).tiny))
            for trial in (held_out, found[compared])
        )
        p_values, q_values = np.full((2, len(compared)), np.nan)
        p_values[compared] = decide.conformal_p_values(seen, null)
        q_values[compared] = decide.benjamini_hochberg(p_values[compared])
        discoveries = decide.discoveries(p_values[compared], holdout=len(null))
        return cls(p_values, q_values, discoveries)


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Pairs to be shown, and bool [n], which are copies, copies by both kinds of evidence, and what looks
    like other images of the patient.
    """

    pairs: np.ndarray
    copy: np.ndarray
    confirmed: np.ndarray
    other: np.ndarray


def _notes(found: Measured, settings: AuditSettings) -> tuple[str, ...]:
    return sentences.notes(
        settings.size,
        settings.slice_spec,
        found.retrieval,
        left_out=0 if found.control is None else found.control.left_out,
        attacked=found.inferred is not None and bool(found.inferred.figures),
        kinds=found.evidence.kinds.sizes,
    )


def _matches(found: Measured, rows: _Rows, significance: Significance) -> tuple[Match, ...]:
    """Pairs as the report shows them."""
    real, synthetic = (found.sets[role].images for role in (Role.REAL, Role.SYNTHETIC))
    exact, comparable = found.evidence.thresholds.exact, found.sets[Role.SYNTHETIC].side.comparable

    def known(values: np.ndarray | None, query: int) -> float | None:
        return None if values is None or not comparable[query] else float(values[query])

    def match(row: np.void, copy: bool, confirmed: bool, other: bool) -> Match:
        query, reference = int(row["query"]), int(row["reference"])
        label = Label.EXACT if float(row["verified"]) >= exact else Label.NEAR
        return Match(
            synthetic_id=synthetic.image_ids[query],
            real_id=real.image_ids[reference],
            subject_id=real.subject_ids[reference],
            embedding_score=float(row["embedding"]),
            label=label if copy else Label.UNRELATED,
            p_value=known(significance.p_values, query),
            q_value=known(significance.q_values, query),
            by_points=bool(row["by_points"]),
            partial=tuple(float(x) for x in row["partial"]),
            share=float(row["share"]),
            other_image=other,
            confirmed=copy and confirmed,
            comparable=bool(comparable[query]),
            **placement(row),
        )

    columns = (rows.copy.tolist(), rows.confirmed.tolist(), rows.other.tolist())
    return tuple(match(*row) for row in zip(rows.pairs, *columns, strict=True))


def _control_rates(
    found: Measured, compared: np.ndarray, *, level: float
) -> tuple[dict[str, decide.Proportion], dict[str, np.ndarray]]:
    """How many held-out images, and synthetic ones beside them, are called copies; and their scores."""
    rates: dict[str, decide.Proportion] = {}
    scores: dict[str, np.ndarray] = {}
    if found.control is None:
        return rates, scores
    for name in ("holdout_to_real", "synthetic_to_holdout"):
        trial = getattr(found.control, name)
        if not len(trial):  # every held-out image is of a patient of the real side
            continue
        if name == "synthetic_to_holdout":
            trial = trial[compared]
        scores[name] = trial.scores
        count = int(trial.copies(found.evidence.thresholds).sum())
        rates[name] = decide.clopper_pearson(count, len(trial), level=level)
    return rates, scores


def _counts(sets: Mapping[Role, AuditSet]) -> dict[str, int]:
    real, synthetic = sets[Role.REAL].searched, sets[Role.SYNTHETIC].searched
    return {
        "real": real.read,
        "synthetic": synthetic.read,
        "holdout": len(sets[Role.HOLDOUT].images) if Role.HOLDOUT in sets else 0,
        "unreadable_real": real.unreadable,
        "unreadable_synthetic": synthetic.unreadable,
        "real_with_doubles": real.duplicated,
        "not_comparable_real": real.not_comparable,
        "not_comparable_synthetic": synthetic.not_comparable,
        **file_counts({role: one.manifest for role, one in sets.items()}),
    }


def _echoed(found: Measured, settings: AuditSettings) -> dict[str, object]:
    """The settings as the report and `summary.json` show them."""
    return {
        "size": settings.size,
        "slice": settings.slice_spec,
        "subject_regex": settings.subject_regex or "",
        "encoder": settings.encoder if settings.encoder == "default" else "custom",
        "retrieval": found.retrieval.value,
        "level": settings.level,
        "explain": settings.explain,
        "plant": settings.plant,
        "links": settings.links.value,
        "arrays": settings.arrays.value,
        "model": "" if found.inferred is None else found.inferred.weights,
        "seed": settings.seed,
    }
