"""Volumes of four kinds and copies of them, changed as pipelines and generators change them.

By SciPy and NumPy alone: no code of the package takes part but the reader's axes. Heads are real
(Lesjak et al.) with smooth deformations of them as further people, which are harder than people;
crops are small boxes of those (as hippocampus sets are); hearts (thick slices, saved with an identity
for their affine beside a true pixdim) and abdomens (CT) are made. Unrelated volumes come of people of
whom the real side holds nothing, further scans of people whom it holds.
"""

import dataclasses
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from deepssim_jax.data.volume import oriented

EDITS = (
    "noise", "smooth", "turned 8", "turned 20", "cropped", "cropped without affine",
    "permuted without affine", "inverted", "gamma 2.2", "gamma 0.45", "slabs of 6 mm", "half another's",
    "stripped", "mirrored", "zoomed", "bias field", "64 cubed without affine",
    "a quarter in another's",
)  # fmt: skip
KINDS = ("heads", "crops", "hearts", "abdomens")
# Further people are heads bent by so many mm, which are harder than people: they share one anatomy.
BEND_MM = 7.0
_UNRELATED = ("patient26", "patient04 study1")


@dataclasses.dataclass(frozen=True)
class Volume:
    """`values` [d, h, w] and `spacing` [3] in mm, None where the file would not say; whose they are."""

    values: np.ndarray
    spacing: np.ndarray | None
    person: str = ""


@dataclasses.dataclass(frozen=True)
class People:
    """`real` volumes, a person each; `unrelated` ones of others; `rescans` of people on the real side."""

    real: list[Volume]
    unrelated: list[Volume]
    rescans: list[Volume]


