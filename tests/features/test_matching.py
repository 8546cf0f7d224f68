"""All pairs and geometry: known maps are found again, and nothing depends on tiles or order."""

import numpy as np
import pytest

from deepssim_jax.features import basis, matching
from deepssim_jax.features.matching import PointIndex
from deepssim_jax.scoring.points import SIDE, LocalIndex, PointSet

N, K = 40, 24


@pytest.fixture(scope="module")
def descriptors() -> np.ndarray:
    z = np.random.default_rng(0).normal(size=(N, K, 16)).astype(np.float32)
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


SIGNS = np.where(np.arange(16) < 10, 1, -1).astype(np.float32)


def test_an_image_and_its_mirror_image_are_found(descriptors) -> None:
    index = PointIndex.build(descriptors, SIGNS, np.arange(N))
    found = index.rank(np.concatenate([descriptors[3:5], descriptors[7:8] * SIGNS]), count=4)
    assert found.images[:, 0].tolist() == [3, 4, 7]
    assert found.mirrored[:, 0].tolist() == [False, False, True]
    np.testing.assert_allclose(found.scores[:, 0], K, rtol=1e-5)


def test_scores_are_those_of_the_definition(descriptors) -> None:
    index = PointIndex.build(descriptors, SIGNS, np.arange(N))
    query = descriptors[0] + 0.3 * descriptors[1]
    query /= np.linalg.norm(query, axis=-1, keepdims=True)
    found = index.rank(query[None], count=2 * N)
    best = np.stack(
        [np.einsum("kd,njd->knj", q, descriptors).max(2) for q in (query, query * SIGNS)], 1
    )
    common = np.clip(np.sort(best.max(1), 1)[:, -matching.COMMON], 0.7, 0.999)
    weight = np.maximum(1 - (1 - best) / (1 - common)[:, None, None], 0)
    expected = weight.sum(0)
    np.testing.assert_allclose(
        found.scores[0], expected[found.mirrored[0].astype(int), found.images[0]], atol=1e-4
    )
    np.testing.assert_allclose(found.scores[0], np.sort(expected.ravel())[::-1], atol=1e-4)


def test_excluded_patients_never_appear_and_fewer_images_leave_places_empty(descriptors) -> None:
    index = PointIndex.build(descriptors[:5], SIGNS, np.array([0, 0, 1, 1, 2]))
    found = index.rank(descriptors[:2], count=12, exclude=np.array([0, 1]))
    assert set(found.images[0].tolist()) == {2, 3, 4, -1}
    assert set(found.images[1].tolist()) == {0, 1, 4, -1}


def test_one_query_of_many_tiles_is_shared_among_workers(descriptors, monkeypatch) -> None:
    monkeypatch.setattr(matching, "_tile", lambda: 8)
    twice = np.concatenate([descriptors, descriptors])  # ties, in both parts
    usual = PointIndex.build(twice, SIGNS, np.arange(2 * N)).rank(descriptors[:1], count=6)
    monkeypatch.setattr(matching, "_MANY_TILES", 2)
    index = PointIndex.build(twice, SIGNS, np.arange(2 * N))
    found = index.rank(descriptors[:1], count=6)
    assert [first for first, *_ in index._parts] == [0, 5]
    np.testing.assert_array_equal(found.images, usual.images)
    np.testing.assert_array_equal(found.mirrored, usual.mirrored)
    np.testing.assert_array_equal(found.scores, usual.scores)


@pytest.mark.parametrize("tile", [8, 64])
def test_tiles_change_nothing(descriptors, monkeypatch, tile: int) -> None:
    usual = PointIndex.build(descriptors, SIGNS, np.arange(N)).rank(descriptors[:3], count=6)
    monkeypatch.setattr(matching, "_tile", lambda: tile)
    found = PointIndex.build(descriptors, SIGNS, np.arange(N)).rank(descriptors[:3], count=6)
    np.testing.assert_array_equal(found.images, usual.images)
    np.testing.assert_allclose(found.scores, usual.scores, atol=1e-5)


def _points(rng: np.random.Generator, count: int, k: int = 64) -> PointSet:
    geometry = np.zeros((count, k, 6), np.float32)
    geometry[..., :2] = rng.uniform(-90, 90, (count, k, 2))
    geometry[..., 2] = rng.uniform(2, 8, (count, k))
    geometry[..., 3] = rng.uniform(-np.pi, np.pi, (count, k))
    geometry[..., 4] = rng.choice([-1, 1], (count, k))
    geometry[..., 5] = 1
    return PointSet(geometry, rng.integers(0, 120, (count, k, 128)).astype(np.uint8))


@pytest.fixture(scope="module")
def index() -> tuple[LocalIndex, PointSet]:
    references = _points(np.random.default_rng(1), 20)
    return LocalIndex.build(references, np.arange(20)), references


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("negative", [False, True])
def test_a_known_map_is_found_again(index, mirrored: bool, negative: bool) -> None:
    """Image 6 turned by 100 degrees, zoomed by 0.7 and moved: its points say how."""
    local, references = index
    query = references.rows(np.array([6]))
    angle, zoom, move = np.deg2rad(100), 0.7, np.array([4.0, -9.0])
    matrix = zoom * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    geometry = query.geometry.copy()
    geometry[..., :2] = geometry[..., :2] @ matrix.T + move
    geometry[..., 2] *= zoom
    geometry[..., 3] += angle
    values = query.descriptors
    if negative:
        geometry[..., 4] *= -1
    if mirrored:
        from deepssim_jax.features.descriptors import mirrored as permutation

        geometry[..., 1] *= -1
        geometry[..., 3] = np.pi - geometry[..., 3]
        values = values[..., permutation()]
    found = local.search(PointSet(geometry, values))
    assert found.reference[0, 0] == 6 and found.evidence[0, 0] > 1
    assert bool(found.negative[0, 0]) == negative and found.flip[0, 0] == int(mirrored)
    np.testing.assert_allclose(found.matrix[0, 0], matrix, atol=0.01)
    np.testing.assert_allclose(found.shift[0, 0] * SIDE, move, atol=0.3)


