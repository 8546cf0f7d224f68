"""SSIM of all pairs, the aligned search, registration and verification."""

import functools
from collections.abc import Callable, Iterator

import jax
import numpy as np
from scipy import ndimage

from benchmarks.device_cases.card import Kind
from benchmarks.device_cases.section import Peer, Work
from benchmarks.device_cases.torch_device import has_torch, on_device, waited
from deepssim_jax.ops import search_grid, ssim
from deepssim_jax.ops.intensity import zscore
from deepssim_jax.ops.registration import register
from deepssim_jax.ops.search_grid import SearchGrid
from deepssim_jax.scoring.aligned import AlignedIndex
from deepssim_jax.scoring.verify import verify_pairs

_WINDOW = 7


def blobs(n: int, size: int, seed: int) -> np.ndarray:
    """Smooth noise that keeps its detail relative to the frame, [n, size, size]."""
    noise = np.random.default_rng(seed).normal(size=(n, size, size))
    return ndimage.gaussian_filter(noise, (0, size / 25, size / 25)).astype(np.float32)


def all_ssim(tiny: bool) -> Iterator[Work]:
    """SSIM of all pairs of 136 x 112; the least is to read both images of a pair."""
    n, m, shape = (16, 32, (24, 20)) if tiny else (256, 4096, (136, 112))
    rng = np.random.default_rng(0)
    real, synthetic = (np.asarray(zscore(rng.uniform(size=(c, *shape)))) for c in (n, m))
    tile = ssim._best_tile(int(np.prod(shape)))
    held = [ssim._moments_of(real, i, ssim._ROWS, "uniform") for i in range(0, n, 16)]
    others = [ssim._moments_of(synthetic, j, tile, "uniform") for j in range(0, m, tile)]

    def ours() -> list[jax.Array]:
        return [ssim.ssim_tile(x, y, x.extent, window="uniform") for y in others for x in held]

    pixels = float(np.prod(shape))
    sizes = {"real": n, "synthetic": m, "shape": shape}
    bytes_moved = 2 * 4 * pixels * n * m
    peers = {}
    if has_torch():
        for name, fused in (("torch", False), ("torch_compiled", True)):
            make = functools.partial(_torch_ssim, real, synthetic, compiled=fused)
            peers[name] = Peer(make, n * m)
    yield Work("ssim_resident", "pairs", n * m, ours, sizes, peers, bytes=bytes_moved)
    whole = functools.partial(ssim.ssim_matrix, real, synthetic)
    yield Work("ssim_matrix", "pairs", n * m, whole, sizes, bytes=bytes_moved)


def _torch_ssim(real: np.ndarray, synthetic: np.ndarray, *, compiled: bool) -> Callable[[], object]:
    """Every real image with all others: what belongs to one image is computed once."""
    import torch
    from torch.nn import functional

    a, b = (on_device(x)[:, None] for x in (real, synthetic))
    sample = _WINDOW**2 / (_WINDOW**2 - 1)

    def mean(x: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(x, _WINDOW, stride=1)

    def moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        m = mean(x)
        return m, sample * (mean(x * x) - m * m)

    def row(x, mx, vx, y, my, vy, extent):
        c1, c2 = (0.01 * extent) ** 2, (0.03 * extent) ** 2
        cross = sample * (mean(x * y) - mx * my)
        upper = (2 * mx * my + c1) * (2 * cross + c2)
        return (upper / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean((1, 2, 3))

    # A CPU's compiler is not what is measured, and takes long.
    fused = torch.compile(row) if compiled and a.is_cuda else row
    (ma, va), (mb, vb) = moments(a), moments(b)
    extents = [float(np.ptp(x)) for x in real]
    extents = [torch.tensor(x, device=a.device) for x in extents]

    def run() -> list[torch.Tensor]:
        return [
            fused(a[i : i + 1], ma[i : i + 1], va[i : i + 1], b, mb, vb, extents[i])
            for i in range(len(a))
        ]

    return waited(run)


def aligned(tiny: bool) -> Iterator[Work]:
    """The search over 10,192 transformations, beside the same by FFT in PyTorch."""
    grid = SearchGrid(rotations=3, scales=1) if tiny else SearchGrid(rotations=13, scales=4)
    n, m = (8, 64) if tiny else (128, 2_195)
    synthetic, real = (
        np.asarray(search_grid.low_resolution(zscore(blobs(count, grid.size, seed)), grid=grid))
        for count, seed in ((n, 1), (m, 0))
    )
    index = AlignedIndex.build(real, grid=grid)
    pixels, components = index.basis.shape
    peers = {}
    if has_torch():
        from benchmarks.cases.torch_aligned import best_correlations
        from benchmarks.device_cases.torch_device import device

        def make() -> Callable[[], object]:
            few = functools.partial(best_correlations, synthetic[:1], real, grid, device=device())
            return waited(few)

        peers["torch_fft"] = Peer(make, len(real))
    yield Work(
        "aligned",
        "pairs",
        n * m,
        lambda: index.search(synthetic, k=64),
        {"queries": n, "references": m, "transformations": grid.transformations, "k": 64},
        peers,
        products={
            Kind.BF16: 2.0 * n * grid.transformations * components * m,
            Kind.F32: 2.0 * n * grid.transformations * components * pixels,
        },
    )


def moved(n: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Images turned by up to 10 degrees, and the images."""
    fixed = blobs(min(n, 32), size, 0)
    angles = np.random.default_rng(2).uniform(-10, 10, len(fixed))
    turned = [
        ndimage.rotate(x, a, reshape=False, order=1, mode="nearest")
        for x, a in zip(fixed, angles, strict=True)
    ]
    rows = np.arange(n) % len(fixed)
    return np.stack(turned)[rows].astype(np.float32), fixed[rows]


def registration(tiny: bool) -> Iterator[Work]:
    """Pairs of 128 x 128, global search included, and the score on top; no peer does this on a card."""
    n, size = 4 if tiny else 2048, 128
    moving, fixed = moved(n, size)
    sizes = {"pairs": n, "side": size, "transformations": SearchGrid().transformations}
    yield Work("verify", "pairs", n, lambda: verify_pairs(moving, fixed), sizes)
    if not tiny:  # a part of the above, which takes as long to compile
        run = functools.partial(register, moving, fixed, batch_size=256)
        yield Work("registration", "pairs", n, lambda: run().transform, sizes)