def people(kind: str, count: int, unrelated: int, data: Path, rng: np.random.Generator) -> People:
    """As many of each as are asked for; of rescans those that there are."""
    if kind in ("hearts", "abdomens"):
        make = _heart if kind == "hearts" else _abdomen
        seeds = rng.integers(0, 2**31, count + unrelated)
        first = [_named(make(np.random.default_rng(s)), i) for i, s in enumerate(seeds)]
        second = []
        if kind == "hearts":
            again = [_heart(np.random.default_rng(s), phase=0.75) for s in seeds[: unrelated // 2]]
            second = [_named(v, i) for i, v in enumerate(again)]
        return People(first[:count], first[count:], second)
    heads = [_head(path) for path in sorted((data / "brain3d").glob("[mr]*/*.nii.gz"))]
    held = [v for v in heads if v.person in _UNRELATED]
    again = [v for v in heads if v.person.endswith("study2")]
    known = [v for v in heads if not any(v is w for w in (*held, *again))]
    if kind == "heads":
        real = known + [
            _deformed(known[i % len(known)], BEND_MM, rng) for i in range(count - len(known))
        ]
        others = held + [
            _deformed(held[i % len(held)], BEND_MM, rng) for i in range(unrelated - len(held))
        ]
        whose = [v.person.split(" ")[0] for v in known] + [f"made{i}" for i in range(count)]
        real = [dataclasses.replace(v, person=whose[i]) for i, v in enumerate(real[:count])]
        return People(real, others[:unrelated], again)
    made = [
        [_crop_of(_deformed(base[i % len(base)], BEND_MM, rng), rng) for i in range(number)]
        for base, number in ((known, count), (held, unrelated))
    ]
    return People([_named(v, i) for i, v in enumerate(made[0])], made[1], [])


def coarser(everyone: People, mm: float) -> People:
    """Everyone's volumes at a spacing of at least so many mm along every axis."""

    def resampled(v: Volume) -> Volume:
        factors = np.minimum(np.asarray(v.spacing) / mm, 1.0)
        smooth = ndimage.gaussian_filter(v.values, 0.4 * (1 / factors - 1))
        small = ndimage.zoom(smooth, factors, order=1)
        spacing = np.asarray(v.spacing) * v.values.shape / np.array(small.shape)
        return Volume(small, spacing, v.person)

    return People(
        *(
            [resampled(v) for v in part]
            for part in (everyone.real, everyone.unrelated, everyone.rescans)
        )
    )


def copies(
    everyone: People, each: int, rng: np.random.Generator
) -> tuple[list[Volume], list[tuple[int, ...]]]:
    """So many copies under every edit, in its order, and the rows of the real volumes that each shows.

    Half another's shows two people of the real side, a quarter only one: the rest is an unrelated person's.
    """
    real = everyone.real
    asked: list[Volume] = []
    truth: list[tuple[int, ...]] = []
    for edit in EDITS:
        for row in map(int, rng.choice(len(real), each, replace=False)):
            other = (row + 7) % len(real)
            stranger = "quarter" in edit
            donor = everyone.unrelated[row % len(everyone.unrelated)] if stranger else real[other]
            asked.append(edited(edit, real[row], donor, rng))
            truth.append((row, other) if "half" in edit else (row,))
    return asked, truth


def _named(volume: Volume, number: int) -> Volume:
    return dataclasses.replace(volume, person=f"made{number}")


def _head(path: Path) -> Volume:
    image = nibabel.load(path)
    values, spacing = oriented(np.asarray(image.dataobj, np.float32), image.affine)
    factors = np.minimum(1.0, spacing / 2.0)
    small = ndimage.zoom(values, factors, order=1)
    kept = spacing * np.array(values.shape) / np.array(small.shape)
    patient, *study = path.name.split("_")
    return Volume(small, kept, " ".join([patient, *(s for s in study if s.startswith("study"))]))


def write(volume: Volume, path: Path, *, kind: str) -> None:
    """A NIfTI file. Without a spacing it says 1 mm, as software that forgets the affine does; hearts
    say theirs in pixdim alone.
    """
    spacing = np.ones(3) if volume.spacing is None else np.asarray(volume.spacing)
    # The package's axes, as a file stores them: from left to right, from back to front, upwards.
    values = np.transpose(volume.values, (2, 1, 0))[::-1, ::-1]
    image = nibabel.Nifti1Image(values.astype(np.float32), np.diag([*spacing[::-1], 1.0]))
    if kind == "hearts":
        image.set_sform(np.eye(4), code=2)
        image.set_qform(None, code=0)
        image.header["pixdim"][1:4] = spacing[::-1]
    nibabel.save(image, path)


def _deformed(volume: Volume, mm: float, rng: np.random.Generator) -> Volume:
    values, spacing = volume.values, np.asarray(volume.spacing)
    shape, scale = values.shape, 1 + rng.normal(0, 0.06, 3)
    grids = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    places = []
    for axis, (grid, n) in enumerate(zip(grids, shape, strict=True)):
        knots = rng.normal(0, mm, (6, 6, 6))
        bend = ndimage.zoom(knots, [m / 6 for m in shape], order=3) / spacing[axis]
        places.append((grid - (n - 1) / 2) * scale[axis] + (n - 1) / 2 + bend)
    return Volume(ndimage.map_coordinates(values, places, order=1, mode="nearest"), spacing)


def _crop_of(volume: Volume, rng: np.random.Generator) -> Volume:
    values, spacing = volume.values, np.asarray(volume.spacing)
    size = np.round(rng.uniform(36, 52, 3) / spacing).astype(int)
    share = 0.5 + rng.normal(0, 0.03, 3) + (-0.02, 0.05, rng.choice([-0.16, 0.16]))
    first = (np.array(values.shape) * share - size / 2).astype(int).clip(0)
    box = tuple(slice(a, a + n) for a, n in zip(first, size, strict=True))
    return Volume(ndimage.zoom(values[box], spacing / 1.2, order=1), np.full(3, 1.2))


def _bent(
    shape: tuple[int, ...], spacing: np.ndarray, mm: float, rng: np.random.Generator
) -> list[np.ndarray]:
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)]
    grids = np.meshgrid(*axes, indexing="ij")
    knots = [rng.normal(0, mm, (5, 5, 5)) for _ in range(3)]
    return [g + ndimage.zoom(k, [n / 5 for n in shape], order=3) for g, k in zip(grids, knots)]


