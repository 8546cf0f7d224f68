"""Local features: the square's symmetries exactly, rotation and zoom nearly, and beside OpenCV's SIFT."""

import cv2
import jax
import numpy as np
import pytest
from scipy import ndimage

from deepssim_jax.data.preprocess import fit_to_canvas
from deepssim_jax.features import descriptors, scale_space
from deepssim_jax.features.extract import LocalFeatures, extract, extract_all

SIDE, POINTS = 128, 96
_FULL = np.full((1, 2), SIDE, np.float32)


def texture(seed: int, shape: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    """Blobs of all sizes on [0, 1], from noise at three scales."""
    rng = np.random.default_rng(seed)
    out = np.zeros(shape)
    for sigma, weight in ((2, 1.0), (5, 1.5), (12, 2.0)):
        layer = ndimage.gaussian_filter(rng.normal(size=shape), sigma)
        out += weight * layer / layer.std()
    return ((out - out.min()) / (out.max() - out.min())).astype(np.float32)


def points_of(image: np.ndarray) -> LocalFeatures:
    return extract(image[None], _FULL, points=POINTS)[0]


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return texture(0)


@pytest.fixture(scope="module")
def found(image) -> LocalFeatures:
    return jax.tree.map(np.asarray, points_of(image))


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_eight_symmetries_move_points_and_keep_descriptors(image, found, turns, mirrored):
    moved = np.rot90(image[:, ::-1] if mirrored else image, turns)
    again = jax.tree.map(np.asarray, points_of(np.ascontiguousarray(moved)))
    y, x = found.positions.T
    x = -x if mirrored else x
    for _ in range(turns):
        y, x = -x, y
    names = descriptors.mirrored() if mirrored else np.arange(descriptors.LENGTH)
    expected = np.concatenate([np.stack([y, x], 1), 10 * found.descriptors[:, names]], 1)
    given = np.concatenate([again.positions, 10 * again.descriptors], 1)
    distance = np.abs(expected[:, None] - given[None]).max(-1)
    for nearest in (distance.min(1), distance.min(0)):
        _exact_but_for_rounding(nearest / 10)


def _exact_but_for_rounding(difference: np.ndarray) -> None:
    """Gradients are those of the nearest pixel: rarely one sample of a descriptor falls to the next."""
    assert (difference < 1e-4).mean() > 0.97 and (difference < 0.05).all()


def test_a_negative_keeps_descriptors_and_turns_the_polarity(image, found) -> None:
    again = jax.tree.map(np.asarray, points_of(1 - image))
    distance = np.abs(found.positions[:, None] - again.positions[None]).max(-1)
    distance += np.abs(found.descriptors[:, None] - again.descriptors[None]).max(-1)
    partner = distance.argmin(1)
    _exact_but_for_rounding(distance.min(1))
    np.testing.assert_array_equal(found.polarities, -again.polarities[partner])


@pytest.mark.parametrize(("degrees", "zoom"), [(30, 1.0), (17, 1.2), (0, 0.8)])
def test_rotation_and_zoom_keep_most_points(image, found, degrees: float, zoom: float) -> None:
    """Repeatability (Mikolajczyk and Schmid, 2005) and the share of right nearest descriptors, not
    far below SIFT's of OpenCV on the same images.
    """
    angle = np.deg2rad(degrees)
    c, s = np.cos(angle) * zoom, np.sin(angle) * zoom
    matrix = np.array([[c, s], [-s, c]])  # (y, x) of the image to (y, x) of the moved one
    centre = np.array([(SIDE - 1) / 2] * 2)
    inverse = np.linalg.inv(matrix)
    moved = ndimage.affine_transform(
        image, inverse, centre - inverse @ centre, order=1, mode="nearest"
    ).astype(np.float32)
    again = jax.tree.map(np.asarray, points_of(moved))
    ours = _scores(
        (found.positions, found.descriptors), (again.positions, again.descriptors), matrix
    )
    theirs = _scores(_sift(image), _sift(moved), matrix)
    assert ours[0] >= 0.5 and ours[1] >= 0.7
    assert ours[0] >= theirs[0] - 0.17 and ours[1] >= theirs[1] - 0.1


def _sift(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    keys, values = cv2.SIFT_create(nfeatures=POINTS).detectAndCompute(
        np.round(image * 255).astype(np.uint8), None
    )
    place = np.array([k.pt[::-1] for k in keys]) - (SIDE - 1) / 2
    values = np.sqrt(values / values.sum(1, keepdims=True))
    return place, values


def _scores(first: tuple, second: tuple, matrix: np.ndarray) -> tuple[float, float]:
    placed = first[0] @ matrix.T
    inside = (np.abs(placed) < SIDE / 2 - 12).all(1)
    distance = np.linalg.norm(placed[inside][:, None] - second[0][None], axis=-1)
    repeated = distance.min(1) < 2.5
    nearest = (first[1][inside] @ second[1].T).argmax(1)
    right = distance[np.arange(len(nearest)), nearest] < 4
    return float(repeated.mean()), float(right[repeated].mean())


def test_a_flat_image_has_no_points_and_no_number_is_missing() -> None:
    flat = extract_all(np.full((2, SIDE, SIDE), 0.5, np.float32), np.repeat(_FULL, 2, 0), points=16)
    assert not flat.valid.any()
    assert all(np.isfinite(np.asarray(a, np.float64)).all() for a in jax.tree.leaves(flat))


def test_points_of_an_oblong_image_lie_inside_of_it() -> None:
    canvas, content = fit_to_canvas(texture(1, (90, 40)), side=SIDE)
    assert canvas.shape == (SIDE, SIDE) and content == (128, 56)
    found = extract(canvas[None], np.array([content], np.float32), points=32)
    assert (np.abs(np.asarray(found.positions)[0][np.asarray(found.valid)[0], 1]) < 28).all()


def test_contrast_normalisation_undoes_gain_offset_and_gamma_nearly(image) -> None:
    one = scale_space.normalise_contrast(image[None])
    two = scale_space.normalise_contrast(0.2 + 0.5 * image[None] ** 0.7)
    assert np.corrcoef(np.ravel(one), np.ravel(two))[0, 1] > 0.98


def test_noise_is_blurred_away_and_clean_images_stay(image) -> None:
    rng = np.random.default_rng(0)
    noisy = np.clip(image + rng.normal(0, 0.2, image.shape), 0, 1).astype(np.float32)
    given = np.stack([image, noisy])
    out = np.asarray(scale_space.without_noise(given, np.repeat(_FULL, 2, 0)))
    np.testing.assert_array_equal(out[0], image)
    assert np.abs(out[1] - image).mean() < 0.4 * np.abs(noisy - image).mean()


def test_blur_is_that_of_scipy(image) -> None:
    blurred = scale_space._blur(image[None], scale_space._half_kernel(1.5))[0]
    expected = ndimage.gaussian_filter(image, 1.5, mode="nearest", radius=5)
    np.testing.assert_allclose(blurred, expected, atol=2e-6)
