"""The search over transformations, and verification, on images moved by SciPy."""

import dataclasses
import sys

import jax
import numpy as np
import pytest
from scipy import ndimage

import deepssim_jax as ds
from deepssim_jax.ops import search_grid
from deepssim_jax.ops.batches import in_batches
from deepssim_jax.ops.intensity import zscore
from deepssim_jax.ops.search_grid import SearchGrid
from deepssim_jax.ops.transform import FLIP_NAMES, FLIP_SIGNS
from deepssim_jax.scoring import aligned, plant
from deepssim_jax.scoring.aligned import AlignedIndex
from deepssim_jax.scoring.candidates import candidates
from deepssim_jax.scoring.embed import features
from deepssim_jax.scoring.match import PAIR, best_matches, match
from deepssim_jax.scoring.retrieval import Proposals, Retrieval
from deepssim_jax.scoring.side import Side
from tests.kept import journal

SIZE, GRID = 64, SearchGrid()


def blobs(n: int, seed: int = 0) -> np.ndarray:
    """Smooth random images, all different."""
    rng = np.random.default_rng(seed)
    out = ndimage.gaussian_filter(rng.normal(size=(n, SIZE, SIZE)), (0, 3, 3))
    return (out / out.std((1, 2), keepdims=True)).astype(np.float32)


