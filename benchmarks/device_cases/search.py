"""Exact top-10 by cosine, d = 256: as a user calls it, and with everything on the card already."""

import functools
import importlib.util
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.device_cases.card import Kind
from benchmarks.device_cases.section import Peer, Work
from benchmarks.device_cases.torch_device import has_torch, on_device, waited
from deepssim_jax import parallel
from deepssim_jax.scoring import pairs, tiles
from deepssim_jax.scoring.tiles import Queries

_DIM, _K = 256, 10
_TILE, _CANDIDATES = 8192, 16  # XLA's own TopK kernel takes k <= 16 of at least 1,024


def unit(n: int, seed: int) -> np.ndarray:
    """Random rows of unit norm."""
    rows = np.random.default_rng(seed).standard_normal((n, _DIM), np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def study(tiny: bool) -> Iterator[Work]:
    """65,850 synthetic and 2,195 real embeddings."""
    n, m = (256, 130) if tiny else (65_850, 2_195)
    queries, references = unit(n, 0), unit(m, 1)
    yield _work(
        "nearest_study", queries, references, lambda: pairs.nearest(queries, references, k=_K), {}
    )
    run, peers = resident(queries, references), _peers(queries, references, few=n)
    yield _work("nearest_study_resident", queries, references, run, peers)


def square(tiny: bool) -> Iterator[Work]:
    """200,000 against 200,000; peers do the first 20,000 queries."""
    n = 300 if tiny else 200_000
    queries, references = unit(n, 0), unit(n, 1)
    peers = _peers(queries, references, few=max(n // 10, 64))
    yield _work(
        "nearest_square_resident", queries, references, resident(queries, references), peers
    )


def selection(tiny: bool) -> Iterator[Work]:
    """Products in bfloat16 and the 16 best of each tile of 8,192, and no more: what choosing costs."""
    n, m = (64, 2 * 1024) if tiny else (65_536, 4 * _TILE)
    tile = 1024 if tiny else _TILE
    queries, references = (jnp.asarray(unit(count, count), jnp.bfloat16) for count in (n, m))
    split = references.reshape(-1, tile, _DIM)

    @jax.jit
    def run(queries: jax.Array, split: jax.Array) -> tuple[jax.Array, jax.Array]:
        def best(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
            def of(tile: jax.Array) -> list[jax.Array]:
                scores = jnp.einsum("qd,rd->qr", rows, tile, preferred_element_type=jnp.float32)
                return jax.lax.top_k(scores, _CANDIDATES)

            return jax.lax.map(of, split)

        return jax.lax.map(best, queries.reshape(-1, min(n, 4096), _DIM))

    given = functools.partial(run, queries, split)
    yield _work("selection_of_16", queries, references, given, {}, k=_CANDIDATES)


def _work(
    name: str,
    queries: np.ndarray | jax.Array,
    references: np.ndarray | jax.Array,
    run: Callable[[], object],
    peers: dict[str, Peer],
    *,
    k: int = _K,
) -> Work:
    n, m = len(queries), len(references)
    size = 2 if queries.dtype == jnp.bfloat16 else 4
    return Work(
        name,
        "pairs",
        n * m,
        run,
        {"queries": n, "references": m, "d": _DIM, "k": k},
        peers,
        bytes=size * (n + m) * _DIM + 8.0 * n * k,
        products={Kind.BF16: 2.0 * n * m * _DIM},
    )


def resident(queries: np.ndarray, references: np.ndarray) -> Callable[[], object]:
    """The search's own programs on rows that the card holds; the few doubtful ones are not repeated."""
    plan = pairs._Work.plan(queries, references, None, None, None, k=_K)
    spread = parallel.batch_sharding(plan.mesh)
    n, unit_rows = len(queries), plan.unit
    start: tuple[np.ndarray, ...] = (
        np.full((unit_rows, _K), -np.inf, np.float32),
        np.zeros((unit_rows, _K), np.int32),
    )
    if plan.tiling.half:
        start = (*start, np.full(unit_rows, -np.inf, np.float32))
    state = jax.device_put(start, spread)
    blocks = [
        Queries(plan._place(queries, first, n, unit_rows, spread))
        for first in range(0, n, unit_rows)
    ]
    pieces = [piece for pieces in plan._resident() for piece in pieces]
    visit = tiles.visit_best(
        tiling=plan.tiling, in_order=not plan.ring, surely=not plan.tiling.half
    )
    step = functools.partial(pairs._step, visit=visit, mesh=plan.mesh, ring=plan.ring)

    def run() -> list[tuple[jax.Array, ...]]:
        out = []
        for rows in blocks:
            known = state
            for offset, held in pieces:
                known = step(known, rows, held, np.int32(offset), np.int32(len(references)))
            out.append(known)
        return out

    return run


def _peers(queries: np.ndarray, references: np.ndarray, *, few: int) -> dict[str, Peer]:
    """Products and topk in PyTorch, and faiss on the card where it is installed."""
    queries = queries[:few]
    items = float(len(queries) * len(references))
    makers: dict[str, Callable[[], Callable[[], object]]] = {}
    if has_torch():
        for kind in ("float32", "bfloat16"):
            makers[f"torch_{kind}"] = functools.partial(_torch, queries, references, kind)
    if importlib.util.find_spec("faiss"):
        makers["faiss_gpu"] = functools.partial(_faiss, queries, references)
    return {name: Peer(make, items) for name, make in makers.items()}


def _torch(queries: np.ndarray, references: np.ndarray, kind: str) -> Callable[[], object]:
    import torch

    q, r = (on_device(x).to(getattr(torch, kind)) for x in (queries, references))
    # A block's scores take at most 2 GiB.
    block = max(1, min(len(q), (1 << 29) // len(r)))
    return waited(lambda: [torch.topk(part @ r.T, _K) for part in q.split(block)])


def _faiss(queries: np.ndarray, references: np.ndarray) -> Callable[[], object]:
    import faiss

    index = faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), _DIM)  # fails where it has no GPU
    index.add(references)
    return lambda: index.search(queries, _K)
