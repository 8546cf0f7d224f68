"""What finds volumes in any pose: invariance of descriptors, planted maps, exact poses, structure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from deepssim_jax.ops import volume_poses, volume_structure
from deepssim_jax.ops.transform import Transform
from deepssim_jax.ops.volume_grid import Geometry
from deepssim_jax.ops.volume_keypoints import SIZE, keypoints
from deepssim_jax.ops.volume_votes import agreeing


def volume(seed: int, side: int = 64) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((side,) * 3)
    return ndimage.gaussian_filter(noise, side / 24).astype(np.float32)


def described(image: np.ndarray) -> tuple[np.ndarray, ...]:
    box = jnp.full((1, 3), float(image.shape[0]))
    found = keypoints(jnp.asarray(image)[None], box, jnp.full((1, 3), image.shape[0] / SIZE))
    return tuple(np.asarray(x)[0] for x in found)


@pytest.mark.parametrize("number", [1, 13, 30, 47])
def test_descriptors_do_not_change_with_the_pose_or_the_sign(number: int) -> None:
    image = volume(0)
    pose = volume_poses.POSES[number]
    order = np.argmax(np.abs(pose), axis=1)
    flips = [axis for axis in range(3) if pose[axis, order[axis]] < 0]
    turned = 3 - 2 * np.flip(np.transpose(image, order), flips)
    (places, rows, valid), (there, others, known) = described(image), described(turned)
    assert valid.all()
    assert known.all()
    moved = places @ pose.T
    found = np.abs(moved[:, None] - there[None]).sum(-1)
    partner = found.argmin(1)
    near = found.min(1) < 0.5
    assert near.mean() > 0.97  # a tie of two voxels may go the other way
    np.testing.assert_allclose(rows[near], others[partner[near]], atol=2e-3)


def test_a_planted_affine_map_is_found_among_wrong_correspondences() -> None:
    rng = np.random.default_rng(0)
    fixed = rng.uniform(-25, 25, (96, 3))
    turn = Rotation.from_euler("xyz", (40, -60, 120), degrees=True).as_matrix()
    matrix = turn @ np.diag([1, 1, -1]) @ np.diag([1.05, 0.95, 1.0])
    moving = fixed @ matrix.T + (3, -2, 5)
    wrong = rng.permutation(96)[:60]
    moving[wrong] = rng.uniform(-25, 25, (60, 3))
    found = agreeing(
        jnp.asarray(moving, jnp.float32), jnp.asarray(fixed, jnp.float32)[None], jnp.ones((1, 96))
    )
    np.testing.assert_allclose(found.matrix[0], matrix, atol=0.02)
    np.testing.assert_allclose(found.shift[0], (3, -2, 5), atol=0.3)
    assert float(found.evidence[0]) == pytest.approx(36, abs=2)
    assert float(found.exact[0]) > 0.9
    none = agreeing(
        jnp.asarray(rng.uniform(-25, 25, (96, 3)), jnp.float32),
        jnp.asarray(fixed, jnp.float32)[None],
        jnp.ones((1, 96)),
    )
    assert float(none.evidence[0]) < 12


def test_what_lies_a_point_away_agrees_and_is_not_exact() -> None:
    rng = np.random.default_rng(0)
    fixed = rng.uniform(-25, 25, (96, 3))

    def exact(away: float) -> float:
        moving = fixed + rng.normal(0, away, fixed.shape)
        columns = jnp.asarray(moving, jnp.float32), jnp.asarray(fixed, jnp.float32)[None]
        found = agreeing(*columns, jnp.ones((1, 96)))
        assert float(found.evidence[0]) > 70
        return float(found.exact[0])

    # Of a normal distance of s along three axes exp(-d^2 / 2c^2) is (c^2 / (c^2 + s^2))^1.5 on average.
    for away in (0.1, 0.5, 0.8):
        share = (0.25 / (0.25 + away**2)) ** 1.5 / (4 / (4 + away**2)) ** 1.5
        assert exact(away) == pytest.approx(share, abs=0.1)


@pytest.mark.parametrize("number", [0, 5, 22, 41])
def test_the_search_of_poses_is_exact_and_its_map_leads_back(number: int) -> None:
    rng = np.random.default_rng(number)
    reference = rng.standard_normal((volume_poses.SIZE,) * 3).astype(np.float32)
    pose = volume_poses.POSES[number]
    back = pose.T  # the query is the reference turned the other way
    order = np.argmax(np.abs(back), axis=1)
    flips = [axis for axis in range(3) if back[axis, order[axis]] < 0]
    query = -np.flip(np.transpose(reference, order), flips)
    others = rng.standard_normal((3, reference.size)).astype(np.float32)
    rows = volume_poses.unit(jnp.asarray(np.concatenate([reference.reshape(1, -1), others])))
    score, found, shift = volume_poses.best_poses(jnp.asarray(query), rows)
    assert float(score[0]) == pytest.approx(1, abs=1e-5)
    assert float(score[1:].max()) < 0.2
    assert int(found[0]) == number
    np.testing.assert_array_equal(volume_poses.SHIFTS[int(shift[0])], 0)
    matrix, move = volume_poses.pose_maps(np.asarray(found)[:1], np.asarray(shift)[:1])
    np.testing.assert_allclose(matrix[0], pose.T)
    np.testing.assert_allclose(move[0], 0)


def test_structure_agrees_in_a_copy_and_in_half_of_one_and_not_otherwise() -> None:
    a, b = volume(1, 48), volume(2, 48)
    half = np.where(np.arange(48)[:, None, None] < 24, a, b)
    held, agreement = np.ones((48,) * 3, np.float32), jax.jit(volume_structure.agreement)

    def score(x: np.ndarray) -> float:
        return float(agreement(x.astype(np.float32), a, held))

    assert score(a) == pytest.approx(1, abs=1e-4)
    assert score(5 - 3 * a) == pytest.approx(1, abs=1e-4)
    assert score(half) > 0.85
    assert score(b) < 0.5


def test_alignment_finds_an_affine_map_from_a_rough_start() -> None:
    fixed = volume(3, 40)
    turn = Rotation.from_euler("xyz", (3, -2, 4), degrees=True).as_matrix() @ np.diag(
        [1.04, 1, 0.97]
    )
    centre = np.full(3, 19.5)
    # moving(x) = fixed(turn^-1 (x - shift)): the map of fixed to moving is turn, shift.
    shift, back = np.array([1.0, -1.5, 0.5]), np.linalg.inv(turn)
    moving = ndimage.affine_transform(fixed, back, offset=centre - back @ (centre + shift), order=3)
    held = jnp.ones((1, 40, 40, 40))
    still = Transform(jnp.zeros((1, 1), jnp.int32), jnp.eye(3)[None, None], jnp.zeros((1, 1, 3)))
    columns = jnp.asarray(1 - moving)[None], jnp.asarray(fixed)[None], held, held
    found = volume_structure.align(*columns, still)
    np.testing.assert_allclose(found.transform.matrix[0], turn, atol=0.015)
    np.testing.assert_allclose(found.transform.shift[0], shift, atol=0.15)
    assert float(found.score[0]) > 0.97


def test_grids_cover_millimetres_and_the_field_of_view() -> None:
    geometry = Geometry(
        np.array([[64, 32, 32], [64, 64, 64]], np.float32), np.array([2.0, np.nan], np.float32)
    )
    assert geometry.field_mm == pytest.approx(128)
    steps = geometry.steps(64, geometry.field_mm)
    np.testing.assert_allclose(steps[0], [[1, 1, 1], [1, 0.5, 0.5]])
    np.testing.assert_allclose(steps[1], 1)
