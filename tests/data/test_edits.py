"""Every edit does what its name states, by formula; a seed repeats it; parts are where they say."""

import ast
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage import exposure

from deepssim_jax.data import edits
from deepssim_jax.data.edits import EDITS, Edit, Edited, Group, Label, Relation
from deepssim_jax.data.edits.published import LCMEM, MI_ONI

NAMES = [edit.name for edit in EDITS]
BY_NAME = {edit.name: edit for edit in EDITS}
SHAPES = ((48, 48), (64, 150), (200, 96))


def picture(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(shape)
    mixed = sum(s * ndimage.gaussian_filter(noise, s) for s in (1.5, 5))
    return (mixed - mixed.min()) / np.ptp(mixed)


def made(name: str, image: np.ndarray, *, donor: np.ndarray | None = None, seed: int = 0) -> Edited:
    donor = picture((72, 90), 1) if donor is None else donor
    return BY_NAME[name].make(image, donor=donor, rng=np.random.default_rng(seed))


def coordinates(name: str, shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Which pixel (y, x) each pixel of the copy came from: the edit of two ramps. [2, h', w']."""
    scale = max(shape)
    return scale * np.stack(
        [made(name, ramp / scale, seed=seed).image for ramp in np.indices(shape)]
    )


def middle(moved: np.ndarray) -> np.ndarray:
    """The map where nothing comes from outside: the middle quarter."""
    height, width = moved.shape[1:]
    return moved[:, 3 * height // 8 : 5 * height // 8, 3 * width // 8 : 5 * width // 8]


def jacobian(moved: np.ndarray) -> np.ndarray:
    """d source (y, x) / d copy (y, x), [2, 2]."""
    inner = middle(moved)
    return np.stack([np.diff(inner, axis=1).mean((1, 2)), np.diff(inner, axis=2).mean((1, 2))], 1)


def test_the_list_is_complete_and_its_names_are_unique() -> None:
    assert len(EDITS) == len(set(NAMES)) == 81
    assert {edit.group for edit in EDITS} == set(Group)
    counts = Counter(edit.group for edit in EDITS)
    assert counts[Group.ROTATION] == counts[Group.CROP] == 8 and counts[Group.D4] == 7
    partial = {edit.name for edit in EDITS if edit.relation is Relation.PARTIAL_COPY}
    assert partial == {e.name for e in EDITS if e.group is Group.PART} | {"half of another image"}
    near = {edit.group for edit in EDITS if edit.label is Label.NEAR}
    assert near == {
        Group.MARKS, Group.OCCLUSION, Group.ELASTIC, Group.BLEND, Group.PART, Group.LESION
    }  # fmt: skip
    for group in near:  # no group is of both classes
        assert all(edit.label is Label.NEAR for edit in EDITS if edit.group is group)


@pytest.mark.parametrize("edit", EDITS, ids=NAMES)
def test_any_shape_stays_an_image_and_a_seed_repeats_it(edit: Edit) -> None:
    for shape in SHAPES:
        image, donor = picture(shape), picture((100, 61), 3)
        before = image.copy(), donor.copy()
        first, again = (
            edit.make(image, donor=donor, rng=np.random.default_rng(5)) for _ in range(2)
        )
        assert first.image.ndim == 2 and first.image.dtype == np.float64
        assert np.isfinite(first.image).all()
        assert first.image.min() >= 0 and first.image.max() <= 1
        assert np.array_equal(first.image, again.image)
        assert np.array_equal(image, before[0]) and np.array_equal(donor, before[1])
        for mask, frame in ((first.own, first.image), (first.source, image)):
            assert mask is None or (mask.shape == frame.shape and mask.dtype == bool)
        assert (first.own is None) == (first.source is None)


@pytest.mark.parametrize("edit", EDITS, ids=NAMES)
def test_a_flat_image_and_the_largest_one_are_taken(edit: Edit) -> None:
    flat = np.full((48, 64), 0.5)
    copy = edit.make(flat, donor=flat, rng=np.random.default_rng(0)).image
    assert np.isfinite(copy).all()


def test_the_largest_image_is_taken_and_larger_ones_are_not() -> None:
    large = picture((1024, 48))
    assert made("blur 6", large).image.shape == (1024, 48)
    for shape in ((1025, 48), (1024, 47)):
        with pytest.raises(ValueError, match="from 48 to 1024"):
            made("blur 6", np.zeros(shape))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((64, 64, 3)), "must be"),
        (np.full((64, 64), 1.5), "rescale"),
        (np.full((64, 64), np.nan), "rescale"),
    ],
)
def test_what_is_no_image_is_refused_by_name(image: np.ndarray, words: str) -> None:
    good = picture((64, 64))
    for given in ({"image": image, "donor": good}, {"image": good, "donor": image}):
        name = "image" if given["image"] is image else "donor"
        with pytest.raises(ValueError, match=f"{name} has .*{words}"):
            BY_NAME["identity"].make(**given, rng=np.random.default_rng(0))


def test_the_eight_of_d4_are_numpys() -> None:
    x = picture((64, 50))
    flipped = x[:, ::-1]
    expected = {
        "identity": x,
        **{f"quarter turns {k}": np.rot90(x, k) for k in (1, 2, 3)},
        "left to right": flipped,
        "upside down": np.rot90(flipped, 2),
        "transposed": np.rot90(flipped, 1),
        "transposed the other way": np.rot90(flipped, 3),
    }
    for name, copy in expected.items():
        assert np.array_equal(made(name, x).image, copy), name
    assert len({copy.tobytes() for copy in expected.values()}) == 8


@pytest.mark.parametrize("degrees", [5, 15, 30, 45, 90, 135, 180])
def test_rotations_are_by_their_angle_about_the_centre(degrees: int) -> None:
    signs = set()
    for seed in range(6):
        moved = coordinates(f"rotation {degrees} degrees", (97, 97), seed)
        found = jacobian(moved)
        cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        assert np.allclose(np.abs(found), np.abs([[cosine, sine], [sine, cosine]]), atol=1e-6)
        assert np.isclose(np.linalg.det(found), 1, atol=1e-6)
        assert np.allclose(moved[:, 48, 48], 48, atol=1e-4)
        signs.add(np.sign(found[0, 1].round(6)))
    assert signs == ({-1.0, 1.0} if degrees < 180 else {0.0})


def test_what_comes_from_outside_is_black_the_background_or_the_nearest_pixel() -> None:
    image = np.full((96, 96), 0.4)  # the border's median
    image[32:64, [0, -1]] = image[[0, -1], 32:64] = 0.7
    copies = [made("rotation 45 degrees", image, seed=seed).image for seed in range(20)]
    corners = {round(float(copy[0, 0]), 6) for copy in copies}
    assert corners == {0.0, 0.4, 0.7}


@pytest.mark.parametrize("percent", [10, 25, 50])
def test_shifts_are_by_their_share_in_any_direction(percent: int) -> None:
    directions = []
    for seed in range(8):
        shape = (160, 100)
        moved = coordinates(f"shift {percent} %", shape, seed)
        steps, counts = np.unique(
            (moved - np.indices(shape)).reshape(2, -1).round(2), axis=1, return_counts=True
        )
        assert counts.max() > 0.24 * np.prod(shape)  # what did not come from outside
        share = steps[:, counts.argmax()] / shape
        assert np.isclose(np.hypot(*share), percent / 100, atol=0.001)
        directions.append(np.arctan2(*share))
    assert np.ptp(directions) > 1


@pytest.mark.parametrize("factor", [0.5, 0.75, 1.25, 1.5, 2.0])
def test_zooms_enlarge_about_the_centre(factor: float) -> None:
    moved = coordinates(f"zoom {factor:g}", (128, 96))
    assert moved.shape == (2, 128, 96)
    assert np.allclose(jacobian(moved), np.eye(2) / factor, atol=0.02)
    assert np.allclose(middle(moved).mean((1, 2)), [63.5, 47.5], atol=1)


@pytest.mark.parametrize("percent", [20, 30, 40, 50])
def test_crops_keep_pixels_as_they_are(percent: int) -> None:
    image = picture((100, 160))
    kept = 1 - percent / 100
    central = made(f"crop {percent} % of both sides", image).image
    assert central.shape == (round(100 * kept), round(160 * kept))
    top, left = (100 - central.shape[0]) // 2, (160 - central.shape[1]) // 2
    assert np.array_equal(
        central, image[top : top + central.shape[0], left : left + central.shape[1]]
    )
    rows, columns = round(100 * kept), round(160 * kept)
    sides = {
        "bottom": image[:rows],
        "top": image[-rows:],
        "right": image[:, :columns],
        "left": image[:, -columns:],
    }
    found = set()
    for seed in range(20):
        copy = made(f"crop {percent} % at one edge", image, seed=seed).image
        found |= {side for side, part in sides.items() if np.array_equal(part, copy)}
    assert found == set(sides)


@pytest.mark.parametrize("ratio", [0.7, 0.8, 1.25, 1.4])
def test_aspects_change_by_their_ratio_and_keep_the_area(ratio: float) -> None:
    copy = made(f"aspect {ratio:g}", picture((200, 300))).image
    assert np.isclose(copy.shape[1] / copy.shape[0], 1.5 * ratio, rtol=0.01)
    assert np.isclose(copy.size, 200 * 300, rtol=0.01)


def test_shear_is_by_its_amount_along_one_axis() -> None:
    found = {
        tuple(jacobian(coordinates("shear 0.2", (96, 96), s)).round(4).ravel()) for s in range(16)
    }
    assert found == {(1, 0.2, 0, 1), (1, -0.2, 0, 1), (1, 0, 0.2, 1), (1, 0, -0.2, 1)}


@pytest.mark.parametrize(("name", "reach"), [("mild", 0.02), ("strong", 0.05)])
def test_elastic_moves_by_its_reach_and_does_not_fold(name: str, reach: float) -> None:
    for seed in range(5):
        moved = coordinates(f"elastic, {name}", (128, 128), seed)
        step = np.hypot(*(moved - np.indices((128, 128))))
        assert step.max() <= reach * 128 + 0.01
        assert np.quantile(step, 0.9) > 0.2 * reach * 128
        by_y, by_x = np.gradient(moved, axis=(1, 2))
        assert np.median(by_y[0] * by_x[1] - by_y[1] * by_x[0]) > 0.7
        assert (by_y[0] * by_x[1] - by_y[1] * by_x[0]).min() > -0.05


def test_intensity_edits_are_their_formulas() -> None:
    x = picture((90, 120))
    assert np.allclose(made("negative", x).image, 1 - x)
    for exponent in (0.4, 0.6, 1.7, 2.5):
        assert np.allclose(made(f"gamma {exponent:g}", x).image, x**exponent)
    for levels in (8, 4):
        copy = made(f"posterised to {levels} levels", x).image
        assert set((copy * (levels - 1)).round(9).ravel()) == set(map(float, range(levels)))
        assert np.abs(copy - x).max() <= 0.5 / (levels - 1) + 1e-9
    coarse = np.round(x * 255) / 255
    equal = made("equalised", coarse).image
    assert np.allclose(equal, exposure.equalize_hist(coarse, nbins=256), atol=1 / 256)
    low, high = np.percentile(x, (2, 98))
    inner = made("window of half the range", x).image
    quarter = (high - low) / 4
    assert np.allclose(inner, np.clip((x - low - quarter) / (2 * quarter), 0, 1))


@pytest.mark.parametrize("deviation", [0.05, 0.1, 0.2, 0.3])
def test_noise_has_its_deviation(deviation: float) -> None:
    grey = np.full((256, 256), 0.5)
    added = made(f"noise {deviation:g}", grey).image - 0.5
    inside = np.abs(added) < 0.499  # the file's range cuts the tails
    assert np.isclose(np.quantile(added, 0.8413), deviation, rtol=0.03)
    assert inside.mean() > 0.9


@pytest.mark.parametrize("sigma", [1, 2, 4, 6])
def test_a_blur_has_its_sigma_at_256_pixels_and_scales(sigma: int) -> None:
    for side in (128, 256):
        point = np.zeros((side, side))
        point[side // 2, side // 2] = 1
        copy = made(f"blur {sigma}", point).image
        variance = (copy.sum(1) * (np.arange(side) - side // 2) ** 2).sum() / copy.sum()
        assert np.isclose(np.sqrt(variance), sigma * side / 256, rtol=0.1)


@pytest.mark.parametrize("quality", [30, 10, 5])
def test_jpeg_is_pillows(quality: int) -> None:
    x = picture((64, 80))
    buffer = io.BytesIO()
    Image.fromarray((x * 255).round().astype(np.uint8)).save(buffer, "JPEG", quality=quality)
    assert np.array_equal(made(f"JPEG {quality}", x).image, np.asarray(Image.open(buffer)) / 255)


@pytest.mark.parametrize("side", [64, 32])
def test_downsampling_loses_what_a_grid_of_its_side_cannot_hold(side: int) -> None:
    y, x = np.indices((256, 128)) / 256
    coarse, fine = (
        0.5 + 0.4 * np.sin(2 * np.pi * cycles * y) * np.cos(2 * np.pi * cycles * x)
        for cycles in (side / 16, side)
    )
    name = f"down to {side} pixels"
    assert made(name, fine).image.std() < 0.1 * fine.std()
    assert made(name, coarse).image.std() > 0.85 * coarse.std()
    assert made(name, coarse).image.shape == (256, 128)


@pytest.mark.parametrize("name", ["text", "circle, arrow and ruler"])
def test_marks_are_white_and_small(name: str) -> None:
    dark = 0.5 * picture((128, 160))
    for seed in range(5):
        copy = made(name, dark, seed=seed).image
        changed = ~np.isclose(copy, dark, atol=1e-6)
        assert 0.005 < changed.mean() < 0.15
        assert (copy[changed] >= dark[changed]).all() and copy.max() > 0.95


@pytest.mark.parametrize("percent", [10, 20, 40])
def test_a_box_hides_its_share(percent: int) -> None:
    image = 0.1 + 0.9 * picture((128, 200))
    places = set()
    for seed in range(8):
        copy = made(f"black box {percent} %", image, seed=seed)
        assert copy.own is not None
        assert np.array_equal(copy.image == 0, ~copy.own)
        assert np.array_equal(copy.image[copy.own], image[copy.own])
        assert np.isclose(1 - copy.own.mean(), percent / 100, rtol=0.05)
        places.add(tuple(np.argwhere(~copy.own)[0]))
    assert len(places) > 3


def test_mixtures_are_of_both_images() -> None:
    image, donor = picture((96, 120)), picture((96, 120), 7)
    assert np.allclose(made("half-and-half blend", image, donor=donor).image, (image + donor) / 2)
    for name, foreign in (
        ("patch of another image 10 %", 0.10),
        ("patch of another image 25 %", 0.25),
        ("half of another image", 0.50),
    ):
        copy = made(name, image, donor=donor)
        assert copy.own is not None
        assert np.array_equal(copy.image, np.where(copy.own, image, donor))
        assert np.isclose(1 - copy.own.mean(), foreign, rtol=0.06)
    halves = {
        tuple(np.argwhere(~made("half of another image", image, seed=s).own).mean(0).round())
        for s in range(20)
    }
    assert len(halves) == 4


def test_a_donor_of_another_shape_covers_the_frame_undistorted() -> None:
    image = np.zeros((60, 120))
    y, x = np.indices((200, 100))
    donor = (np.hypot(y - 99.5, x - 49.5) < 20).astype(float)  # a disc stays a disc
    disc = 2 * made("half-and-half blend", image, donor=donor).image
    height, width = np.ptp(np.argwhere(disc > 0.5), axis=0) + 1
    assert abs(int(height) - int(width)) <= 1 and abs(height - 48) <= 2


@pytest.mark.parametrize("percent", [12, 25, 40])
@pytest.mark.parametrize("where", ["in place", "moved"])
def test_parts_are_where_they_say(percent: int, where: str) -> None:
    image, donor = picture((128, 160)), picture((128, 160), 7)
    still = 0
    for seed in range(10):
        copy = made(f"part {percent} %, {where}", image, donor=donor, seed=seed)
        assert copy.own is not None and copy.source is not None
        assert np.array_equal(copy.image[copy.own], image[copy.source])
        assert np.array_equal(copy.image[~copy.own], donor[~copy.own])
        assert np.isclose(copy.own.mean(), percent / 100, rtol=0.06)
        still += np.array_equal(copy.own, copy.source)
    assert still == 10 if where == "in place" else still < 3


def test_a_part_is_taken_from_where_structure_is() -> None:
    image = np.zeros((128, 128))
    image[:, 64:] = picture((128, 64))
    shown = [made("part 12 %, moved", image, seed=s).source.mean(0)[64:].sum() for s in range(30)]
    assert np.mean(shown) > 0.09  # 0.06 if places were drawn alike


@pytest.mark.parametrize("name", ["lesion added", "lesion removed"])
def test_lesions_are_small_and_seen(name: str) -> None:
    image = picture((128, 160))
    for seed in range(5):
        difference = np.abs(made(name, image, seed=seed).image - image)
        assert (difference > 0.01).mean() < 0.06
        assert difference.max() > 0.05


@pytest.mark.parametrize("name", ["three moves", "three changes of intensity", "three of any"])
def test_combinations_differ_from_draw_to_draw(name: str) -> None:
    image = picture((96, 110))
    copies = [made(name, image, seed=seed).image for seed in range(6)]
    assert len({copy.tobytes() for copy in copies}) == 6
    assert all(min(copy.shape) >= 48 for copy in copies)
    if name == "three changes of intensity":
        for copy in copies:
            assert copy.shape == image.shape
            assert abs(np.corrcoef(copy.ravel(), image.ravel())[0, 1]) > 0.8


def test_nothing_that_detects_takes_part() -> None:
    folder = Path(edits.__file__).parent
    allowed = {"numpy", "scipy", "PIL"}
    standard = {"collections", "dataclasses", "enum", "io"}
    for file in folder.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                inside = name.startswith("deepssim_jax.data.edits")
                assert inside or name.split(".")[0] in allowed | standard, f"{file.name}: {name}"


def test_published_strengths_are_those_of_the_papers() -> None:
    assert [edit.name for edit in MI_ONI] == [
        "identity", "noise 0.01", "noise 0.02", "intensity 0.9 to 1.1", "rotation 3", "rotation 5",
        "left to right", "upside down",
    ]  # fmt: skip
    by_kind: dict[str, list[float | None]] = {}
    for edit in LCMEM:
        by_kind.setdefault(edit.name.split()[0], []).append(edit.strength)
    assert by_kind == {
        "blur": [0.1, 1, 2, 6],
        "noise": [0.01, 0.1, 0.2, 0.3],
        "rotation": [5, 10, 20, 30],
        "brightness": [1.1, 1.3, 1.6, 2],
        "contrast": [1.1, 1.3, 1.6, 2],
        "JPEG": [95, 70, 40, 10],
    }
    image = 0.05 + 0.4 * picture((64, 80))
    published = {edit.name: edit for edit in (*MI_ONI, *LCMEM)}

    def copy(name: str, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return published[name].make(image, donor=image, rng=rng).image

    assert np.allclose(copy("brightness 2"), 2 * image)
    expected = image.mean() + 1.3 * (image - image.mean())
    assert np.allclose(copy("contrast 1.3"), np.clip(expected, 0, 1))
    gains = [float(np.median(copy("intensity 0.9 to 1.1", seed) / image)) for seed in range(30)]
    assert 0.9 <= min(gains) < 0.93 and 1.07 < max(gains) <= 1.1
