"""SSIM of all pairs, the aligned search, registration, verification, and products of local features."""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
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
    held = [ssim.moments(ssim._last(real, i, ssim._ROWS), "uniform") for i in range(0, n, 16)]
    others = [ssim.moments(ssim._last(synthetic, j, tile), "uniform") for j in range(0, m, tile)]

    def ours() -> list[jax.Array]:
        return [ssim.ssim_tile(x, y, x.extent, window="uniform") for y in others for x in held]

    pixels = float(np.prod(shape))
    sizes = {"real": n, "synthetic": m, "shape": shape}
    bytes_moved = 2 * 4 * pixels * n * m
    peers = {"torch_fused": Peer(_torch_ssim(real, synthetic), n * m)} if has_torch() else {}
    yield Work("ssim_resident", "pairs", n * m, ours, sizes, peers, bytes=bytes_moved)
    whole = functools.partial(ssim.ssim_matrix, real, synthetic)
    yield Work("ssim_matrix", "pairs", n * m, whole, sizes, bytes=bytes_moved)


def _torch_ssim(real: np.ndarray, synthetic: np.ndarray) -> Callable[[], object]:
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

    fused = torch.compile(row) if a.is_cuda else row
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

        few = functools.partial(best_correlations, synthetic[:1], real, grid, device=device())
        peers["torch_fft"] = Peer(waited(few), len(real))
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


def local_features(tiny: bool) -> Iterator[Work]:
    """Descriptors [Q K, d] x [d, N K] and the best of each reference's K, on raw arrays.

    Of each keypoint of Q images its nearest keypoint in each of N: what matching local features costs
    before geometry. Written so that nothing of [Q K, N K] has to stay.
    """
    q, n, keys, d = (2, 8, 16, 32) if tiny else (128, 2_048, 128, 128)
    some = n // 4 if tiny else 64  # references at a time
    for kind, dtype, result in (
        (Kind.INT8, jnp.int8, jnp.int32),
        (Kind.BF16, jnp.bfloat16, jnp.float32),
        (Kind.F32, jnp.float32, jnp.float32),
    ):
        scale = 40 if kind is Kind.INT8 else 1
        rows, others = (
            jnp.asarray(scale * jax.random.normal(jax.random.key(i), shape), dtype)
            for i, shape in enumerate([(q * keys, d), (n // some, some * keys, d)])
        )

        @functools.partial(jax.jit, static_argnames=("result", "precision"))
        def run(rows: jax.Array, others: jax.Array, result: object, precision: str | None):
            def best(part: jax.Array) -> jax.Array:
                found = jnp.einsum(
                    "qd,rd->qr", rows, part, precision=precision, preferred_element_type=result
                )
                return found.reshape(len(rows), some, keys).max(2)

            return jax.lax.map(best, others)

        precision = "highest" if kind is Kind.F32 else None
        peers = {}
        if has_torch() and kind is not Kind.INT8:
            peers["torch"] = Peer(_torch_local(rows, others, some, keys), q * n)
        yield Work(
            f"local_features_{kind.value}",
            "image pairs",
            q * n,
            functools.partial(run, rows, others, result, precision),
            {"queries": q, "references": n, "keypoints": keys, "d": d},
            peers,
            bytes=rows.nbytes + others.nbytes + 4.0 * q * keys * n,
            products={kind: 2.0 * q * n * keys * keys * d},
        )


def _torch_local(rows: jax.Array, others: jax.Array, some: int, keys: int) -> Callable[[], object]:
    import torch

    kind = torch.bfloat16 if rows.dtype == jnp.bfloat16 else torch.float32
    a, b = (on_device(np.array(x, np.float32)).to(kind) for x in (rows, others))

    def run() -> list[torch.Tensor]:
        return [(a @ part.T).view(len(a), some, keys).amax(2) for part in b]

    return waited(run)
