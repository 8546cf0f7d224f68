"""Local features: finding them, which real images hold them, the search with its geometry, products.

The package's own functions, beside PyTorch's product of the same descriptors with the best of each
image's points; and that product alone on raw arrays of each kind.
"""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from scipy import fft

from benchmarks.device_cases.card import Kind
from benchmarks.device_cases.section import Peer, Work
from benchmarks.device_cases.torch_device import has_torch, on_device, waited
from deepssim_jax.features import extract
from deepssim_jax.scoring import points
from deepssim_jax.scoring.points import LocalIndex, PointSet


def measured(tiny: bool) -> Iterator[Work]:
    """256 queries against 2,195 references, as an audit's are; 64 of them with geometry."""
    n, m, few = (4, 8, 2) if tiny else (256, 2_195, 64)
    images = canvases(4 if tiny else 512)
    content = np.full((len(images), 2), extract.SIDE)
    last: list[extract.LocalFeatures] = []

    def find() -> None:
        last[:] = [extract.extract_all(images, content)]

    kept = extract.POINTS * (128 + 7) * 4.0
    yield Work(
        "local_extract",
        "images",
        len(images),
        find,
        {"images": len(images), "side": extract.SIDE, "points": extract.POINTS},
        bytes=images.nbytes + len(images) * kept,
        once=tiny,
    )
    known = PointSet.packed(last[0])
    # Other images cost the same: they repeat.
    queries = known.rows(np.arange(n) % len(known))
    index = LocalIndex.build(known.rows(np.arange(m) % len(known)), np.arange(m))
    yield from _matched(index, queries, few=few)
    yield from _raw(tiny)


def _matched(index: LocalIndex, queries: PointSet, *, few: int) -> Iterator[Work]:
    """The first stage over all pairs, and the whole search."""
    n, m, keys = len(queries), len(index.references), index.first.points
    z = [
        index.few.project(
            side.descriptors[:, :keys].astype(np.float32) / points._LEVELS, side.valid[:, :keys]
        )
        for side in (queries, index.references)
    ]
    d = z[0].shape[-1]
    # One product of each part that a mirror keeps or negates: their sum and difference are both.
    first = 2.0 * m * keys * keys * d
    read = z[1].nbytes
    yield Work(
        "local_rank",
        "image pairs",
        n * m,
        lambda: index.first.rank(z[0], count=points._CANDIDATES),
        {"queries": n, "references": m, "points": keys, "d": d},
        _peers(z[0], z[1], index.few.signs),
        bytes=read + z[0].nbytes,
        products={Kind.F32: n * first},
    )
    some = queries.rows(np.arange(few))
    all_points, full = extract.POINTS, index.full.axes.shape[1]
    verified = points._CANDIDATES * (2.0 * all_points**2 * full)
    yield Work(
        "local_search",
        "image pairs",
        few * m,
        lambda: index.search(some),
        {"queries": few, "references": m, "points": all_points, "verified": points._CANDIDATES},
        _peers(z[0][:few], z[1], index.few.signs),
        bytes=read + few * points._CANDIDATES * all_points * (128 + 6 * 4.0),
        products={Kind.F32: few * (first + verified)},
    )


def canvases(count: int) -> np.ndarray:
    """Noise of the spectrum of pictures, which has points of every size; [count, side, side] in [0, 1]."""
    side = extract.SIDE
    noise = np.random.default_rng(0).standard_normal((count, side, side), np.float32)
    rows, columns = fft.fftfreq(side)[:, None], fft.rfftfreq(side)[None]
    spectrum = fft.rfft2(noise, workers=-1) / np.maximum(np.hypot(rows, columns), 1 / side)
    images = fft.irfft2(spectrum, s=(side, side), workers=-1)
    images -= images.min((1, 2), keepdims=True)
    return (images / images.max((1, 2), keepdims=True)).astype(np.float32)


def _peers(queries: np.ndarray, references: np.ndarray, signs: np.ndarray) -> dict[str, Peer]:
    """PyTorch's products and maxima of the first stage, of the images and of their mirror images."""
    if not has_torch():
        return {}
    both = np.concatenate([queries, queries * signs], 1)
    rows = both.reshape(-1, both.shape[-1])
    items = float(len(queries) * len(references))
    return {
        f"torch_products_{kind}": Peer(
            functools.partial(_torch, rows, references, kind, 16 * both.shape[1]), items
        )
        for kind in ("float32", "bfloat16")
    }


def _torch(rows: np.ndarray, references: np.ndarray, kind: str, block: int) -> Callable[[], object]:
    """The best of each reference's points [m, k, d] for each row [n, d], so many rows at a time."""
    import torch

    m, keys, d = references.shape
    a, b = (on_device(x.astype(np.float32)).to(getattr(torch, kind)) for x in (rows, references))
    b = b.reshape(m * keys, d)
    return waited(lambda: [(part @ b.T).view(-1, m, keys).amax(2) for part in a.split(block)])


def _raw(tiny: bool) -> Iterator[Work]:
    """Descriptors [Q K, d] x [d, N K] and the best of each reference's K, on raw arrays of each kind."""
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
        precision = "highest" if kind is Kind.F32 else None

        peers = {}
        if has_torch() and kind is not Kind.INT8:
            a, b = (np.asarray(x, np.float32) for x in (rows, others))
            make = functools.partial(_torch, a, b.reshape(n, keys, d), kind.value, 16 * keys)
            peers["torch"] = Peer(make, q * n)
        yield Work(
            f"local_products_{kind.value}",
            "image pairs",
            q * n,
            functools.partial(_best, rows, others, keys=keys, result=result, precision=precision),
            {"queries": q, "references": n, "points": keys, "d": d},
            peers,
            bytes=rows.nbytes + others.nbytes + 4.0 * q * keys * n,
            products={kind: 2.0 * q * n * keys * keys * d},
        )


@functools.partial(jax.jit, static_argnames=("keys", "result", "precision"))
def _best(
    rows: jax.Array, others: jax.Array, *, keys: int, result: object, precision: str | None
) -> jax.Array:
    """[parts, rows, images of a part]; nothing of rows x all points has to stay."""

    def best(part: jax.Array) -> jax.Array:
        found = jnp.einsum(
            "qd,rd->qr", rows, part, precision=precision, preferred_element_type=result
        )
        return found.reshape(len(rows), -1, keys).max(2)

    return jax.lax.map(best, others)