def _blobs(
    image: np.ndarray, grids: list[np.ndarray], inside: np.ndarray, values: np.ndarray,
    size: tuple[float, float], rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    extent = np.array([np.ptp(g) for g in grids])
    for value in values:
        place, radii = rng.uniform(-0.35, 0.35, 3) * extent, rng.uniform(*size, 3)
        away = sum(((g - p) / r) ** 2 for g, p, r in zip(grids, place, radii, strict=True))
        image = np.where((away < 1) & inside, value, image)
    return image


def _heart(rng: np.random.Generator, *, phase: float = 1.0) -> Volume:
    """`phase` is the width of the chamber in the heart's cycle; noise differs between two of them."""
    shape, spacing = (10, 160, 160), np.array([10.0, 1.5, 1.5])
    z, y, x = _bent(shape, spacing, 5, rng)
    chest = (y / 76) ** 2 + (x / 92) ** 2 < 1 + rng.normal(0, 0.05)
    texture = ndimage.gaussian_filter(rng.normal(size=shape), (0.5, 3, 3))
    image = np.where(chest, 0.25 + 0.06 * texture / texture.std(), 0.03)
    for side in (-1, 1):
        lung = ((y - rng.normal(5, 5)) / 50) ** 2 + ((x - side * rng.normal(62, 5)) / 32) ** 2 < 1
        image = np.where(lung & chest, 0.08, image)
    middle, wall = rng.normal((-10, 10), 6), rng.normal(10, 1.5)
    taper = np.clip(1.1 - np.abs(z - rng.normal(0, 5)) / 75, 0, 1)
    away, radius = (
        np.hypot(y - middle[0], (x - middle[1]) * rng.uniform(0.7, 1.2)),
        rng.normal(30, 3) * phase,
    )
    image = np.where((away < radius * taper + wall) & chest, 0.4, image)
    image = np.where((away < radius * taper) & chest, 0.85, image)
    image = _blobs(image, [z, y, x], chest, rng.uniform(0.1, 0.9, 16), (5, 18), rng)
    noise = np.random.default_rng([int(rng.integers(2**31)), round(100 * phase)])
    image = ndimage.gaussian_filter(image, (0.3, 0.7, 0.7)) + noise.normal(0, 0.02, shape)
    return Volume(image.astype(np.float32), spacing)


def _abdomen(rng: np.random.Generator) -> Volume:
    shape, spacing = (48, 110, 140), np.array([5.0, 2.8, 2.8])
    grids = _bent(shape, spacing, 7, rng)
    _, y, x = grids
    body = (y / 117) ** 2 + (x / 164) ** 2
    image = np.where(body < 1, -90.0, -1000.0)
    image = np.where(body < 0.75, 40.0, image)
    organs = (
        ((30, -5, -60), (60, 55, 60), 100), ((30, 25, 80), (35, 25, 25), 110),
        ((-30, 40, 55), (45, 22, 22), 140), ((-30, 40, -55), (45, 22, 22), 140),
        ((0, 60, 0), (200, 18, 20), 350), ((0, 35, 8), (200, 9, 9), 180),
    )  # fmt: skip
    for centre, radii, value in organs:
        place = np.array(centre) + rng.normal(0, 8, 3)
        size = np.array(radii) * (1 + rng.normal(0, 0.12, 3))
        away = sum(((g - p) / r) ** 2 for g, p, r in zip(grids, place, size, strict=True))
        image = np.where((away < 1) & (body < 0.8), value + rng.normal(0, 15), image)
    image = _blobs(image, grids, body < 0.7, rng.choice([-600, -80, 10, 60, 150], 30), (7, 20), rng)
    image = ndimage.gaussian_filter(image, 0.6) + rng.normal(0, 10, shape)
    return Volume(image.astype(np.float32), spacing)


def edited(edit: str, volume: Volume, donor: Volume, rng: np.random.Generator) -> Volume:
    """A copy of a volume with known spacing, changed; all but a few with 3 % noise."""
    values, spacing = _unit(volume.values), np.asarray(volume.spacing)
    noise, kept = 0.03, spacing
    match edit:
        case "noise":
            values, noise = ndimage.gaussian_filter(values, 0.7), 0.05
        case "smooth":
            values, noise = ndimage.gaussian_filter(values, 2.5 / spacing), 0.01
        case "turned 8" | "turned 20":
            values = _turned(values, spacing, float(edit.split()[1]), rng)
        case "cropped":
            values = _cropped(values, rng)
        case "cropped without affine":
            values, kept = _cubed(_cropped(values, rng)), None
        case "64 cubed without affine":
            values, kept = _cubed(values), None
        case "permuted without affine":
            order = [(1, 2, 0), (2, 0, 1), (0, 2, 1), (2, 1, 0), (1, 0, 2)][rng.integers(5)]
            flips = [axis for axis in range(3) if rng.random() < 0.5]
            values, kept = np.flip(np.transpose(values, order), flips), None
        case "inverted":
            values = 1 - values
        case "gamma 2.2" | "gamma 0.45":
            values, noise = values ** float(edit.split()[1]), 0.02
        case "slabs of 6 mm":
            thick = max(1, round(6 / spacing[0]))
            whole = values[: len(values) // thick * thick]
            values = whole.reshape(-1, thick, *whole.shape[1:]).mean(1)
            kept = spacing * (thick, 1, 1)
        case "half another's":
            values = _half(values, _unit(donor.values), rng)
        case "a quarter in another's":
            values = _quarter(values, _unit(donor.values), rng)
        case "stripped":
            values = _stripped(values, spacing) * (1 + rng.normal(0, noise, values.shape))
            noise = 0.0
        case "mirrored":
            values = values[:, :, ::-1]
        case "zoomed":
            values = ndimage.zoom(values, 1 + rng.uniform(-0.15, 0.15, 3), order=1)
        case "bias field":
            knots = rng.normal(0, 0.5, (3, 3, 3))
            values = values * np.exp(ndimage.zoom(knots, [n / 3 for n in values.shape], order=2))
        case _:
            raise ValueError(f"edit {edit!r} is none of {', '.join(EDITS)}")
    return Volume((values + rng.normal(0, noise, values.shape)).astype(np.float32), kept)


def _unit(values: np.ndarray) -> np.ndarray:
    low, high = np.percentile(values, (0.1, 99.9))
    return np.clip((values - low) / (high - low), 0, 1)


def _cubed(values: np.ndarray) -> np.ndarray:
    return ndimage.zoom(values, [64 / n for n in values.shape], order=1)


def _turned(
    values: np.ndarray, spacing: np.ndarray, degrees: float, rng: np.random.Generator
) -> np.ndarray:
    axis = rng.normal(size=3)
    turn = Rotation.from_rotvec(np.deg2rad(degrees) * axis / np.linalg.norm(axis)).as_matrix()
    matrix = turn * spacing[None] / spacing[:, None]
    centre = (np.array(values.shape) - 1) / 2
    move = rng.uniform(-0.04, 0.04, 3) * values.shape
    return ndimage.affine_transform(
        values, matrix, offset=centre - matrix @ (centre + move), order=1
    )


def _cropped(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    size = [max(4, round(0.7 * n)) for n in values.shape]
    first = [int(rng.integers(0, n - m + 1)) for n, m in zip(values.shape, size, strict=True)]
    return values[tuple(slice(a, a + m) for a, m in zip(first, size, strict=True))]


def _half(values: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    other = ndimage.zoom(other, [n / m for n, m in zip(values.shape, other.shape)], order=1)
    axis = int(rng.integers(3))
    at = np.arange(values.shape[axis]) - (values.shape[axis] - 1) / 2
    share = 1 / (1 + np.exp(np.clip(at / 1.5 * rng.choice([-1, 1]), -30, 30)))
    share = share.reshape([-1 if i == axis else 1 for i in range(3)])
    return values * share + other * (1 - share)


def _quarter(values: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A box of a quarter of the field of view, where it was, in another person's volume."""
    shape = values.shape
    other = ndimage.zoom(other, [n / m for n, m in zip(shape, other.shape)], order=1)
    size = [round(0.63 * n) for n in shape]
    first = [int(rng.integers(0, n - m + 1)) for n, m in zip(shape, size, strict=True)]
    inside = np.zeros(shape)
    inside[tuple(slice(a, a + m) for a, m in zip(first, size, strict=True))] = 1
    share = ndimage.gaussian_filter(inside, 1.5)
    return values * share + other * (1 - share)


def _stripped(values: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    body = ndimage.binary_fill_holes(ndimage.gaussian_filter(values, 4 / spacing) > 0.12)
    depth = ndimage.distance_transform_edt(np.pad(body, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    return np.where(depth > 0.28 * depth.max(), values, 0)
