"""From pairs to groups, splits and patients."""

import collections
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from deepssim_jax.audit import outputs
from deepssim_jax.audit.self_join import connected
from deepssim_jax.data.manifest import Role
from deepssim_jax.data.store import ImageStore
from deepssim_jax.detection.assessment import Searched, assess
from deepssim_jax.detection.result import excluded, not_compared
from deepssim_jax.jobs.collection import Collection
from deepssim_jax.jobs.duplicate_search import Found
from deepssim_jax.jobs.duplicates_result import (
    NOT_COMPARABLE,
    Crossing,
    DuplicateImage,
    DuplicatePair,
    DuplicatesResult,
    SubjectSuspicion,
)
from deepssim_jax.jobs.how import How
from deepssim_jax.scoring.decide import clopper_pearson

if TYPE_CHECKING:
    from deepssim_jax.jobs.duplicate_images import SearchedImages
    from deepssim_jax.jobs.duplicate_volumes import SearchedVolumes

    DuplicateSearch = SearchedImages | SearchedVolumes


def conclude(
    searched: "DuplicateSearch",
    collection: Collection,
    *,
    level: float,
    settings: dict[str, object],
) -> DuplicatesResult:
    """Everything that the report says.

    Args:
      searched: a finished search.
      collection: which files there are.
      level: coverage of the interval.
      settings: to be echoed.
    """
    found, images, listing = searched.found, searched.images, collection.manifest
    splits = [collection.split[name] for name in images.image_ids]
    places = {record.image_id: record.items for record in listing.records}
    equal = [
        _equal_pair(row, int(found.equal[row]), searched, splits, places) for row in _repeats(found)
    ]
    pairs = (*equal, *(_pair(row, How.COPY, searched, splits) for row in found.pairs))
    members = _members(groups_of(found))
    kept = kept_of(found, members)
    hows = collections.Counter(pair.how for pair in pairs)
    counts = {
        "images": len(images),
        "unreadable": len(images.rejected),
        "not_comparable": int((~searched.comparable).sum()),
        "not_images": listing.counts.not_images,
        "left_out": listing.counts.left_out,
        "groups": len(members),
        "in_groups": sum(map(len, members.values())),
        "surplus": int((~kept).sum()),
        "same_file": hows[How.SAME_FILE],
        "same_pixels": hows[How.SAME_PIXELS],
        "copies": hows[How.COPY],
        "similar": len(found.similar),
    }
    compared = Searched(len(images), counts["unreadable"], counts["not_comparable"])
    return DuplicatesResult(
        assessment=assess(
            clopper_pearson(counts["surplus"], len(images), level=level),
            sides={Role.REAL: compared},
            performance=None,
        ),
        counts=counts,
        exclusions=excluded({Role.REAL: images})
        + not_compared(Role.REAL, images, searched.comparable, NOT_COMPARABLE),
        notes=_notes(searched, collection),
        settings=settings,
        versions=outputs.versions("default"),
        groups=tuple(_listed(members, found, images, splits, kept)),
        pairs=pairs,
        similar=tuple(_pair(row, How.SIMILAR, searched, splits) for row in found.similar),
        splits=collection.splits,
        crossings=_crossings(collection, images, splits, members),
        suspicions=_suspicions(pairs),
        clean=tuple(images.image_ids[row] for row in np.flatnonzero(kept)),
        thresholds={
            **found.rule.limits,
            "similar": found.rule.evidence,
            "chance": found.rule.chance,
            "unrelated_count": float(found.rule.law.count),
        },
        compared=searched.compared,
    )


def _notes(searched: "DuplicateSearch", collection: Collection) -> tuple[str, ...]:
    """Also of splits whose names differ by the case of letters alone: one may be meant."""
    alike: dict[str, list[str]] = {}
    for name in collection.splits:
        alike.setdefault(name.casefold(), []).append(name)
    return (
        *searched.notes,
        *(f"{note}." for note in collection.manifest.said),
        *(
            f"{' and '.join(names)} are different splits, as they are written; give one name if one is meant."
            for names in alike.values()
            if len(names) > 1
        ),
    )


def _listed(
    members: dict[int, list[int]],
    found: Found,
    images: ImageStore,
    splits: list[str | None],
    kept: np.ndarray,
) -> Iterator[DuplicateImage]:
    """The images of every group; the first of each is kept."""
    for number, rows in members.items():
        weakest = _weakest_link(rows, found)
        for row in rows:
            yield DuplicateImage(
                group=number,
                image_id=images.image_ids[row],
                subject_id=images.subject_ids[row],
                split=splits[row],
                kept=bool(kept[row]),
                weakest_link=weakest,
            )


def groups_of(found: Found) -> np.ndarray:
    """int32 [n]: a number for each image and its duplicates."""
    n = len(found.equal)
    return connected(
        np.concatenate([np.arange(n), found.pairs["query"]]),
        np.concatenate([found.equal, found.pairs["reference"]]),
        n,
    )


