"""The files of a search for replicas of volumes, and the sentences around its numbers.

Contract: `report.html`, `report_share.html`, `replicas.csv` (a row a synthetic volume), `overlap.csv`
(a row a volume and label), `real_duplicates.csv` (real volumes that are copies of each other) and,
last, `summary.json` with the hashes of the others. All of them are bytes that depend on nothing but
the result. Only `report_share.html` is made to be given away.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from deepssim_jax.audit import replica_report
from deepssim_jax.audit.doubles import COLUMNS, Doubles
from deepssim_jax.audit.inputs import remove_stale_reviews
from deepssim_jax.audit.replica_pictures import Drawer
from deepssim_jax.audit.replica_result import ReplicaResult
from deepssim_jax.audit.tables import Table, causes, proportion, recalls, table
from deepssim_jax.data.manifest import Role
from deepssim_jax.ops import overlap
from deepssim_jax.scoring.ratings import BalancedAccuracy, MeasureRating
from deepssim_jax.scoring.volume_measure import DECIDING, MEASURES, Alignment
from deepssim_jax.scoring.volume_search import Level
from deepssim_jax.workspace import Workspace, sha256


def notes(
    alignment: Alignment, levels: Sequence[Level], label_names: Sequence[str]
) -> tuple[str, ...]:
    """What was looked for and what was not."""
    moved = {
        Alignment.AFFINE: "Volumes were compared in any position, turned, mirrored, cropped and with their "
        "axes changed, after an affine alignment. Strong bending may hide a replica, and so may a "
        "volume of which much less than a quarter is left.",
        Alignment.NONE: "Volumes were compared in place. A replica that is turned, moved or mirrored "
        "is missed; --align=affine looks for those.",
    }
    out = [moved[alignment]]
    out.append(
        "Of every synthetic volume the closest real ones by each search were measured; no real volume "
        "was left out of a search."
    )
    if Level.FEATURE not in levels:
        out.append("There was no feature level.")
    if Level.SEGMENTATION in levels:
        out.append(f"The segmentation level compares {', '.join(label_names)}.")
    else:
        out.append(
            "There was no segmentation level: give label maps (--segmentations_real, "
            "--segmentations_synthetic) or a --modality that label maps can be made for."
        )
    return tuple(out)


def write_all(
    result: ReplicaResult,
    out: Workspace,
    *,
    drawer: Drawer,
    doubles: Doubles,
    sources: Mapping[Role, str | Path],
) -> None:
    """Writes every file into `out`.

    Args:
      result: what was found.
      out: where to.
      drawer: makes the pictures.
      doubles: real volumes that are copies of each other.
      sources: what was searched, for who looks at the pairs again.
    """
    inputs = {
        "sources": {role.value: str(path) for role, path in sources.items()},
        "settings": dict(result.settings),
    }
    out.write("inputs.json", (json.dumps(inputs, indent=2, sort_keys=True) + "\n").encode())
    out.write("replicas.csv", replica_table(result).csv())
    out.write("overlap.csv", _overlap_csv(result))
    rows: list[Sequence[object]] = [COLUMNS, *doubles.rows(drawer.stores[Role.REAL])]
    out.write("real_duplicates.csv", table(rows))
    replica_report.write_reports(result, drawer.gallery(result), out, salt=out.secret())
    names = (
        "inputs.json", "overlap.csv", "real_duplicates.csv", "replicas.csv", "report.html",
        "report_share.html",
    )  # fmt: skip
    files = {name: sha256(out.path(name)) for name in names}
    text = json.dumps(_summary(result, files), indent=2, sort_keys=True, allow_nan=False)
    out.write("summary.json", (text + "\n").encode())
    remove_stale_reviews(out, "replicas.csv")


def replica_table(result: ReplicaResult) -> Table:
    """A row a synthetic volume, with what each level found of it."""
    levels = list(result.thresholds)
    about = (
        "real_id", "subject_id", "kind", "mirrored", "rotation_deg", "shift_mm", "evidence", "p_value",
    )  # fmt: skip
    head = ["synthetic_id", "kind", "votes", "disputed", "p_value", "q_value", "reason"]
    for level in levels:
        head += [f"{level}_{name}" for name in (*about, *MEASURES[level])]
    rows = []
    for match in result.matches:
        row: list[object] = [match.synthetic_id, match.kind.value, match.votes, int(match.disputed)]
        row += [match.p_value, match.q_value, match.reason]
        for level in levels:
            found = match.levels.get(level)
            if found is None:
                row += [None] * (len(about) + len(MEASURES[level]))
                continue
            row += [found.real_id, found.subject_id, found.kind.value, int(found.mirrored)]
            shift = None if np.isnan(found.shift_mm) else found.shift_mm
            measures = [None if np.isnan(x) else x for x in found.measures.values()]
            row += [found.rotation_deg, shift, found.score, found.p_value, *measures]
        rows.append(tuple(row))
    return Table(tuple(head), tuple(rows))


def _overlap_csv(result: ReplicaResult) -> bytes:
    rows: list[list[object]] = [["synthetic_id", "real_id", "label", *overlap.MEASURES]]
    if result.overlap_by_label is not None:
        for match, by_label in zip(result.matches, result.overlap_by_label, strict=True):
            found = match.levels.get(Level.SEGMENTATION)
            for name, values in zip(result.label_names, by_label, strict=True):
                if found is not None:
                    known = [None if np.isnan(x) else float(x) for x in values]
                    rows.append([match.synthetic_id, found.real_id, name, *known])
    return table(rows)


def _rating(rating: MeasureRating) -> dict[str, object]:
    def figures(x: BalancedAccuracy) -> dict[str, object]:
        return {
            "value": round(x.value, 6),
            "low": round(x.low, 6),
            "high": round(x.high, 6),
            "sensitivity": proportion(x.sensitivity),
            "specificity": proportion(x.specificity),
        }

    return {
        "level": rating.level,
        "measure": rating.measure,
        "threshold": round(rating.threshold, 6),
        "auc": round(rating.auc, 6),
        "balanced_accuracy_in_sample": figures(rating.in_sample),
        "balanced_accuracy_cross_validated": figures(rating.cross_validated),
    }


def _summary(result: ReplicaResult, files: dict[str, str]) -> dict[str, object]:
    rated = result.ratings
    return {
        "verdict": result.verdict.value,
        "reasons": list(result.reasons),
        "causes": causes(result.assessment.reasons),
        "counts": dict(result.counts),
        "without_labels": [{"role": x.role, "image_id": x.image_id} for x in result.without_labels],
        "two_spacings": [{"role": x.role, "image_id": x.image_id} for x in result.two_spacings],
        "replica_rate": proportion(result.rate),
        "planted": recalls(result.assessment.recall_by_edit),
        "levels": {
            level.value: {
                "measure": DECIDING[level],
                "replica": round(t.replica, 6),
                "same_person": round(t.same_person, 6),
                "origin": t.origin,
                "calibrated": t.calibrated,
                "tells_second_scans": t.tells,
                "counts": t.counts,
                "found_of_each_edit": dict(t.recall_by_edit),
                "false_rate": proportion(t.false_rate),
                "planted_recall": proportion(t.recall),
                "kinds": replica_report.kinds_at(result, level),
            }
            for level, t in result.thresholds.items()
        },
        "repeats": [
            {kind.value: n for kind, n in replica_report.repeat_kinds(result, level).items()}
            | {"level": level.value}
            for level in result.thresholds
            if result.repeats
        ],
        "ratings": rated
        and {
            "raters": rated.raters,
            "rated": rated.rated,
            "replicas": rated.replicas,
            "fleiss_kappa": None if rated.kappa is None else round(rated.kappa, 6),
            "all_agree": round(rated.agreement, 6),
            "measures": [_rating(m) for m in rated.measures],
        },
        "settings": dict(result.settings),
        "versions": dict(result.versions),
        "files": files,
    }
