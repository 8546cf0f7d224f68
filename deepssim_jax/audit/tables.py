"""The tables of an audit, in bytes that depend on nothing but the result.

Contract: floats have six decimals, missing values are empty, quoting follows RFC 4180. Text that
a spreadsheet would take for a formula is prefixed by an apostrophe, which `data.table_rows.plain` takes away.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from deepssim_jax.data.table_rows import guarded
from deepssim_jax.detection.calls import FalseCalls
from deepssim_jax.workspace.files import csv_bytes

if TYPE_CHECKING:
    import pandas

    from deepssim_jax.audit.result import AuditResult, Match, Membership
    from deepssim_jax.detection.assessment import EditRecall, Reason
    from deepssim_jax.scoring.decide import Proportion

COLUMNS = (
    "synthetic_id",
    "real_id",
    "subject_id",
    "embedding_score",
    "verified_score",
    "label",
    "p_value",
    "q_value",
    "flip",
    "rotation_deg",
    "shift_y",
    "shift_x",
    "scale",
    "negative",
    "matrix_yy",
    "matrix_yx",
    "matrix_xy",
    "matrix_xx",
    "local_points",
    "local_evidence",
    "found_by",
    "partial_fine",
    "partial_middle",
    "partial_coarse",
    "share",
    "relation",
    "local_exact",
    "confirmed",
)
_MATRIX = tuple(column for column in COLUMNS if column.startswith("matrix_"))
_PARTIAL = tuple(column for column in COLUMNS if column.startswith("partial_"))


def cell(value: object) -> str:
    """One value as text; numbers stay numbers, text cannot become a formula."""
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value + 0.0:.6f}".replace("-0.000000", "0.000000")
    if isinstance(value, int):
        return str(value)
    return guarded(str(value))


def table(rows: Iterable[Iterable[object]]) -> bytes:
    """A CSV file of `cell`s."""
    return csv_bytes([cell(value) for value in row] for row in rows)


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of values under names: what a CSV file holds as text and a DataFrame as values."""

    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]

    def csv(self) -> bytes:
        """A CSV file of `cell`s."""
        return table([self.columns, *self.rows])

    def data_frame(self) -> pandas.DataFrame:
        """The same rows as numbers and text; `isna` finds what is missing.

        Raises:
          ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                "to_pandas() needs pandas, which is not installed: pip install pandas"
            ) from error
        return pandas.DataFrame(list(self.rows), columns=list(self.columns))


def matches(found: Sequence[Match], *, ranked: bool) -> Table:
    """Matches in their order; `ranked` puts their rank, from 1, in front."""
    rows = (tuple(_value(match, column) for column in COLUMNS) for match in found)
    if not ranked:
        return Table(COLUMNS, tuple(rows))
    return Table(("rank", *COLUMNS), tuple((rank, *row) for rank, row in enumerate(rows, start=1)))


def _value(match: Match, column: str) -> object:
    if column in _MATRIX:
        return match.matrix[_MATRIX.index(column)]
    if column in _PARTIAL:
        return match.partial[_PARTIAL.index(column)]
    if column == "found_by":
        return "local_features" if match.by_points else "search"
    if column == "relation":
        return match.relation.value
    if column in ("negative", "confirmed"):
        return int(getattr(match, column))
    return getattr(match, column.removeprefix("local_"))


def proportion(value: Proportion | None) -> dict[str, object] | None:
    """A proportion as JSON."""
    if value is None:
        return None
    return {
        "value": round(value.value, 8),
        "low": round(value.low, 8),
        "high": round(value.high, 8),
        "level": value.level,
        "count": value.count,
        "total": value.total,
    }


def false_calls(found: FalseCalls | None) -> dict[str, int] | None:
    """Images without a copy that are called one, as JSON."""
    if found is None:
        return None
    points, partial = found.alone
    return {
        "local_features_alone": points,
        "partial_correlations_alone": partial,
        "both": found.both,
        "total": found.total,
    }


def false_calls_of(said: Mapping[str, int] | None) -> FalseCalls | None:
    """Of such JSON."""
    if said is None:
        return None
    alone = said["local_features_alone"], said["partial_correlations_alone"]
    return FalseCalls(alone, said["both"], said["total"])


def causes(reasons: Iterable[Reason]) -> list[dict[str, object]]:
    """Reasons of a verdict as JSON: each its cause, with the numbers that it has."""
    out = []
    for reason in reasons:
        values: dict[str, object] = {
            "roles": [role.value for role in reason.roles] or None,
            "count": reason.count or None,
            "originals": reason.originals or None,
            "share": proportion(reason.share),
            "expected": None if reason.expected is None else round(reason.expected, 8),
            "p_value": reason.p_value,
            "limit": reason.limit,
            "detail": reason.detail or None,
        }
        known = {name: value for name, value in values.items() if value is not None}
        out.append({"cause": reason.cause.value, **known})
    return out


def recalls(found: Iterable[EditRecall]) -> list[dict[str, object]]:
    """Recalls of positive controls as JSON, by kind of edit."""
    return [
        {"change": row.change, "local": row.local, **(proportion(row.share) or {})} for row in found
    ]


def membership(found: Membership | None) -> dict[str, object] | None:
    """Figures of membership inference as JSON; null where a rate cannot be measured."""
    if found is None:
        return None
    return {
        "weights": found.weights,
        "members": found.members,
        "held_out": found.held_out,
        "members_audited": found.coverage.value,
        "attacks": {
            attack.value: {
                "area": round(figures.area, 6),
                "area_low": round(figures.area_low, 6),
                "area_high": round(figures.area_high, 6),
                "detected": [
                    {
                        "false_positive_rate": rate,
                        "held_out_needed": round(1 / rate),
                        "share": proportion(share) if figures.measurable(rate) else None,
                    }
                    for rate, share in figures.detected
                ],
            }
            for attack, figures in found.figures.items()
        },
    }


def summary_json(result: AuditResult, files: Mapping[str, str]) -> bytes:
    """The content of `summary.json`; `files` maps the names of the other files to their SHA-256."""
    thresholds = result.thresholds
    content = {
        "verdict": result.verdict.value,
        "reasons": list(result.reasons),
        "causes": causes(result.assessment.reasons),
        "counts": dict(result.counts),
        "thresholds": {
            "near": round(thresholds.near, 6),
            "exact": round(thresholds.exact, 6),
            "local": round(thresholds.local, 6),
            "partial": [round(x, 6) for x in thresholds.partial],
            "chance": thresholds.chance,
            "expected_false_alarms": round(thresholds.chance * result.copy_rate.total, 4),
            "origin": thresholds.origin,
            "null_count": thresholds.null_count,
            "null_max": round(thresholds.null_max, 6),
            "false_rate": proportion(thresholds.false_rate),
            "false_calls": false_calls(thresholds.false_calls),
            "planted_recall": proportion(thresholds.planted_recall),
            "planted_near_recall": proportion(thresholds.planted_near_recall),
            "calibrated": thresholds.calibrated,
        },
        "classes": dict(result.classes),
        "copy_rate": proportion(result.copy_rate),
        "holdout_rate": proportion(result.holdout_rate),
        "holdout_calls": false_calls(result.holdout_calls),
        "synthetic_to_holdout_rate": proportion(result.synthetic_to_holdout_rate),
        "subjects": {
            "exposed": result.subjects_exposed,
            "total": result.subjects_total,
            "known": result.subjects_known,
        },
        "discoveries": result.discoveries and dataclasses.asdict(result.discoveries),
        "exposure": [
            {"images": images, "subjects": round(subjects, 4)}
            for images, subjects in result.exposure
        ],
        "copy_rate_by_patient": result.copy_rate_by_patient
        and dataclasses.asdict(result.copy_rate_by_patient),
        "planted": recalls(result.assessment.recall_by_edit),
        "membership": membership(result.membership),
        "settings": dict(result.settings),
        "versions": dict(result.versions),
        "files": files,
    }
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False)
    return (text + "\n").encode()
