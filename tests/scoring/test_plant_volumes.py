"""Positive controls of volumes: each edit does what it says, and the rest stays."""

import numpy as np

from deepssim_jax.ops.volume_grid import Geometry
from deepssim_jax.scoring.plant_volumes import Edit, plant_copies

SIDE = 24


def planted(edit: Edit):
    rng = np.random.default_rng(0)
    axis = np.arange(SIDE) - (SIDE - 1) / 2
    ball = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 < 100
    volumes = np.round((20000 + 8000 * rng.standard_normal((2, *[SIDE] * 3))) * ball).clip(0)
    volumes = volumes.astype(np.uint16)
    maps = (volumes > 20000).astype(np.uint8) + 2 * ball.astype(np.uint8)
    geometry = Geometry(np.full((2, 3), SIDE, np.float32), np.full(2, 3.0, np.float32))
    found = plant_copies(
        volumes, geometry, edits=[edit, edit], donors=np.array([1, 0]), seed=0, maps=maps
    )
    again = plant_copies(
        volumes, geometry, edits=[edit, edit], donors=np.array([1, 0]), seed=0, maps=maps
    )
    np.testing.assert_array_equal(found.volumes, again.volumes)
    assert found.volumes.dtype == np.uint16
    assert found.maps is not None
    assert found.maps.shape == found.volumes.shape
    return volumes, found


def alike(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel().astype(float), b.ravel().astype(float))[0, 1])


def test_intensities_change_and_places_do_not() -> None:
    volumes, found = planted(Edit.INVERTED)
    assert alike(volumes[0], found.volumes[0]) < -0.99
    volumes, found = planted(Edit.GAMMA)
    assert 0.8 < alike(volumes[0], found.volumes[0]) < 1
    order = np.argsort(volumes[0], axis=None, kind="stable")
    ranked = found.volumes[0].ravel()[order].astype(float)
    assert np.median(ranked[-500:]) > np.median(ranked[:500])


def test_a_permuted_copy_forgets_its_spacing() -> None:
    volumes, found = planted(Edit.PERMUTED)
    assert np.isnan(found.geometry.voxel_mm).all()
    np.testing.assert_allclose(
        np.sort(found.volumes[0], axis=None), np.sort(volumes[0], axis=None), atol=4000
    )
    assert alike(volumes[0], found.volumes[0]) < 0.95


def test_a_crop_is_a_part_and_says_how_large_it_is() -> None:
    volumes, found = planted(Edit.CROP)
    np.testing.assert_allclose(found.geometry.box, 17)
    np.testing.assert_allclose(found.geometry.voxel_mm, 3)
    first = (SIDE - 17) // 2
    inner = found.volumes[0][(slice(first, first + 17),) * 3]
    best = max(
        alike(inner, volumes[0][z : z + 17, y : y + 17, x : x + 17])
        for z in range(8) for y in range(8) for x in range(8)
    )  # fmt: skip
    assert best > 0.99


def test_half_is_another_persons() -> None:
    volumes, found = planted(Edit.HALF)
    inside = (volumes[0] > 0) & (volumes[1] > 0)
    own, theirs = (
        (np.abs(found.volumes[0].astype(float) - v) < 2000)[inside].mean() for v in volumes
    )
    assert 0.4 < own < 0.75
    assert 0.4 < theirs < 0.75


def test_the_outside_goes_and_slabs_are_thick() -> None:
    volumes, found = planted(Edit.STRIP)
    middle = (slice(9, 15),) * 3
    assert alike(volumes[0][middle], found.volumes[0][middle]) > 0.98
    assert (found.volumes[0] > 5000).sum() < 0.8 * (volumes[0] > 5000).sum()
    volumes, found = planted(Edit.SLAB)
    steps = [np.abs(np.diff(v[0].astype(float), axis=0)).mean() for v in (volumes, found.volumes)]
    assert steps[1] < 0.8 * steps[0]
