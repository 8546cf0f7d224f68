"""The two editions of the report: one for the institution with pictures, one to share.

Contract: each is one HTML file without scripts, which a content security policy keeps off any
network. Everything that comes from files is escaped. The shared edition has no image, no path, no
real identifier and no count from 1 to 4: see `audit.disclosure`.
"""

import base64
import collections
import functools
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import jinja2
import numpy as np
from PIL import Image

from deepssim_jax.audit import figures, sentences
from deepssim_jax.audit.answer import Answer
from deepssim_jax.audit.console import WORDS
from deepssim_jax.audit.disclosure import SMALL, Edition, is_small, is_telling, percent
from deepssim_jax.audit.result import AuditResult, GalleryItem, Relation
from deepssim_jax.detection.result import Exclusion
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
      salt: of `Workspace.secret`, from which the shared edition's identifiers are made.

    Returns:
      The two paths.
    """
    internal = _render(result, gallery, edition=Edition.INTERNAL, salt=salt).encode()
    shared = _render(result, (), edition=Edition.SHARED, salt=salt).encode()
    return (
        out.write("report.html", internal),
        out.write("report_share.html", shared, access=Access.SHARED),
    )


class Moved(Protocol):
    """How one image was moved to give another, as `audit.result.Match` says it."""

    @property
    def flip(self) -> str:
        """A mirroring by its name in `ops.transform`."""
        ...

    @property
    def rotation_deg(self) -> float:
        """Counter-clockwise."""
        ...

    @property
    def scale(self) -> float:
        """1 for none."""
        ...

    @property
    def shift_y(self) -> float:
        """In pixels."""
        ...

    @property
    def shift_x(self) -> float:
        """In pixels."""
        ...


def transformation(match: Moved) -> str:
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


@functools.cache
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
    result: AuditResult, gallery: Sequence[GalleryItem], *, edition: Edition, salt: bytes
) -> str:
    share = edition is Edition.SHARED
    copied = collections.Counter(
        (m.subject_id or m.real_id) for m in result.nearest if m.label.value != "unrelated"
    )
    return (
        environment()
        .get_template("report.html.jinja")
        .render(
            result=result,
            share=share,
            gallery=[] if share else [_picture(item) for item in gallery],
            more=max(0, result.copy_rate.count - len(gallery)),
            answer=answer(result, edition),
            figure=figures.histogram(result.distributions, result.thresholds)
            if not share and any((scores > -1).any() for scores in result.distributions.values())
            else None,
            thresholds=result.thresholds_to_share if share else result.thresholds,
            planted=result.recall_to_share if share else result.assessment.recall_by_edit,
            legend=figures.legend(result.distributions),
            people="patients" if result.subjects_known else "real images",
            copied=most_copied(copied, edition, salt)[:_MOST_COPIED],
            copied_more=max(0, len(copied) - _MOST_COPIED),
            excluded=excluded_files(result.exclusions, edition),
            rows=_quality(result, edition),
            attacks=_attacks(result, edition),
            rates=RATES,
            inferred=sentences.membership(result.membership, edition=edition)
            if result.membership
            else (),
            proportion=edition.proportion,
            count=edition.count,
        )
    )


def answer(result: AuditResult, edition: Edition) -> Answer:
    """The verdict, why, and the numbers of the first line."""
    exact, near = _class_counts(result, edition)
    return Answer(
        tone=result.verdict.value,
        title=WORDS[result.verdict].capitalize(),
        sentences=(
            _headline(result, edition),
            *sentences.reasons(result.assessment.reasons, edition=edition),
        ),
        facts=(
            (edition.count(result.copy_rate.total), "synthetic images tested"),
            (edition.count(result.counts["real"]), "real images compared with"),
            (exact, "exact copies"),
            (near, "near copies"),
            (edition.count(result.subjects_exposed), f"{_of_people(result, edition)} exposed"),
        ),
    )


def most_copied(
    copies: Mapping[str, int], edition: Edition, salt: bytes
) -> list[tuple[str, int | None]]:
    """Patients by how often they are copied, most first; outside their aliases without numbers.

    Numbers beside a total would give away the last of them, and a short list how many there are.
    """
    rows = sorted(copies.items(), key=lambda row: (-row[1], edition.alias(row[0], salt)))
    if edition is Edition.INTERNAL:
        return list(rows)
    if len(rows) < SMALL:
        return []
    return [(name, None) for name in sorted(edition.alias(name, salt) for name, _ in rows)]


def excluded_files(exclusions: Sequence[Exclusion], edition: Edition) -> list[tuple[str, str, str]]:
    """(side, reason, number) of files that were not tested; outside without reason and number.

    A verdict may rest on the number, and so would tell it.
    """
    if edition is Edition.SHARED:
        return [
            (role, "could not be used", "some") for role in sorted({x.role for x in exclusions})
        ]
    found = collections.Counter((item.role, item.reason) for item in exclusions)
    return sorted((role, reason, f"{count:,}") for (role, reason), count in found.items())


def _quality(result: AuditResult, edition: Edition) -> list[tuple[str, str]]:
    """(what, share) of what is known of the detector.

    Outside, shares that decide the verdict together are shown together or not at all: what the verdict
    states of the one would disclose the other.
    """
    shared = edition is Edition.SHARED
    found = result.thresholds_to_share if shared else result.thresholds
    planted = [
        ("planted exact copies found", found.planted_recall),
        ("planted locally changed copies found", found.planted_near_recall),
    ]
    chance = [
        ("real images of other patients called copies", found.false_rate),
        ("held-out images called copies of real ones", result.holdout_rate),
    ]
    others = [("synthetic images called copies of held-out ones", result.synthetic_to_holdout_rate)]
    rows = []
    for group in (planted, chance, others):
        shares = [share for _, share in group]
        hidden = shared and any(is_telling(share) for share in shares)
        if shared and group is chance:
            hidden = hidden or is_small(result.copy_rate.count)
        if not hidden:
            rows += [(name, edition.proportion(p)) for name, p in group if p is not None]
    return rows


def _attacks(result: AuditResult, edition: Edition) -> list[tuple[str, MembershipFigures]]:
    """Each attack's figures; outside not where one of its counts or sides is small."""
    found = result.membership
    if found is None:
        return []
    small = is_small(found.members) or is_small(found.held_out)
    small = small or any(
        f.measurable(rate) and is_telling(p)
        for f in found.figures.values()
        for rate, p in f.detected
    )
    if edition is Edition.SHARED and small:
        return []
    return [(sentences.ATTACKS[attack], figures) for attack, figures in found.figures.items()]


