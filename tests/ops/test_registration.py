"""Planted transformations are recovered; SciPy is the reference for resampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from deepssim_jax.ops import registration, resample, search_grid
from deepssim_jax.ops.search_grid import SearchGrid
from deepssim_jax.ops.transform import FLIP_SIGNS, Transform

SIZE = 64


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """Smooth random images with structure at several scales."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((count, SIZE, SIZE))
    smooth = sum(s * ndimage.gaussian_filter(noise, (0, s, s)) for s in (2, 4, 8))
    return (smooth / smooth.std((1, 2), keepdims=True)).astype(np.float32)


def planted(images: np.ndarray, seed: int = 1) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Moving images made by SciPy so that moving(F (s R x + t)) = fixed(x)."""
    rng = np.random.default_rng(seed)
    n = len(images)
    truth = {
        "flip": rng.integers(0, 4, n),
        "angle": np.deg2rad(rng.uniform(-12, 12, n)),
        "scale": rng.uniform(0.92, 1.08, n),
        "shift": rng.uniform(-0.07, 0.07, (n, 2)) * SIZE,
    }
    centre = (SIZE - 1) / 2
    out = []
    for i in range(n):
        c, s = truth["scale"][i] * np.array([np.cos(truth["angle"][i]), np.sin(truth["angle"][i])])
        forward = np.array([[c, -s], [s, c]])
        inverse = np.linalg.inv(forward)
        moved = ndimage.affine_transform(
            images[i],
            inverse,
            offset=centre - inverse @ (centre + truth["shift"][i]),
            order=3,
            mode="nearest",
        )
        sign = FLIP_SIGNS[truth["flip"][i]]
        out.append(moved[:: int(sign[0]), :: int(sign[1])])
    return np.stack(out).astype(np.float32), truth


def test_recovers_planted_similarities() -> None:
    fixed = pictures(16)
    moving, truth = planted(fixed)
    found = registration.register(2.0 * moving + 5.0, fixed)
    np.testing.assert_array_equal(found.transform.flip, truth["flip"])
    angle = np.abs(np.asarray(found.transform.rotation_deg) - np.rad2deg(truth["angle"]))
    assert angle.max() < 0.5, angle
    shift = np.linalg.norm(np.asarray(found.transform.shift) - truth["shift"], axis=1)
    assert shift.max() < 0.5, shift
    np.testing.assert_allclose(found.transform.scale, truth["scale"], atol=0.01)
    assert np.asarray(found.correlation).min() > 0.97


def test_a_large_changed_region_pulls_nothing_out_of_place() -> None:
    """Refined alone, its strong edges would lead away from a start that was right."""
    fixed = pictures(24)
    y, x = np.mgrid[:SIZE, :SIZE]
    middle = (y - 30) ** 2 + (x - 34) ** 2 < 20**2
    found = registration.register(np.where(middle, 0.5 - 2 * fixed, fixed), fixed)
    shift = np.linalg.norm(np.asarray(found.transform.shift), axis=1)
    assert shift.max() < 0.5, shift
    assert np.abs(np.asarray(found.transform.scale) - 1).max() < 0.02


def test_positive_rotation_is_counter_clockwise_on_the_screen() -> None:
    """y points down: what lies to the right of the centre goes up."""
    axis = np.arange(SIZE) - (SIZE - 1) / 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    angle = np.deg2rad(10.0)

    def blob(row: float, col: float) -> np.ndarray:
        return np.exp(-((y - row) ** 2 + (x - col) ** 2) / 40)

    fixed = blob(0, 20) + 0.6 * blob(12, -9) + 0.3 * blob(-15, 4)

    def turned(row: float, col: float) -> np.ndarray:
        c, s = np.cos(angle), np.sin(angle)
        return blob(c * row - s * col, s * row + c * col)

    moving = turned(0, 20) + 0.6 * turned(12, -9) + 0.3 * turned(-15, 4)
    found = registration.register(moving[None], fixed[None])
    assert found.transform.rotation_deg[0] == pytest.approx(10.0, abs=0.3)


def test_sampling_equals_scipy() -> None:
    image = pictures(1)
    rng = np.random.default_rng(3)
    rows, cols = rng.uniform(-4, SIZE + 3, (2, 1, 20, 20)).astype(np.float32)
    ours = resample.sample_at(jnp.asarray(image), [jnp.asarray(rows), jnp.asarray(cols)])
    theirs = ndimage.map_coordinates(image[0], [rows[0], cols[0]], order=1, mode="nearest")
    np.testing.assert_allclose(ours[0], theirs, atol=1e-5)


def test_poses_sample_like_the_transforms_they_stand_for() -> None:
    grid = SearchGrid(rotations=3, scales=3)
    low = pictures(2)[:, :32, :32]
    window = search_grid.window_indices(grid)
    mirrored = np.stack([low[0, ::y, ::x] for y, x in FLIP_SIGNS.astype(int)])
    versions = np.asarray(jax.jit(lambda x: search_grid.posed(x, grid=grid))(mirrored))
    versions = versions.reshape(4 * len(grid.poses), -1)
    rng = np.random.default_rng(0)
    index = rng.integers(0, grid.transformations, 12)

    @jax.jit
    def sampled(images: jax.Array, index: jax.Array) -> jax.Array:
        """Clamped at the edge, as the poses are, hence no mask."""
        transform = search_grid.grid_transform(index, grid=grid, size=grid.size)
        return resample.sample_at(images, transform.positions((grid.size, grid.size)))

    expected = np.asarray(sampled(low[:1].repeat(12, 0), index))[:, search_grid.disc(grid)]
    per_flip = len(grid.poses) * len(grid.shifts)
    version, shift = index // len(grid.shifts), index % len(grid.shifts)
    assert len(versions) * len(grid.shifts) == 4 * per_flip
    ours = np.stack([versions[v][window[s]] for v, s in zip(version, shift, strict=True)])
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_a_batch_does_not_depend_on_its_size() -> None:
    fixed = pictures(5)
    moving, _ = planted(fixed)
    whole = registration.register(moving, fixed)
    single = registration.register(moving, fixed, batch_size=2)
    np.testing.assert_allclose(whole.aligned, single.aligned, atol=1e-5)


def test_flat_images_give_finite_answers() -> None:
    flat = np.zeros((2, SIZE, SIZE), np.float32)
    found = registration.register(flat, flat)
    assert np.isfinite(np.asarray(found.transform.shift)).all()
    assert np.isfinite(np.asarray(found.correlation)).all()


def test_shapes_that_differ_are_refused_with_both_named() -> None:
    with pytest.raises(ValueError, match=r"\(1, 64, 64\).*\(2, 64, 64\)"):
        registration.register(pictures(1), pictures(2))


def test_positions_of_a_smaller_picture_cover_the_same_frame() -> None:
    transform = Transform(
        flip=jnp.array([1]), matrix=jnp.eye(2)[None] * 1.1, shift=jnp.array([[2.0, -4.0]])
    )

    @jax.jit
    def positions(transform: Transform) -> tuple[list[jax.Array], ...]:
        sides = (SIZE, SIZE // 2)
        return tuple(transform.positions((s, s), size=(SIZE, SIZE)) for s in sides)

    full, half = positions(transform)
    for a, b in zip(full, half, strict=True):
        # A pixel of the half picture stands for four of the full one.
        mean = np.asarray(a).reshape(1, SIZE // 2, 2, SIZE // 2, 2).mean((2, 4))
        np.testing.assert_allclose(b, (mean + 0.5) / 2 - 0.5, atol=1e-4)


def test_what_surrounds_a_copied_part_does_not_pull_a_right_start_away() -> None:
    """A third of each image is a copy, moved a little; the rest is another scene, and a black box."""
    fixed, others = pictures(12, seed=3), pictures(12, seed=4)
    moving = 2 * others
    moving[:, :, : SIZE // 3] = np.roll(fixed, (3, 0), (1, 2))[:, :, : SIZE // 3]
    moving[:, : SIZE // 2, SIZE // 2 :] = -4.0
    start = Transform.of(
        np.zeros(12, np.int32),
        np.broadcast_to(np.eye(2, dtype=np.float32), (12, 2, 2)),
        np.tile(np.array([3.0, 0.0], np.float32), (12, 1)),
    )

    def errors(transform: Transform) -> np.ndarray:
        here = np.asarray(transform.positions((SIZE, SIZE)))[:, :, 3:-3, : SIZE // 3]
        truth = np.asarray(start.positions((SIZE, SIZE)))[:, :, 3:-3, : SIZE // 3]
        return np.abs(here - truth).mean((1, 2, 3))

    plain = jax.jit(registration.align)(moving, fixed, start)
    assert np.median(errors(plain.transform)) > 1
    kept = jax.jit(registration.align_affine)(moving, fixed, start)
    assert errors(kept.transform).max() < 0.5
