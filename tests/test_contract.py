"""What every index promises, whatever it compares: one list of problems, and each index solves all of it.

Identity has the largest score. Order, blocks and the number of devices change nothing. One image a patient
is enough. Images of an excluded patient never appear, and all others can.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage

from deepssim_jax import parallel
from deepssim_jax.features.matching import PointIndex
from deepssim_jax.ops import search_grid
from deepssim_jax.ops.intensity import zscore
from deepssim_jax.ops.search_grid import SearchGrid
from deepssim_jax.ops.volume_grid import Geometry
from deepssim_jax.scoring.aligned import AlignedIndex
from deepssim_jax.scoring.in_place import nearest_in_place
from deepssim_jax.scoring.pairs import nearest
from deepssim_jax.scoring.volume_search import Level, VolumeSide, search

N = 12
Groups = tuple[np.ndarray, np.ndarray] | None
Found = tuple[np.ndarray, np.ndarray]


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, *shape)).astype(np.float32)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def small_images() -> np.ndarray:
    images = ndimage.gaussian_filter(drawn(64, 64), (0, 3, 3))
    return np.asarray(search_grid.low_resolution(zscore(images), grid=SearchGrid()))


def volumes() -> np.ndarray:
    return ndimage.gaussian_filter(drawn(16, 16, 16), (0, 2, 2, 2))


def by_embedding(queries: np.ndarray, references: np.ndarray, groups: Groups) -> Found:
    found = nearest(queries, references, k=N, groups=groups)
    return found.indices, found.scores


def by_transformation(queries: np.ndarray, references: np.ndarray, groups: Groups) -> Found:
    own, theirs = groups or (None, None)
    found = AlignedIndex.build(references, groups=theirs).search(queries, k=N, groups=own)
    return found.indices, found.scores


def in_place(queries: np.ndarray, references: np.ndarray, groups: Groups) -> Found:
    found = nearest_in_place(queries, references, k=N, groups=groups)
    return found.indices, found.scores


def by_local_features(queries: np.ndarray, references: np.ndarray, groups: Groups) -> Found:
    own, theirs = groups or (None, np.arange(len(references)))
    index = PointIndex.build(references, np.ones(references.shape[-1], np.float32), theirs)
    found = index.rank(queries, count=2 * N, exclude=own)
    # An image has two places, one for its mirror image: its better one counts.
    rows, scores = np.full((len(queries), N), -1), np.full((len(queries), N), -1.0)
    for i, images in enumerate(found.images):
        firsts = np.sort(np.unique(images, return_index=True)[1])
        firsts = firsts[images[firsts] >= 0]
        rows[i, : len(firsts)] = images[firsts]
        scores[i, : len(firsts)] = found.scores[i, firsts]
    return rows, scores


def by_voxels(queries: np.ndarray, references: np.ndarray, groups: Groups) -> Found:
    labels = groups or (np.arange(len(queries)), np.arange(len(references)))

    def side(items: np.ndarray, own: np.ndarray) -> VolumeSide:
        geometry = Geometry(
            np.full((len(items), 3), 16, np.float32), np.ones(len(items), np.float32)
        )
        return VolumeSide(lambda rows: items[rows], (16, 16, 16), own, geometry)

    pair = [side(*both) for both in zip((queries, references), labels, strict=True)]
    return search(*pair, level=Level.VOXEL, k=N, apart=groups is not None)


@dataclasses.dataclass(frozen=True)
class Index:
    """N things that can be looked up, how, and the score of a thing with itself."""

    items: Callable[[], np.ndarray]
    find: Callable[[np.ndarray, np.ndarray, Groups], Found]
    own: float = 1.0

    def __call__(
        self, queries: np.ndarray, references: np.ndarray, groups: Groups = None
    ) -> np.ndarray:
        """The score of each query with each reference, [n, N]; NaN where it was not found."""
        rows, scores = map(np.asarray, self.find(queries, references, groups))
        assert (np.diff(scores, axis=1) <= 0).all()  # best first
        table = np.full((len(queries), N), np.nan)
        there = scores > -1  # of what is not there an index gives a number of its own, -1 or -2
        table[np.nonzero(there)[0], rows[there]] = scores[there]
        return table


INDEXES = {
    "embedding": Index(lambda: unit(drawn(24)), by_embedding),
    "transformation": Index(small_images, by_transformation),
    "in place": Index(small_images, in_place),
    "local features": Index(lambda: unit(drawn(20, 16)), by_local_features, own=20.0),
    "voxels": Index(volumes, by_voxels),
}


@pytest.fixture(scope="module", params=INDEXES)
def case(request) -> tuple[Index, np.ndarray, np.ndarray]:
    """An index, its things, and the scores of each with all."""
    index = INDEXES[request.param]
    items = index.items()
    return index, items, index(items, items)


def same(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_everything_finds_itself_first(case) -> None:
    index, _, table = case
    np.testing.assert_array_equal(table.argmax(1), np.arange(N))
    # In place, flat parts of an image are held down a little: see `scoring.in_place`.
    np.testing.assert_allclose(np.diagonal(table), index.own, rtol=0.02)
    assert table[~np.eye(N, dtype=bool)].max() < 0.98 * index.own  # and all are there


def test_order_changes_nothing(case) -> None:
    index, items, table = case
    order = np.random.default_rng(1).permutation(N)
    same(index(items[order], items[order]), table[np.ix_(order, order)])


def test_blocks_change_nothing(case) -> None:
    index, items, table = case
    parts = [index(items[start:stop], items) for start, stop in ((0, 5), (5, 6), (6, N))]
    same(np.concatenate(parts), table)


def test_the_number_of_devices_changes_nothing(case, monkeypatch: pytest.MonkeyPatch) -> None:
    index, items, table = case
    alone = parallel.data_mesh(1)
    for name in ("data_mesh", "own_mesh"):
        monkeypatch.setattr(parallel, name, lambda *how, **more: alone)
    same(index(items, items), table)


def test_one_image_a_patient_is_enough(case) -> None:
    index, items, table = case
    found = index(items, items, (np.arange(N), np.arange(N)))
    np.testing.assert_array_equal(np.isnan(found), np.eye(N, dtype=bool))
    if index.own == 1:  # what is common among local features is asked of other patients alone
        same(found, np.where(np.eye(N), np.nan, table))


def test_excluded_patients_never_appear_and_all_others_do(case) -> None:
    index, items, _ = case
    groups = np.arange(N) % 4
    found = index(items, items, (groups, groups))
    np.testing.assert_array_equal(np.isnan(found), groups[:, None] == groups)
