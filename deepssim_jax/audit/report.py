"""The report of an audit, in two editions: one for the institution with pictures, one to share."""

import collections
from collections.abc import Sequence

from deepssim_jax.audit import figures, page, sentences
from deepssim_jax.audit.answer import FEW_FOUND, Answer, tone_of
from deepssim_jax.audit.console import WORDS
from deepssim_jax.audit.disclosure import Edition, is_small, is_telling, percent
from deepssim_jax.audit.result import AuditResult, GalleryItem, Relation
from deepssim_jax.detection.assessment import Verdict
from deepssim_jax.scoring.membership import RATES, MembershipFigures
from deepssim_jax.workspace import Workspace

_MOST_COPIED = 12


def write_reports(
    result: AuditResult, gallery: Sequence[GalleryItem], out: Workspace, *, salt: bytes
) -> None:
    """Writes both editions.

    Args:
      result: what was found.
      gallery: pictures of flagged pairs, for the internal edition.
      out: where to.
      salt: of `Workspace.secret`, from which the shared edition's identifiers are made.
    """
    page.write_editions(
        out,
        lambda edition: _render(
            result, gallery if edition is Edition.INTERNAL else (), edition=edition, salt=salt
        ),
    )


def _render(
    result: AuditResult, gallery: Sequence[GalleryItem], *, edition: Edition, salt: bytes
) -> str:
    share = edition is Edition.SHARED
    copied = collections.Counter(
        (m.subject_id or m.real_id) for m in result.nearest if m.label.value != "unrelated"
    )
    return page.render(
        "report",
        result=result,
        share=share,
        gallery=[] if share else [_picture(item) for item in gallery],
        more=max(0, result.copy_rate.count - len(gallery)),
        answer=answer(result, edition),
        figure=figures.histogram(result.distributions, exact=result.thresholds.exact)
        if not share and any((scores > -1).any() for scores in result.distributions.values())
        else None,
        thresholds=result.thresholds_to_share if share else result.thresholds,
        planted=result.recall_to_share if share else result.assessment.recall_by_edit,
        legend=figures.legend(result.distributions),
        people="patients" if result.subjects_known else "real images",
        copied=page.most_copied(copied, edition, salt)[:_MOST_COPIED],
        copied_more=max(0, len(copied) - _MOST_COPIED),
        notes=result.notes_to_share if share else result.notes,
        excluded=page.excluded_files(result.exclusions, edition),
        rows=_quality(result, edition),
        attacks=_attacks(result, edition),
        rates=RATES,
        edit=sentences.edit,
        inferred=sentences.membership(result.membership, edition=edition)
        if result.membership
        else (),
        proportion=edition.proportion,
        planted_share=Edition.INTERNAL.proportion,
        count=edition.count,
    )


def answer(result: AuditResult, edition: Edition) -> Answer:
    """The verdict, why, and the numbers of the first line."""
    exact, near = _class_counts(result, edition)
    tone = tone_of(result.assessment, edition)
    few = "A few images look like copies"
    return Answer(
        tone=tone,
        title=few if tone == FEW_FOUND else WORDS[Verdict(tone)].capitalize(),
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


def _quality(result: AuditResult, edition: Edition) -> list[tuple[str, str]]:
    """(what, share) of what is known of the detector.

    Copies that the program made point to nobody. Outside, other shares that decide the verdict together are
    shown together or not at all: what the verdict states of the one would disclose the other.
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
    rows = [(name, Edition.INTERNAL.proportion(p)) for name, p in planted if p is not None]
    for group in (chance, others):
        shares = [share for _, share in group]
        hidden = shared and any(is_telling(share) for share in shares)
        if shared and group is chance:
            hidden = hidden or is_small(result.copy_rate.count)
            # Of how many images it is a share would tell how many doubles there are that nobody knows of.
            hidden = hidden or is_small(found.performance.unknown_doubles)
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
    if not edition.shows(exact, near):
        return "not shown", "not shown"
    return f"{exact:,}", f"{near:,}"


def _headline(result: AuditResult, edition: Edition) -> str:
    others = sum(match.relation is Relation.OTHER_IMAGE for match in result.nearest)
    if not others or edition is Edition.SHARED:
        return _copies(result, edition)
    return (
        f"{_copies(result, edition)} {others:,} more look like another image of a patient, such as one "
        "of another day, and are no copies (column relation of nearest.csv)."
    )


def _copies(result: AuditResult, edition: Edition) -> str:
    rate, count = result.copy_rate, edition.count
    exposed = f"{count(result.subjects_exposed)} {_of_people(result, edition)}"
    total, shown = count(rate.total), edition.shows(rate.count, rate.total)
    found = tone_of(result.assessment, edition) == Verdict.COPIES_FOUND.value
    are = "are" if found else "look like"
    if not rate.count:
        said = (
            f"None of {total} synthetic images was found to be a copy of one of "
            f"{count(result.counts['real'])} real images."
        )
        if not shown:
            return said
        return (
            f"{said} With {total} images looked at, a rate of copies of up to {percent(rate.high)} cannot be "
            f"excluded ({rate.level:.0%} interval)."
        )
    if not shown:
        said = f"Of {total} synthetic images, {count(rate.count)} {are} copies of {exposed}."
        return said if edition.shows(rate.count) else f"{said} {sentences.FEW}"
    return (
        f"Of {total} synthetic images, {rate.count:,} ({percent(rate.value)}, {rate.level:.0%} "
        f"interval {percent(rate.low)} to {percent(rate.high)}) {are} copies of {exposed}."
    )


def _of_people(result: AuditResult, edition: Edition) -> str:
    """Of how many patients; outside not where images are doubles of each other: it would tell of how many."""
    people = "patients" if result.subjects_known else "real images"
    if edition is Edition.SHARED and result.counts.get("real_with_doubles", 0):
        return people
    return f"of {edition.count(result.subjects_total)} {people}"


def _picture(item: GalleryItem) -> dict[str, object]:
    match = item.match
    words = [page.transformation(match)]
    if match.negative:
        words.append("bright and dark changed places")
    if match.relation is Relation.PART:
        words.append(f"about {match.share:.0%} of the picture")
    return {
        "match": match,
        "words": ", ".join(words),
        "real": page.data_uri(item.real),
        "aligned": page.data_uri(item.aligned),
        "difference": page.data_uri(item.difference),
        "heat": [page.data_uri(image) for image in item.heat],
        "exact": item.match.label.value == "exact_duplicate",
    }