def test_chance_is_no_evidence(index) -> None:
    local, _ = index
    found = local.search(_points(np.random.default_rng(2), 6))
    assert (found.evidence[:, 0] < 0.7).all()


def test_no_query_finds_nothing(index) -> None:
    local, references = index
    none = local.search(references.rows(np.arange(0)))
    assert none.reference.shape == (0, 2) and none.matrix.shape == (0, 2, 2, 2)


def test_block_size_and_order_change_nothing(index) -> None:
    local, references = index
    whole = local.search(references)
    part = local.search(references.rows(np.arange(20)[::-1][:7]))
    np.testing.assert_array_equal(part.reference, whole.reference[::-1][:7])
    np.testing.assert_allclose(part.evidence, whole.evidence[::-1][:7], atol=1e-5)


def test_a_basis_keeps_most_of_the_cosine_and_mirrors_by_signs() -> None:
    from deepssim_jax.features.descriptors import mirrored as permutation

    rng = np.random.default_rng(3)
    mixed = np.abs(rng.normal(size=(6, 128)))
    d = np.abs(rng.normal(size=(30, 50, 6)) @ mixed).astype(np.float32)
    d /= np.linalg.norm(d, axis=-1, keepdims=True)
    valid = np.ones((30, 50), bool)
    learned = basis.learn(d.reshape(-1, d.shape[-1])[basis.sample_points(valid)], even=40, odd=24)
    z, turned = (learned.project(x, valid) for x in (d, d[..., permutation()]))
    np.testing.assert_allclose(turned, z * learned.signs, atol=1e-4)
    np.testing.assert_allclose(learned.axes.T @ learned.axes, np.eye(64), atol=1e-4)


def test_points_say_whether_an_image_can_be_compared() -> None:
    rng = np.random.default_rng(4)
    full, few, crowded, faint = (_points(rng, 1, 80) for _ in range(4))
    few.geometry[:, 11:, 5] = 0
    crowded.geometry[..., :2] *= 0.05
    faint.geometry[..., 5] = 0.002  # steps of 8-bit levels
    images = (full, few, crowded, faint)
    assert [bool(p.comparable[0]) for p in images] == [True, False, False, False]


def test_what_stands_twice_is_not_common(descriptors) -> None:
    twice = np.concatenate([descriptors, descriptors])
    people = np.tile(np.arange(N), 2)
    found = PointIndex.build(twice, SIGNS, people).rank(descriptors, count=2)
    np.testing.assert_array_equal(np.sort(found.images % N, 1), np.arange(N)[:, None].repeat(2, 1))
    alone = PointIndex.build(descriptors, SIGNS, np.arange(N)).rank(descriptors, count=1)
    np.testing.assert_allclose(found.scores[:, :1], alone.scores, atol=1e-5)


def test_a_match_that_lies_exactly_counts_four_times_one_that_is_merely_near(index) -> None:
    """Points moved by 4 pixels each in its own direction, far beyond 0.5 + 0.2 sigma, count a quarter."""
    local, references = index
    query = references.rows(np.array([6]))
    geometry = query.geometry.copy()
    geometry[..., 2] = 2.0
    exact = LocalIndex.build(
        PointSet(np.where(np.arange(6) == 2, 2.0, references.geometry), references.descriptors),
        np.arange(20),
    )
    whole = exact.search(PointSet(geometry, query.descriptors)).points[0, 0]
    turn = np.random.default_rng(5).uniform(0, 2 * np.pi, geometry.shape[1])
    geometry[0, :, :2] += 4.0 * np.stack([np.sin(turn), np.cos(turn)], -1)
    near = exact.search(PointSet(geometry, query.descriptors))
    assert near.reference[0, 0] == 6 and local.first.points == 64
    assert near.points[0, 0] / whole == pytest.approx(0.25, abs=0.06)


def test_a_few_exact_points_of_another_image_are_evidence(index) -> None:
    """Ten of an image's 64 points among those of another one: chance does not come near."""
    local, references = index
    rng = np.random.default_rng(6)
    query = _points(rng, 1)
    part = rng.choice(64, 10, replace=False)
    geometry, values = query.geometry.copy(), query.descriptors.copy()
    geometry[0, part], values[0, part] = (
        references.geometry[3, part],
        references.descriptors[3, part],
    )
    found = local.search(PointSet(geometry, values))
    chance = local.search(_points(np.random.default_rng(2), 6)).evidence[:, 0].max()
    assert found.reference[0, 0] == 3
    assert found.evidence[0, 0] > chance + 0.3


def test_more_points_are_looked_at_among_few_images(monkeypatch) -> None:
    references = _points(np.random.default_rng(1), 6, k=160)
    assert LocalIndex.build(references, np.arange(6)).first.points == 128
    monkeypatch.setattr("deepssim_jax.scoring.points._MANY_IMAGES", 5)
    assert LocalIndex.build(references, np.arange(6)).first.points == 64
