"""Pairs whose truth is known, mixed in to measure a reader: copies made of real images, and unrelated ones.

Nothing of the program decides what they are: copies are made by `data.edits`, and unrelated pairs are real
images of two patients that are no doubles, each with the most similar of some others, because a pair
that is unlike at a glance measures nothing. The program only aligns them, as it does every pair.
"""

import contextlib
import dataclasses
import enum

import numpy as np

from deepssim_jax.data.edits import EDITS
from deepssim_jax.data.edits.types import SIDES
from deepssim_jax.data.store import InputSettings
from deepssim_jax.data.volume import Unreadable
from deepssim_jax.jobs.review_pictures import Fields, PairView, views
from deepssim_jax.jobs.review_source import ReviewSource
from deepssim_jax.ops.resample import resize
from deepssim_jax.ops.transform import FLIP_NAMES, Transform
from deepssim_jax.scoring.match import Moved
from deepssim_jax.scoring.points import LocalIndex
from deepssim_jax.scoring.verify import VerifiedPairs, verify_from, verify_pairs

_LEVELS = 65535.0
_CHOICE = 24  # others among which the most similar is chosen
_SMALL = 16  # pixels of a side at which they are compared
_EDITS = tuple(edit for edit in EDITS if edit.name != "identity")


class Known(enum.StrEnum):
    """What is known of a pair that was mixed in."""

    COPY = "known_copy"
    UNRELATED = "known_unrelated"


@dataclasses.dataclass(frozen=True)
class Control:
    """A pair of known truth: the fixed image, and the edit or the unrelated image that it is shown with."""

    known: Known
    fixed: str
    origin: str
    view: PairView


def make_controls(
    source: ReviewSource,
    *,
    count: int,
    form: InputSettings,
    declared: int,
    rng: np.random.Generator,
) -> list[Control]:
    """Makes `count` pairs of each kind.

    Args:
      source: whose fixed images are taken.
      count: of each kind.
      form: at which pairs are shown.
      declared: side in pixels at which they are aligned.
      rng: of everything drawn.

    Raises:
      ValueError: fewer than two patients' images can be read.
    """
    names = [name for name in sorted(source.fixed) if name not in source.doubles]
    names = [names[row] for row in rng.permutation(len(names))[: 2 * count + _CHOICE]]
    loaded = {}
    for name in names:
        try:
            fields = form.load(source.fixed[name])
        except (Unreadable, OSError):
            continue
        if fields["content"].min() >= SIDES[0]:  # a narrower strip cannot be edited
            loaded[name] = fields
    readable = list(loaded)
    owners = [source.fixed[name].subject_id or name for name in readable]
    if len(set(owners)) < 2:
        raise ValueError(
            f"controls=0 is all that {len(set(owners))} patients' images allow: an unrelated pair needs "
            "two of them"
        )
    small = np.stack([_small(loaded[name]) for name in readable])
    drawn = []
    # No image is taken twice before all were taken once.
    taken = [np.resize(rng.permutation(len(readable)), count) for _ in Known]
    for copied, still in zip(*taken, strict=True):
        donor = int(rng.choice(_others(owners, copied)))
        edit = _EDITS[int(rng.integers(len(_EDITS)))]
        copy = edit.make(
            _picture(loaded[readable[copied]]), donor=_picture(loaded[readable[donor]]), rng=rng
        )
        with contextlib.suppress(Unreadable):  # an edit that leaves a flat image
            moving = form.fields(copy.image.astype(np.float32))
            drawn.append((Known.COPY, int(copied), edit.name, moving))
        others = rng.permutation(_others(owners, still))[:_CHOICE]
        other = int(others[np.argmax(small[others] @ small[still])])
        drawn.append((Known.UNRELATED, int(still), readable[other], loaded[readable[other]]))
    still = [loaded[readable[row]] for _, row, _, _ in drawn]
    sides = Fields.of([moving for *_, moving in drawn]), Fields.of(still)
    shown = views(*sides, _placed(*sides, declared=declared), declared=declared)
    return [
        Control(known, readable[row], origin, view)
        for (known, row, origin, _), view in zip(drawn, shown, strict=True)
    ]


def _others(owners: list[str], row: int) -> np.ndarray:
    """Rows of other patients."""
    return np.flatnonzero([owner != owners[row] for owner in owners])


def _picture(loaded: dict[str, np.ndarray]) -> np.ndarray:
    """float64 [h, w] on [0, 1] of its own aspect."""
    canvas = loaded["canvas"].astype(np.float64) / _LEVELS
    side = len(canvas)
    y, x = (side - loaded["content"]) // 2
    return canvas[y : side - y, x : side - x]


def _small(loaded: dict[str, np.ndarray]) -> np.ndarray:
    """float64 [_SMALL ** 2] of unit norm and mean 0."""
    pixels = loaded["pixels"].astype(np.float64)
    step = len(pixels) // _SMALL
    cells = pixels[: step * _SMALL, : step * _SMALL].reshape(_SMALL, step, _SMALL, step)
    flat = cells.mean((1, 3)).ravel()
    flat = flat - flat.mean()
    return flat / max(float(np.linalg.norm(flat)), 1e-9)


def _placed(moving: Fields, still: Fields, *, declared: int) -> list[Moved]:
    """How each pair lies: by local features where they place it better than the global search does."""
    size = (declared, declared)
    images, fixed = (np.asarray(resize(x.pixels.astype(np.float32), size)) for x in (moving, still))
    searched = verify_pairs(images, fixed)
    rows = np.arange(len(images))
    found = LocalIndex.build(still.points(), rows).search(moving.points())
    hit = found.reference == rows[:, None]
    place = hit.argmax(1)
    start = Transform.of(
        found.flip[rows, place],
        found.matrix[rows, place],
        found.shift[rows, place] * declared,
    )
    by_points = verify_from(images, fixed, start, found.negative[rows, place])
    better = hit.any(1) & (by_points.score > searched.score)
    negative = found.negative[rows, place] & better
    return [
        _lying(by_points if better[row] else searched, int(row), bool(negative[row]))
        for row in rows
    ]


def _lying(found: VerifiedPairs, row: int, negative: bool) -> Moved:
    return Moved(
        flip=FLIP_NAMES[int(found.flip[row])],
        matrix=tuple(float(x) for x in found.matrix[row].ravel()),
        shift_y=float(found.shift[row, 0]),
        shift_x=float(found.shift[row, 1]),
        rotation_deg=float(found.rotation_deg[row]),
        scale=float(found.scale[row]),
        negative=negative,
    )