def moved(
    image: np.ndarray, *, degrees: float, zoom: float, shift: tuple[float, float], flip: bool
):
    """Turned, zoomed, moved and mirrored, the edge repeated."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    centre = (np.array(image.shape) - 1) / 2
    offset = centre - turn @ (centre + np.array(shift))
    out = ndimage.affine_transform(image, turn, offset=offset, order=1, mode="nearest")
    return out[:, ::-1] if flip else out


@jax.jit
def _low(images: jax.Array) -> jax.Array:
    return search_grid.low_resolution(zscore(images), grid=GRID)


def low(images: np.ndarray) -> np.ndarray:
    """So many at a time, however many there are, that one program serves all."""
    return in_batches(_low, images, size=20)


def copies_of(images: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack(
        [
            moved(
                image,
                degrees=rng.uniform(-12, 12),
                zoom=rng.uniform(0.9, 1.1),
                shift=tuple(rng.uniform(-4, 4, 2)),
                flip=bool(number % 2),
            )
            for number, image in enumerate(images)
        ]
    )


def test_the_original_is_first_whatever_was_done_to_the_copy() -> None:
    real = blobs(40)
    chosen = np.arange(0, 40, 3)
    found = ds.nearest_aligned(copies_of(real[chosen], 1), real, k=3)
    np.testing.assert_array_equal(found.indices[:, 0], chosen)
    assert found.scores[:, 0].min() > found.scores[:, 1].max()
    assert np.all(np.diff(found.scores, axis=1) <= 0)


@pytest.mark.parametrize("spread", [1.0, 0.03])
def test_bfloat16_candidates_end_in_the_float32_answer(spread: float) -> None:
    """References that bfloat16 cannot tell apart make the margin fail, and float32 decide."""
    rng = np.random.default_rng(3)
    one = blobs(1, 8)
    real = low(one + spread * blobs(300, 9)) if spread < 1 else low(blobs(300, 9))
    queries = low(one + 0.3 * rng.normal(size=(8, SIZE, SIZE)).astype(np.float32))
    index = AlignedIndex.build(real)
    features_of = aligned._features(queries, index.basis, grid=GRID)
    labels = np.full(8, -2, np.int32)
    found = [
        aligned._search_tile(
            features_of, index.tiles[0], index.groups[0], labels, k=3, chunk=chunk, half=half
        )
        for half, chunk in ((False, aligned._chunk(GRID)), (True, 49))
    ]
    np.testing.assert_array_equal(found[0][1], found[1][1])
    np.testing.assert_allclose(found[0][0], found[1][0], atol=1e-6)


def test_a_chunk_is_whole_poses() -> None:
    for grid in (GRID, SearchGrid(rotations=13, scales=4), SearchGrid(max_shift=0.4)):
        chunk = aligned._chunk(grid)
        assert chunk % len(grid.shifts) == 0
        assert grid.transformations % chunk == 0
        assert chunk <= max(512, len(grid.shifts))


def test_every_pair_has_its_exact_maximum_over_the_grid() -> None:
    """With as many components as pixels the index equals the direct search of each pair."""
    queries, real = low(blobs(3, 5)), low(blobs(4, 6))
    pixels = int(search_grid.disc(GRID).sum())
    found = AlignedIndex.build(real, components=pixels).search(queries, k=4)
    vectors = np.asarray(jax.jit(lambda x: search_grid.disc_vectors(x, grid=GRID))(real))
    mirrored = np.stack([queries[:, ::y, ::x] for y, x in FLIP_SIGNS.astype(int)], 1)
    posed = jax.jit(lambda x: search_grid.posed(x, grid=GRID))
    frames = np.asarray(posed(mirrored.reshape(-1, 32, 32)))
    versions = frames[:, :, search_grid.window_indices(GRID)]
    versions = versions.reshape(3, -1, *versions.shape[2:])
    versions = versions - versions.mean(-1, keepdims=True)
    versions /= np.linalg.norm(versions, axis=-1, keepdims=True)
    direct = np.einsum("qpsx,rx->qrps", versions, vectors).reshape(3, 4, -1)
    for q in range(3):
        order = np.argsort(-direct[q].max(-1))
        np.testing.assert_array_equal(found.indices[q], order)
        np.testing.assert_allclose(found.scores[q], direct[q].max(-1)[order], atol=1e-4)
        np.testing.assert_array_equal(found.transforms[q], direct[q].argmax(-1)[order])


def test_neither_tiles_nor_order_nor_blocks_show(monkeypatch) -> None:
    queries, real = low(blobs(11, 1)), low(blobs(300, 2))
    whole = AlignedIndex.build(real).search(queries, k=5)
    backwards = AlignedIndex.build(real).search(queries[::-1], k=5)
    monkeypatch.setattr(aligned, "_REFERENCE_TILE", 128)
    tiled = AlignedIndex.build(real).search(queries, k=5)
    for name in ("indices", "transforms"):
        np.testing.assert_array_equal(getattr(tiled, name), getattr(whole, name))
        np.testing.assert_array_equal(getattr(backwards, name)[::-1], getattr(whole, name))
    np.testing.assert_allclose(tiled.scores, whole.scores, atol=1e-5)


def test_groups_are_left_out() -> None:
    real = low(blobs(12))
    groups = np.arange(12) // 3
    index = AlignedIndex.build(real, groups=groups)
    found = index.search(real, k=9, groups=groups)
    assert not np.any(groups[found.indices] == groups[:, None])
    plain = AlignedIndex.build(real).search(real, k=1)
    np.testing.assert_array_equal(plain.indices[:, 0], np.arange(12))
    short = index.search(real[:1], k=12, groups=groups[:1])
    assert (short.scores[0] == -2).sum() == 3


def test_a_changed_region_does_not_hide_the_original() -> None:
    real = blobs(200)
    y, x = np.mgrid[:SIZE, :SIZE]
    region = (y - 30) ** 2 + (x - 38) ** 2 < 14**2
    # The region comes from someone else, twice as strong: it rules every correlation.
    synthetic = np.where(region, 2 * np.roll(real[:20], 1, axis=0), real[:20])
    index = AlignedIndex.build(low(real), grid=GRID)
    found = index.search(low(synthetic), k=64)
    likely = aligned.most_likely(found, low(synthetic), low(real), keep=2, grid=GRID)
    own = np.arange(20)[:, None]
    assert (found.indices == own).any(1).all()
    before, after = ((x[:, :2] == own).any(1).sum() for x in (found.indices, likely.indices))
    assert after >= before + 4
    assert (np.diff(likely.scores) <= 0).all() and likely.indices.shape == (20, 2)
    for row in range(20):  # index and transformation stay together
        place = list(found.indices[row]).index(likely.indices[row, 0])
        assert likely.transforms[row, 0] == found.transforms[row, place]
    few = aligned.most_likely(
        dataclasses.replace(found, scores=np.full_like(found.scores, -2.0)),
        low(synthetic),
        low(real),
        keep=3,
    )
    assert (few.scores == -2.0).all()  # absent ones stay absent


def test_a_wrong_size_says_how_to_make_it() -> None:
    with pytest.raises(ValueError, match="low_resolution"):
        AlignedIndex.build(blobs(2))


def test_verification_recovers_the_transformation() -> None:
    real = blobs(6, 3)
    synthetic = np.stack([moved(x, degrees=8, zoom=1.05, shift=(2, -3), flip=True) for x in real])
    found = ds.verify_pairs(synthetic, real)
    assert found.score.min() > 0.95
    assert {FLIP_NAMES[i] for i in found.flip} == {"horizontal"}
    np.testing.assert_allclose(np.abs(found.rotation_deg), 8, atol=0.5)
    np.testing.assert_allclose(found.scale, 1.05, atol=0.01)
    strangers = ds.verify_pairs(synthetic, np.roll(real, 1, axis=0))
    assert strangers.score.max() < 0.8


def test_a_pair_scores_the_same_alone_and_in_any_company() -> None:
    real, synthetic = blobs(35, 3), copies_of(blobs(35, 3), 4)
    together = ds.verify_pairs(synthetic, real)
    alone = ds.verify_pairs(synthetic[33:34], real[33:34])
    assert alone.score[0] == pytest.approx(float(together.score[33]), abs=1e-5)
    np.testing.assert_allclose(alone.shift[0], together.shift[33], atol=1e-3)


def test_equal_images_score_one_and_flat_ones_nothing() -> None:
    real = blobs(2)
    real[1] = 5.0
    found = ds.verify_pairs(real, real)
    assert found.score[0] == pytest.approx(1.0, abs=1e-3)
    assert found.score[1] == 0.0


def test_planted_copies_are_what_they_are_called() -> None:
    real = blobs(16)
    exact = plant.exact_copies(real, seed=0)
    near = plant.near_copies(real, np.roll(real, 1, axis=0), seed=0)
    np.testing.assert_array_equal(exact, plant.exact_copies(real, seed=0))
    scores = [ds.verify_pairs(x, real).score for x in (exact, near, np.roll(exact, 1, axis=0))]
    assert np.median(scores[0]) > 0.97
    assert np.median(scores[1]) < np.median(scores[0])
    assert np.median(scores[2]) < np.median(scores[1])


def side(images: np.ndarray, groups: np.ndarray | None = None) -> Side:
    embeddings, small = features(images, ds.load_encoder("default"))
    return Side(take=lambda rows: images[rows], low=small, embeddings=embeddings, groups=groups)


def test_matching_goes_on_where_it_stopped_and_keeps_its_bytes(tmp_path, monkeypatch) -> None:
    """In two blocks, smaller than usual."""
    monkeypatch.setattr(sys.modules[match.__module__], "BLOCK", 16)
    real = blobs(12)
    synthetic = np.concatenate([copies_of(real, 7), blobs(12, 8)])
    asked, told = side(synthetic), []
    with journal(tmp_path / "a") as kept:
        whole = match(asked, side(real), journal=kept)
    best = best_matches(whole, len(synthetic))
    np.testing.assert_array_equal(best["reference"][:12], np.arange(12))

    def stop(done: int, total: int, what: str) -> None:
        told.append(done)
        if len(told) == 1:
            raise KeyboardInterrupt

    for attempt in range(2):
        with journal(tmp_path / "b") as kept:
            if not attempt:
                with pytest.raises(KeyboardInterrupt):
                    match(asked, side(real), journal=kept, on_progress=stop)
            else:
                again = match(asked, side(real), journal=kept, on_progress=stop)
    np.testing.assert_array_equal(again, whole)
    assert whole.dtype == PAIR
    keys = list(zip(whole["query"], -whole["verified"], whole["reference"]))
    assert keys == sorted(keys)


def test_a_patient_with_3000_images_hides_nobody() -> None:
    """All of them are nearer to the patient's other images than anyone else's are."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3050, 16)).astype(np.float32)
    rows[:3000] = rows[0] + 0.01 * rows[:3000]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    groups = np.concatenate([np.zeros(3000, np.int32), np.arange(1, 51, dtype=np.int32)])
    side = Side(
        take=lambda rows: np.zeros((len(rows), 2, 2)),
        low=np.zeros((3050, 2, 2), np.float32),
        embeddings=rows,
        groups=groups,
    )
    asked = np.array([0, 1700, 3010])
    found = candidates(
        side.rows(asked), side, index=None, proposals=Retrieval.ENCODER.proposals, apart=True
    )
    exact = rows[asked].astype(float) @ rows.T.astype(float)
    exact[groups[asked][:, None] == groups[None]] = -np.inf
    for number, order in enumerate(np.argsort(-exact, axis=1)[:, :16]):
        assert {r for q, r in found if q == number} == set(order.tolist())


