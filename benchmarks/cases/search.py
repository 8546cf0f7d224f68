"""Exact cosine search, the aligned search and registration."""

import importlib.util

import numpy as np
from scipy import ndimage

from benchmarks.cases.case import Case, Peer
from deepssim_jax.ops import search_grid
from deepssim_jax.ops.intensity import zscore
from deepssim_jax.ops.registration import register
from deepssim_jax.ops.search_grid import SearchGrid
from deepssim_jax.scoring.aligned import AlignedIndex
from deepssim_jax.scoring.pairs import nearest as find_nearest


def _unit(n: int, seed: int, dim: int = 256) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, dim), np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _blobs(n: int, size: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return ndimage.gaussian_filter(rng.normal(size=(n, size, size)), (0, 3, 3)).astype(np.float32)


def nearest(scale: float) -> Case:
    """Top-10 of 256 dimensions, 65,850 synthetic and 2,195 real embeddings: the study's size."""
    queries, references = _unit(int(65_850 * scale), 0), _unit(2_195, 1)

    def ours() -> np.ndarray:
        return find_nearest(queries, references, k=10).indices

    def check() -> None:
        rows = np.arange(0, len(queries), max(1, len(queries) // 200))
        exact = queries[rows].astype(np.float64) @ references.astype(np.float64).T
        found = find_nearest(queries[rows], references, k=10).indices
        np.testing.assert_array_equal(found, np.argsort(-exact, axis=1, kind="stable")[:, :10])

    peers = {}
    if importlib.util.find_spec("faiss"):

        def faiss_search() -> np.ndarray:
            import faiss

            index = faiss.IndexFlatIP(references.shape[1])
            index.add(references)
            return index.search(queries, 10)[1]

        peers["faiss"] = Peer(faiss_search, queries.shape[0] * len(references))
    pairs = queries.shape[0] * len(references)
    return Case("nearest", "pairs", pairs, ours, check, peers, 2.0 * pairs * 256)


def aligned(scale: float) -> Case:
    """Best correlation over the audit's grid of transformations, 2,195 references."""
    grid, count = SearchGrid(), max(8, int(64 * scale))
    real = np.asarray(search_grid.low_resolution(zscore(_blobs(2_195, 32, 0)), grid=grid))
    synthetic = np.asarray(search_grid.low_resolution(zscore(_blobs(count, 32, 1)), grid=grid))
    index = AlignedIndex.build(real, grid=grid)

    def ours() -> np.ndarray:
        return index.search(synthetic, k=4).indices

    def check() -> None:
        np.testing.assert_array_equal(index.search(real[:8], k=1).indices[:, 0], np.arange(8))

    components, pixels = index.basis.shape[1], index.basis.shape[0]
    flops = 2.0 * count * grid.transformations * components * (pixels + len(real))
    return Case("aligned", "pairs", count * len(real), ours, check, {}, flops)


def registration(scale: float) -> Case:
    """128 x 128, global search included."""
    count = max(32, int(128 * scale))
    fixed = _blobs(count, 128, 0)
    moving = np.stack([ndimage.rotate(x, 7, reshape=False, order=1, mode="nearest") for x in fixed])

    def ours() -> np.ndarray:
        return np.asarray(register(moving, fixed).transform.rotation_deg)

    def check() -> None:
        np.testing.assert_allclose(np.abs(ours()), 7, atol=0.5)

    return Case("registration", "pairs", count, ours, check, {})