def kept_of(found: Found, members: dict[int, list[int]]) -> np.ndarray:
    """Bool [n]: the first image of each group, and further ones that are no copy of one kept before.

    Two images can be tied by a third alone, a collage of both; then both stay and the collage goes. Among
    copies of the whole image not every pair is listed, and a copy of a copy is one: of these the first alone
    stays.
    """
    there = found.pairs[found.rule.whole(found.pairs)]
    whole = connected(
        np.concatenate([np.arange(len(found.equal)), there["query"]]),
        np.concatenate([found.equal, there["reference"]]),
        len(found.equal),
    )
    linked = {
        frozenset(pair)
        for pair in zip(found.pairs["query"].tolist(), found.pairs["reference"].tolist())
    }
    kept = np.ones(len(found.equal), bool)
    for rows in members.values():
        done, chosen = set[int](), list[int]()
        for row in rows:
            own = int(found.equal[row])
            kept[row] = whole[row] not in done and not any(
                frozenset((own, other)) in linked for other in chosen
            )
            done.add(int(whole[row]))
            chosen += [own] if kept[row] else []
    return kept


def _repeats(found: Found) -> np.ndarray:
    """Rows that equal an earlier one."""
    return np.flatnonzero(found.equal != np.arange(len(found.equal)))


def _members(group: np.ndarray) -> dict[int, list[int]]:
    """Rows of each group of two and more, numbered from 1 in the order of their first rows."""
    rows: dict[int, list[int]] = {}
    for row, number in enumerate(group.tolist()):
        rows.setdefault(number, []).append(row)
    return dict(enumerate((x for x in rows.values() if len(x) > 1), start=1))


def _weakest_link(rows: list[int], found: Found) -> float | None:
    """The evidence of the weakest pair without which the group would fall apart; None of equal images.

    That is the smallest edge of the maximum spanning tree.
    """
    own = {row: number for number, row in enumerate(sorted({int(found.equal[r]) for r in rows}))}
    weakest, joined = None, np.arange(len(own))
    for pair in found.pairs:  # most evidence first
        one, other = own.get(int(pair["query"])), own.get(int(pair["reference"]))
        if one is None or other is None or joined[one] == joined[other]:
            continue
        joined[joined == joined[other]] = joined[one]
        weakest = float(pair["evidence"])
    return weakest


def _equal_pair(
    row: int,
    other: int,
    searched: "DuplicateSearch",
    splits: list[str | None],
    places: dict[str, tuple[int, ...]],
) -> DuplicatePair:
    images = searched.images
    # Of one file with several images, two equal ones are no equal files.
    same_file = images.sha256[row] == images.sha256[other]
    same_file &= places[images.image_ids[row]] == places[images.image_ids[other]]
    how = How.SAME_FILE if same_file else How.SAME_PIXELS
    return searched.pair(**_between(other, row, how, images, splits))


def _pair(
    row: np.void, how: How, searched: "DuplicateSearch", splits: list[str | None]
) -> DuplicatePair:
    between = _between(int(row["query"]), int(row["reference"]), how, searched.images, splits)
    p_value = searched.found.rule.p_value(float(row["evidence"]))
    return searched.pair(**between, p_value=p_value, **searched.placed(row))


def _between(
    first: int, second: int, how: How, images: ImageStore, splits: list[str | None]
) -> dict[str, Any]:
    return {
        "first_id": images.image_ids[first],
        "second_id": images.image_ids[second],
        "first_subject": images.subject_ids[first],
        "second_subject": images.subject_ids[second],
        "first_split": splits[first],
        "second_split": splits[second],
        "how": how,
    }


def _crossings(
    collection: Collection,
    images: ImageStore,
    splits: list[str | None],
    members: dict[int, list[int]],
) -> tuple[Crossing, ...]:
    """What each two splits share, where they share something."""
    people: dict[str, set[str]] = {}
    for record in collection.manifest.records:
        name = collection.split[record.image_id]
        if name is not None and record.subject_id is not None:
            people.setdefault(name, set()).add(record.subject_id)
    out = []
    for first, second in itertools.combinations(collection.splits, 2):
        across = [
            [row for row in rows if splits[row] in (first, second)]
            for rows in members.values()
            if {first, second} <= {splits[row] for row in rows}
        ]
        both = sorted(people.get(first, set()) & people.get(second, set()))
        files = tuple(images.image_ids[row] for rows in across for row in rows)
        if across or both:
            out.append(Crossing(first, second, len(across), files, tuple(both)))
    return tuple(out)


def _suspicions(pairs: tuple[DuplicatePair, ...]) -> tuple[SubjectSuspicion, ...]:
    """Pairs of patient ids that share an image, those of most pairs first; each id with its own image."""
    seen: dict[tuple[str, str], list[DuplicatePair]] = {}
    for pair in pairs:
        one, other = pair.first_subject, pair.second_subject
        if one is not None and other is not None and one != other:
            seen.setdefault((min(one, other), max(one, other)), []).append(pair)
    rows = sorted(seen.items(), key=lambda item: (-len(item[1]), item[0]))
    out = []
    for names, found in rows:
        ids = found[0].first_id, found[0].second_id
        of_names = ids if found[0].first_subject == names[0] else ids[::-1]
        out.append(SubjectSuspicion(*names, *of_names, len(found)))
    return tuple(out)