def _class_counts(result: AuditResult, edition: Edition) -> tuple[str, str]:
    """How many exact and near copies. Beside the total, one small count gives away the other."""
    exact, near = result.classes["exact_duplicate"], result.classes["near_duplicate"]
    if edition is Edition.SHARED and (is_small(exact) or is_small(near)):
        return "not shown", "not shown"
    return f"{exact:,}", f"{near:,}"


def _headline(result: AuditResult, edition: Edition) -> str:
    others = sum(match.relation is Relation.OTHER_IMAGE for match in result.nearest)
    if not others or edition is Edition.SHARED:
        return _copies(result, edition)
    return (
        f"{_copies(result, edition)} {others:,} more look like another image of a patient, such as a film "
        "of another day, and are no copies (column relation of nearest.csv)."
    )


def _copies(result: AuditResult, edition: Edition) -> str:
    rate, count = result.copy_rate, edition.count
    exposed = f"{count(result.subjects_exposed)} {_of_people(result, edition)}"
    if not rate.count:
        return (
            f"None of {rate.total:,} synthetic images was found to be a copy of one of "
            f"{result.counts['real']:,} real images. With {rate.total:,} images looked at, a rate of "
            f"copies of up to {percent(rate.high)} cannot be excluded ({rate.level:.0%} interval)."
        )
    if edition is Edition.SHARED and is_small(rate.count):
        return f"Of {rate.total:,} synthetic images, {count(rate.count)} are copies of {exposed}."
    return (
        f"Of {rate.total:,} synthetic images, {rate.count:,} ({percent(rate.value)}, {rate.level:.0%} "
        f"interval {percent(rate.low)} to {percent(rate.high)}) are copies of {exposed}."
    )


def _of_people(result: AuditResult, edition: Edition) -> str:
    """Of how many patients; outside not where images are doubles of each other: it would tell of how many."""
    people = "patients" if result.subjects_known else "real images"
    if edition is Edition.SHARED and result.counts.get("real_with_doubles", 0):
        return people
    return f"of {result.subjects_total:,} {people}"


def _picture(item: GalleryItem) -> dict[str, object]:
    match = item.match
    words = [transformation(match)]
    if match.negative:
        words.append("bright and dark changed places")
    if match.relation is Relation.PART:
        words.append(f"about {match.share:.0%} of the picture")
    return {
        "match": match,
        "words": ", ".join(words),
        "real": data_uri(item.real),
        "aligned": data_uri(item.aligned),
        "difference": data_uri(item.difference),
        "heat": [data_uri(image) for image in item.heat],
        "exact": item.match.label.value == "exact_duplicate",
    }


def data_uri(image: np.ndarray, *, lossy: bool = False) -> str:
    """A uint8 image as PNG for the `src` of a picture; as JPEG where many of them must be small."""
    buffer = io.BytesIO()
    form = "JPEG" if lossy else "PNG"
    Image.fromarray(image).save(buffer, form, optimize=True)
    return f"data:image/{form.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()
