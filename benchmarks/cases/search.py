"""Exact cosine search, its histogram, the aligned search and registration."""

import functools
import importlib.util

import jax
import numpy as np
from scipy import ndimage

from benchmarks.cases.case import Case, Peer
from deepssim_jax import parallel
from deepssim_jax.ops import search_grid
from deepssim_jax.ops.intensity import zscore
from deepssim_jax.ops.registration import register
from deepssim_jax.ops.search_grid import SearchGrid
from deepssim_jax.scoring import pairs
from deepssim_jax.scoring.aligned import AlignedIndex
from deepssim_jax.scoring.tiles import Tiling

_DIM = 256


def _unit(n: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, _DIM), np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _blobs(n: int, size: int, seed: int) -> np.ndarray:
    """Smooth noise that keeps its detail relative to the frame."""
    noise = np.random.default_rng(seed).normal(size=(n, size, size))
    return ndimage.gaussian_filter(noise, (0, size / 25, size / 25)).astype(np.float32)


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _nearest(name: str, n: int, m: int) -> Case:
    queries, references = _unit(n, 0), _unit(m, 1)

    def ours() -> np.ndarray:
        return pairs.nearest(queries, references, k=10).indices

    def check() -> None:
        rows = np.linspace(0, n - 1, min(n, 100)).astype(int)
        exact = queries[rows].astype(np.float64) @ references.T.astype(np.float64)
        best = -np.sort(-exact, axis=1)[:, :10]
        found = np.take_along_axis(exact, ours()[rows].astype(int), axis=1)
        np.testing.assert_allclose(found, best, atol=1e-6)

    peers = {}
    if _has("faiss"):
        import faiss

        index = faiss.IndexFlatIP(_DIM)
        index.add(references)
        peers["faiss"] = Peer(lambda: index.search(queries, 10)[1], n * m)
    if _has("sklearn") and n * m <= 2e8:
        from sklearn.neighbors import NearestNeighbors

        model = NearestNeighbors(n_neighbors=10, metric="cosine", algorithm="brute").fit(references)
        peers["sklearn"] = Peer(lambda: model.kneighbors(queries)[1], n * m)
    half = Tiling.best(jax.default_backend(), queries=n, k=10).half
    flops, moved = 2.0 * n * m * _DIM, 4.0 * (n + m) * _DIM
    return Case(name, "pairs", n * m, ours, check, peers, flops, moved, half)


def nearest_study(scale: float) -> Case:
    """The study's size: 65,850 synthetic and 2,195 real embeddings."""
    return _nearest("nearest_study", int(65_850 * scale), 2_195)


def nearest_one(scale: float) -> Case:
    """64 images against 100,000."""
    return _nearest("nearest_one", 64, int(100_000 * scale))


def nearest_square(scale: float) -> Case:
    """20,000 against 20,000."""
    return _nearest("nearest_square", int(20_000 * scale), int(20_000 * scale))


def nearest_large(scale: float) -> Case:
    """200,000 references; of as many queries, which are independent, the first 10,000."""
    return _nearest("nearest_large", int(10_000 * scale), int(200_000 * scale))


def histogram(scale: float) -> Case:
    """All cosines of 20,000 against 10,000 in 200 bins."""
    n, m = int(20_000 * scale), int(10_000 * scale)
    queries, references = _unit(n, 0), _unit(m, 1)

    def ours() -> np.ndarray:
        return pairs.histogram(queries, references).counts

    def numpy_histogram(rows: int) -> np.ndarray:
        return np.histogram(queries[:rows] @ references.T, bins=200, range=(-1, 1))[0]

    def check() -> None:
        few = pairs.histogram(queries[:500], references).counts
        # A pair on an edge may fall on either side, in float32.
        assert np.abs(few - numpy_histogram(500)).sum() <= 1e-4 * 500 * m
        assert ours().sum() == n * m

    peers = {"numpy": Peer(lambda: numpy_histogram(1000), 1000 * m)}
    return Case("histogram", "pairs", n * m, ours, check, peers, 2.0 * n * m * _DIM)


def aligned(scale: float) -> Case:
    """10,192 transformations, 2,195 references, beside the same search by FFT in PyTorch."""
    grid, count = SearchGrid(rotations=13, scales=4), max(8, int(64 * scale))
    real = np.asarray(search_grid.low_resolution(zscore(_blobs(2_195, 32, 0)), grid=grid))
    synthetic = np.asarray(search_grid.low_resolution(zscore(_blobs(count, 32, 1)), grid=grid))
    index = AlignedIndex.build(real, grid=grid)

    def ours() -> np.ndarray:
        return index.search(synthetic, k=4).scores

    peers = {}
    if _has("torch"):
        from benchmarks.cases.torch_aligned import best_correlations

        search = functools.partial(best_correlations, synthetic[:1], real, grid)
        peers["torch_fft"] = Peer(search, len(real))

    def check() -> None:
        np.testing.assert_array_equal(index.search(real[:8], k=1).indices[:, 0], np.arange(8))
        if peers:  # ours leaves out what 160 components do not hold
            whole = AlignedIndex.build(real, grid=grid, components=10_000)
            theirs = np.sort(peers["torch_fft"].run()[0])[::-1][:4]
            np.testing.assert_allclose(
                whole.search(synthetic[:1], k=4).scores[0], theirs, atol=1e-4
            )

    components, pixels = index.basis.shape[1], index.basis.shape[0]
    flops = 2.0 * count * grid.transformations * components * (pixels + len(real))
    half = parallel.fast_bfloat16(jax.default_backend())
    return Case("aligned", "pairs", count * len(real), ours, check, peers, flops, half=half)


def registration(scale: float) -> Case:
    """128 x 128, four mirrorings, global search included."""
    count = max(32, int(256 * scale))
    fixed = _blobs(count, 128, 0)
    angles = np.random.default_rng(2).uniform(-10, 10, count)
    moving = np.stack(
        [
            ndimage.rotate(x, a, reshape=False, order=3, mode="nearest")[:, :: (-1) ** i]
            for i, (x, a) in enumerate(zip(fixed, angles, strict=True))
        ]
    )

    def ours() -> np.ndarray:
        return np.asarray(register(moving, fixed).transform.rotation_deg)

    peers = {}
    if _has("SimpleITK"):
        from benchmarks.cases.sitk_registration import register_pair

        peers["SimpleITK"] = Peer(lambda: [register_pair(moving[i], fixed[i]) for i in (0, 1)], 2)

    def check() -> None:
        right = np.abs(np.abs(ours()) - np.abs(angles)) < 0.5
        assert right.mean() >= 0.99, np.flatnonzero(~right)
        if peers:
            assert [round(abs(a)) for a in peers["SimpleITK"].run()] == [
                round(abs(a)) for a in angles[:2]
            ]

    return Case("registration", "pairs", count, ours, check, peers)
