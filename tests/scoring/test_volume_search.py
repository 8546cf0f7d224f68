"""The searches of volumes against NumPy's correlations, and against planted motions by SciPy."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from benchmarks.methods.volume_levels import best_by_level
from deepssim_jax.ops.head_labels import vessel_labels
from deepssim_jax.ops.volume_grid import Geometry
from deepssim_jax.scoring.volume_evidence import best_of, can_be_copies
from deepssim_jax.scoring.volume_match import (
    Reference,
    best_by_measure,
    match_volumes,
)
from deepssim_jax.scoring.volume_measure import Alignment, MatchSettings, pair_dtype
from deepssim_jax.scoring.volume_points import VolumeIndex
from deepssim_jax.scoring.volume_search import Level, VolumeSide, search
from deepssim_jax.scoring.volume_sides import occupancies
from tests.kept import journal

SIZE = (32, 32, 32)


def voxel_mm(count: int) -> np.ndarray:
    return np.full(count, 2.0, np.float32)


def bodies(count: int, seed: int) -> np.ndarray:
    """Bright blobs of their own inside a dim ball."""
    noise = np.random.default_rng(seed).standard_normal((count, *SIZE))
    smooth = ndimage.gaussian_filter(noise, (0, 2, 2, 2)) * 12
    axis = np.linspace(-1, 1, SIZE[0])
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    ball = np.sqrt((z / 0.8) ** 2 + (y / 0.75) ** 2 + (x / 0.6) ** 2) < 1
    return np.where(ball, 3 + smooth, 0).astype(np.float32)


def moved(volume: np.ndarray, degrees: tuple[float, ...], shift: tuple[float, ...]) -> np.ndarray:
    turn = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    centre = (np.array(volume.shape) - 1) / 2
    offset = centre - turn @ (centre + np.array(shift))
    return ndimage.affine_transform(volume, turn, offset=offset, order=1)


def side(volumes: np.ndarray, groups: np.ndarray | None = None) -> VolumeSide:
    groups = np.arange(len(volumes)) if groups is None else groups
    return VolumeSide(
        take=lambda rows: volumes[rows],
        shape=SIZE,
        groups=groups,
        geometry=Geometry(np.full((len(volumes), 3), SIZE[0], np.float32), voxel_mm(len(volumes))),
    )


def test_in_place_it_is_pearsons_correlation_of_all_pairs() -> None:
    queries, references = bodies(5, 0), bodies(37, 1)
    queries[2] = 3 * references[20] + 1
    rows, scores = search(side(queries), side(references), level=Level.VOXEL, k=3)
    everything = np.corrcoef(queries.reshape(5, -1), references.reshape(37, -1))[:5, 5:]
    best = np.argsort(-everything, axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(rows, best)
    # Sums of n float32 products, one after the other, are off by about 2^-24 sqrt(n).
    noise = 2.0**-24 * np.sqrt(np.prod(SIZE))
    np.testing.assert_allclose(scores, np.take_along_axis(everything, best, 1), atol=4 * noise)
    assert rows[2, 0] == 20
    # And the root mean square difference of z-scored volumes follows from it.
    a, b = (v.ravel() for v in (queries[0], references[rows[0, 0]]))
    a, b = ((v - v.mean()) / v.std() for v in (a, b))
    assert np.sqrt(((a - b) ** 2).mean()) == pytest.approx(np.sqrt(2 - 2 * scores[0, 0]), abs=1e-3)


def test_an_original_is_found_in_any_pose_and_with_inverted_intensities(tmp_path: Path) -> None:
    references = bodies(24, 2)
    rows = np.arange(0, 24, 4)
    queries = [
        moved(references[rows[0]], (7, -5, 6), (3, -2, 1)),
        np.transpose(references[rows[1]], (2, 0, 1))[:, ::-1],
        moved(references[rows[2]], (25, 0, 10), (1, 0, 0)),
        references[rows[3]].max() - references[rows[3]],
        references[rows[4]][::-1, ::-1],
        np.sqrt(np.maximum(references[rows[5]], 0)),
    ]
    with journal(tmp_path) as kept:
        index = VolumeIndex.build(side(references), journal=kept)
    found = index.vote(side(np.stack(queries)))
    np.testing.assert_array_equal(found.evidence.argmax(1), rows)
    second = np.sort(found.evidence, 1)[:, -2]
    assert (found.evidence.max(1) > 3 * second).all()
    np.testing.assert_allclose(  # x_query = P x_reference, for what was permuted
        np.abs(found.matrix[1, rows[1]]), np.eye(3)[[2, 0, 1]], atol=0.08
    )
    # The coarse search is exact for axis poses, whatever the sign.
    assert (found.posed.argmax(1) == rows)[[1, 3, 4, 5]].all()


def test_volumes_of_the_same_person_are_left_out() -> None:
    references = bodies(6, 4)
    groups = np.array([0, 0, 1, 1, 2, 2])
    both = side(references, groups)
    found, _ = search(both, both, level=Level.VOXEL, k=5, apart=True)
    assert (found[:, 4] == -1).all()
    assert (groups[found[:, :4]] != groups[:, None]).all()
    assert all(len(set(row)) == 4 for row in found[:, :4])


def test_every_level_measures_the_pair_and_a_journal_resumes(tmp_path: Path) -> None:
    references = bodies(8, 5)
    queries = np.stack([moved(references[3], (4, -3, 5), (1.5, -1, 2)), bodies(1, 6)[0]])

    def whole(volumes: np.ndarray) -> VolumeSide:
        maps = vessel_labels(volumes)
        return VolumeSide(
            take=lambda rows: volumes[rows],
            shape=SIZE,
            groups=np.arange(len(volumes)),
            geometry=Geometry(np.full((len(volumes), 3), 32, np.float32), voxel_mm(len(volumes))),
            labels=lambda rows: maps[rows],
            occupancy=occupancies(lambda rows: maps[rows], len(volumes), (1,)),
        )

    settings = MatchSettings(labels=(1,), candidates=1)

    def matched(settings: MatchSettings) -> np.ndarray:
        with journal(tmp_path) as kept:
            there = Reference.of(whole(references), alignment=settings.alignment, journal=kept)
            return match_volumes(whole(queries), there, settings=settings, journal=kept)

    pairs = matched(settings)
    best = best_by_level(pairs, 2)
    assert set(best) == {Level.POINTS, Level.VOXEL, Level.SEGMENTATION}
    for level, measure, least in (
        (Level.POINTS, "points", 4.0),
        (Level.VOXEL, "body_ncc", 0.9),
        (Level.SEGMENTATION, "dice", 0.6),
    ):
        assert best[level]["reference"][0] == 3
        assert best[level][measure][0] > least > best[level][measure][1]
    truth = np.rad2deg(Rotation.from_euler("xyz", (4, -3, 5), degrees=True).magnitude())
    assert best[Level.VOXEL]["rotation_deg"][0] == pytest.approx(truth, abs=0.7)
    assert best[Level.VOXEL]["shift_mm"][0] == pytest.approx(2 * np.sqrt(7.25), abs=0.8)
    again = matched(settings)
    assert pairs.tobytes() == again.tobytes()
    still = MatchSettings(labels=(1,), alignment=Alignment.NONE)
    unmoved = matched(still)
    assert best_by_level(unmoved, 2)[Level.VOXEL]["ncc"][0] < 0.9


def test_every_measure_has_its_own_closest_volume() -> None:
    """By correlation the first reference is closer, by mean error the second one."""
    pairs = np.zeros(3, pair_dtype(()))
    pairs["query"], pairs["reference"] = [0, 0, 1], [4, 7, 4]
    pairs["body_ncc"], pairs["mae"] = [0.9, 0.8, 0.5], [0.3, 0.1, 0.7]
    pairs["cosine"] = [0.2, np.nan, np.nan]
    found = best_by_measure(pairs, 2)
    np.testing.assert_allclose(found[Level.VOXEL, "body_ncc"], [0.9, 0.5], atol=1e-6)
    np.testing.assert_allclose(found[Level.VOXEL, "mae"], [-0.1, -0.7], atol=1e-6)
    assert (Level.FEATURE, "cosine") not in found


def test_evidence_is_what_a_query_is_ahead_of_other_patients() -> None:
    pairs = np.zeros(4, pair_dtype(()))
    pairs["query"], pairs["reference"] = [0, 0, 0, 1], [4, 5, 7, 4]
    pairs["structure"], pairs["points"] = [0.9, 0.8, 0.5, 0.5], [8.0, 4.0, 2.0, np.nan]
    pairs["share"], pairs["exact"] = [0.3, 0.9, 0.9, np.nan], [0.5, 0.9, 0.9, np.nan]
    groups = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    voxel = best_of(pairs, groups, 3, Level.VOXEL)
    assert voxel is not None
    np.testing.assert_array_equal(voxel.row, [0, 3, -1])
    # The second row is the same patient's: the third is the first of another one.
    wanted = np.arctanh(0.9) + 0.5 * (np.arctanh(0.9) - np.arctanh(0.5))
    np.testing.assert_allclose(voxel.evidence[:2], [wanted, np.arctanh(0.5)], rtol=1e-6)
    points = best_of(pairs, groups, 3, Level.POINTS)
    assert points is not None
    np.testing.assert_allclose(points.evidence[0], np.log(8) + 0.5 * np.log(4), rtol=1e-6)
    assert np.isnan(points.evidence[1:]).all()
    # Neither nearly all of its points nor exactly: as second scans agree. No other level tells.
    assert not points.can_be_copy.any()
    np.testing.assert_array_equal(voxel.can_be_copy, [True, True, False])


def test_a_copy_has_most_of_its_points_or_agrees_in_detail() -> None:
    pairs = np.zeros(5, pair_dtype(()))
    pairs["share"] = [0.36, 0.46, 0.2, 0.3, np.nan]
    pairs["exact"] = [0.45, 0.3, 0.6, 0.3, np.nan]
    pairs["structure"] = [0.95, 0.6, 0.6, 0.98, 0.9]
    np.testing.assert_array_equal(
        can_be_copies(pairs, Level.POINTS), [False, True, True, True, False]
    )
    assert can_be_copies(pairs, Level.VOXEL).all()