def test_apart_leaves_the_own_patient_out(tmp_path) -> None:
    real = blobs(12)
    groups = (np.arange(12) // 2).astype(np.int32)
    one = side(real, groups)
    with journal(tmp_path) as kept:
        pairs = match(one, one, journal=kept, apart=True, proposals=Proposals(3, 1, 1, 2))
    assert len(pairs) and not np.any(groups[pairs["query"]] == groups[pairs["reference"]])
    with journal(tmp_path) as kept, pytest.raises(ValueError, match="groups"):
        match(dataclasses.replace(one, groups=None), one, journal=kept, apart=True)


@pytest.mark.parametrize("retrieval", [Retrieval.ENCODER, Retrieval.ALIGNED, Retrieval.BOTH])
def test_every_way_of_retrieval_ends_in_the_same_scores(tmp_path, retrieval) -> None:
    real = blobs(24)
    with journal(tmp_path) as kept:
        pairs = match(
            side(copies_of(real, 3)), side(real), journal=kept, proposals=retrieval.proposals
        )
    best = best_matches(pairs, len(real))
    np.testing.assert_array_equal(best["reference"], np.arange(len(real)))
    assert best["verified"].min() > 0.9
    asked = retrieval.proposals
    assert len(pairs) <= len(real) * (asked.aligned + asked.likely + asked.in_place + asked.encoder)
    again = ds.verify_pairs(copies_of(real, 3), real).score
    np.testing.assert_allclose(best["verified"], again, atol=0.02)


def test_auto_is_the_thorough_search_until_there_are_too_many_pairs() -> None:
    assert Retrieval.AUTO.resolved(pairs=65_850 * 2_195, local_features=False) is Retrieval.BOTH
    assert Retrieval.AUTO.resolved(pairs=10**11, local_features=False) is Retrieval.ENCODER
    assert Retrieval.AUTO.resolved(pairs=1, local_features=True) is Retrieval.LOCAL
    assert Retrieval.ALIGNED.resolved(pairs=10**12, local_features=True) is Retrieval.ALIGNED


def test_best_matches_of_queries_without_a_pair() -> None:
    pairs = np.zeros(2, PAIR)
    pairs["query"], pairs["reference"], pairs["verified"] = 1, [4, 5], [0.9, 0.2]
    best = best_matches(pairs, 3)
    assert best["reference"].tolist() == [-1, 4, -1]
    assert best["verified"].tolist() == [-1.0, pytest.approx(0.9), -1.0]


def test_another_number_of_pairs_compiles_nothing(caplog) -> None:
    real = blobs(11, 4)
    ds.verify_pairs(real[:9], real[:9])
    with jax.log_compiles():
        ds.verify_pairs(real, real)
    assert not [record.getMessage() for record in caplog.records if "Compiling" in record.msg]
    with jax.log_compiles():  # and this would be seen
        jax.jit(lambda x: x + 3)(np.float32(1))
    assert [record for record in caplog.records if "Compiling" in record.msg]
