"""The two editions of the report: one for the house with pictures, one to give away.

Contract: each is one HTML file without scripts, which a content security policy keeps off any
network. Everything that comes from files is escaped. The shared edition has no image, no path, no
real identifier (they are replaced by salted hashes) and no count from 1 to 4.
"""

import base64
import collections
import hashlib
import hmac
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from deepssim_jax.audit import conclusion, figures
from deepssim_jax.audit.conclusion import SMALL, suppressed
from deepssim_jax.audit.console import WORDS
from deepssim_jax.audit.result import AuditResult, GalleryItem, Match
from deepssim_jax.scoring.decide import Proportion
from deepssim_jax.scoring.membership import RATES, MembershipFigures
from deepssim_jax.workspace import Access, Workspace

_FLIPS = {
    "horizontal": "mirrored left-right",
    "vertical": "mirrored top-bottom",
    "both": "turned by 180°",
}
_MOST_COPIED = 12


def write_reports(
    result: AuditResult, gallery: Sequence[GalleryItem], out: Workspace, *, salt: bytes
) -> tuple[Path, Path]:
    """Writes `report.html` and `report_share.html`.

    Args:
      result: what was found.
      gallery: pictures of flagged pairs, for the internal edition.
      out: where to.
      salt: secret of this house, from which the shared edition's identifiers are made.

    Returns:
      The two paths.
    """
    internal = _render(result, gallery, share=False, salt=salt).encode()
    shared = _render(result, (), share=True, salt=salt).encode()
    return (
        out.write("report.html", internal),
        out.write("report_share.html", shared, access=Access.SHARED),
    )


def transformation(match: Match) -> str:
    """What was done to the real image, in words."""
    parts = []
    if match.flip in _FLIPS:
        parts.append(_FLIPS[match.flip])
    if abs(match.rotation_deg) >= 0.5:
        side = "left" if match.rotation_deg > 0 else "right"
        parts.append(f"turned {abs(match.rotation_deg):.1f}° to the {side}")
    if abs(match.scale - 1) >= 0.01:
        parts.append(f"{'enlarged' if match.scale > 1 else 'reduced'} to {match.scale:.0%}")
    moved = float(np.hypot(match.shift_y, match.shift_x))
    if moved >= 0.5:
        parts.append(f"moved {moved:.1f} px")
    return ", ".join(parts) or "in place"


def environment() -> jinja2.Environment:
    """Where templates come from: everything that they print is escaped."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("deepssim_jax.audit"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _render(
    result: AuditResult, gallery: Sequence[GalleryItem], *, share: bool, salt: bytes
) -> str:
    def alias(identifier: str) -> str:
        if not share:
            return identifier
        return hmac.new(salt, identifier.encode(), hashlib.sha256).hexdigest()[:10]

    copied = collections.Counter(
        (m.subject_id or m.real_id) for m in result.nearest if m.label.value != "unrelated"
    )
    rows = sorted(((alias(name), times) for name, times in copied.items()), key=_most_first)
    if share and len(rows) < SMALL:  # the length of the list would say how many
        rows = []
    excluded = collections.Counter(
        (item.role, item.reason if not share else "could not be read") for item in result.exclusions
    )
    return (
        environment()
        .get_template("report.html.jinja")
        .render(
            result=result,
            share=share,
            gallery=[] if share else [_picture(item) for item in gallery],
            more=max(0, result.copy_rate.count - len(gallery)),
            verdict=WORDS[result.verdict].capitalize(),
            figure=figures.histogram(result.distributions, result.thresholds)
            if not share
            else None,
            legend=figures.legend(result.distributions),
            headline=_headline(result, share=share),
            reasons=result.reasons_to_share if share else result.reasons,
            classes=_class_counts(result, share=share),
            people="patients" if result.subjects_known else "real images",
            copied=rows[:_MOST_COPIED],
            copied_more=max(0, len(rows) - _MOST_COPIED),
            excluded=sorted((role, reason, count) for (role, reason), count in excluded.items()),
            attacks=_attacks(result),
            rates=RATES,
            inferred=conclusion.membership(result.membership, count=_count_text(share))
            if result.membership
            else (),
            proportion=proportion_text(share),
            count=_count_text(share),
        )
    )


def _attacks(result: AuditResult) -> list[tuple[str, MembershipFigures]]:
    figures_of = result.membership.figures if result.membership else {}
    return [(conclusion.ATTACKS[attack], found) for attack, found in figures_of.items()]


def _most_first(row: tuple[str, int]) -> tuple[int, str]:
    return -row[1], row[0]


def _count_text(share: bool) -> Callable[[int], str]:
    return suppressed if share else "{:,}".format


def _class_counts(result: AuditResult, *, share: bool) -> tuple[str, str]:
    """How many exact and near copies. Beside the total, one small count gives away the other."""
    exact, near = result.classes["exact_duplicate"], result.classes["near_duplicate"]
    if share and (0 < exact < SMALL or 0 < near < SMALL):
        return "not shown", "not shown"
    return f"{exact:,}", f"{near:,}"


def proportion_text(share: bool) -> Callable[[Proportion], str]:
    """How proportions are written; `share` suppresses those that could point to a person."""

    def text(p: Proportion) -> str:
        bounds = f"{p.level:.0%} interval {_percent(p.low)} to {_percent(p.high)}"
        if share and (0 < p.count < SMALL or 0 < p.total - p.count < SMALL):
            return f"suppressed: a count below {SMALL} could point to a person"
        return f"{p.count:,} of {p.total:,} ({_percent(p.value)}, {bounds})"

    return text


def _percent(value: float) -> str:
    return f"{value:.0%}" if value in (0.0, 1.0) else f"{value:.2%}"


def _headline(result: AuditResult, *, share: bool) -> str:
    rate, count = result.copy_rate, _count_text(share)
    people = "patients" if result.subjects_known else "real images"
    if not rate.count:
        return (
            f"None of {rate.total:,} synthetic images was found to be a copy of one of "
            f"{result.counts['real']:,} real images. With {rate.total:,} images looked at, a rate of "
            f"copies of up to {_percent(rate.high)} cannot be excluded ({rate.level:.0%} interval)."
        )
    if share and rate.count < SMALL:
        return (
            f"Of {rate.total:,} synthetic images, fewer than {SMALL} are copies of fewer than {SMALL} of "
            f"{result.subjects_total:,} {people}."
        )
    return (
        f"Of {rate.total:,} synthetic images, {rate.count:,} ({_percent(rate.value)}, {rate.level:.0%} "
        f"interval {_percent(rate.low)} to {_percent(rate.high)}) are copies of "
        f"{count(result.subjects_exposed)} of {result.subjects_total:,} {people}."
    )


def _picture(item: GalleryItem) -> dict[str, object]:
    return {
        "match": item.match,
        "words": transformation(item.match),
        "real": data_uri(item.real),
        "aligned": data_uri(item.aligned),
        "difference": data_uri(item.difference),
        "heat": [data_uri(image) for image in item.heat],
        "exact": item.match.label.value == "exact_duplicate",
    }


def data_uri(image: np.ndarray) -> str:
    """A uint8 image as PNG for the `src` of a picture."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
