"""What happens to one tile of all pairs: the k best, counts above thresholds, or a histogram.

Contract: queries [q, d] and references [r, d] are float32 rows of one device; r is a multiple of
the tile. `first` is the global number of the first reference and `total` how many there are:
rows from `total` on are padding and never count. Every visit takes what is known so far and gives
back what is known after these references, so that a stream of them, in any portions, ends in the
same answer. A tile of scores [rows, tile] is the largest array made.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import topk
from deepssim_jax.typing import Array

_EXACT = jax.lax.Precision.HIGHEST
# Rounding both unit rows to bfloat16 (8 bits, to nearest) moves a product of d terms by at most
# (2 u + u^2) sum |q_i r_i| <= (2 u + u^2) |q| |r| with u = 2^-9 (Cauchy-Schwarz); float32 sums of up
# to 4096 terms add at most 2 * 4096 * 2^-24. Half as much again is left for the rows' own norms.
HALF_ERROR = 1.5 * (2.0**-8 + 2.0**-18 + 2.0**-11)

State = tuple[Array, ...]
Visit = Callable[[State, Array, Array, Array, Array], State]


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How all pairs are cut; it changes the speed, never the result.

    `rows` queries meet `tile` references at a time on one device; one call of the program does
    `strips` of such rows and `spans` of such tiles. With `half`, bfloat16 products choose
    candidates with a proven margin and float32 decides; without, float32 does both. References of at
    most `resident_bytes` are on one device at a time.
    """

    rows: int
    tile: int
    strips: int = 1
    spans: int = 1
    half: bool = False
    resident_bytes: int = 4 << 30

    def __post_init__(self) -> None:
        if min(self.rows, self.tile, self.strips, self.spans) < 1:
            raise ValueError(f"{self}: rows, tile, strips and spans must be at least 1")

    @classmethod
    def best(cls, platform: str) -> "Tiling":
        """What was measured to be fastest on "cpu"; on accelerators, few calls of large programs."""
        if platform == "cpu":  # a loop inside the program would copy each tile
            return cls(rows=256, tile=8192)
        return cls(rows=1024, tile=8192, strips=32, spans=128, half=True)


def products(queries: Array, references: Array) -> Array:
    """float32 [q, r] cosines, exact to float32 on every platform."""
    return jnp.einsum("qd,rd->qr", queries, references, precision=_EXACT)


def _half_products(queries: Array, references: Array) -> Array:
    low = (x.astype(jnp.bfloat16) for x in (queries, references))
    return jnp.einsum("qd,rd->qr", *low, preferred_element_type=jnp.float32)


def _scan(
    score: Callable[[Array, Array], Array],
    update: Callable[[State, Array, Array], State],
    state: State,
    queries: Array,
    references: Array,
    tile: int,
) -> State:
    """Runs `update(state, scores, number of the tile's first row)` over the tiles."""
    if len(references) == tile:
        return update(state, score(queries, references), jnp.int32(0))
    tiles = references.reshape(-1, tile, references.shape[1])

    def step(carry: State, item: tuple[Array, Array]) -> tuple[State, None]:
        rows, number = item
        return update(carry, score(queries, rows), number * tile), None

    return jax.lax.scan(step, state, (tiles, jnp.arange(len(tiles), dtype=jnp.int32)))[0]


def _best_of(
    score: Callable[[Array, Array], Array],
    state: State,
    queries: Array,
    references: Array,
    first: Array,
    total: Array,
    tile: int,
) -> State:
    """Carries the best scores [q, k] and their numbers [q, k] over references in rising order."""
    k = state[0].shape[1]

    def update(known: State, scores: Array, start: Array) -> State:
        values, index = topk.top_k(scores, min(k, tile), count=total - first - start)
        new = (values, index + (first + start))
        # The first tile has nothing to be merged with: a tenth of the time where it is the only one.
        wide = k - values.shape[1]
        return jax.lax.cond(
            first + start == 0,
            lambda: tuple(jnp.concatenate([x, y[:, :wide]], 1) for x, y in zip(new, known)),
            lambda: topk.merge(known, new, k=k),
        )

    return _scan(score, update, state, queries, references, tile)


def _nothing(queries: Array, k: int) -> State:
    return jnp.full((len(queries), k), -jnp.inf), jnp.zeros((len(queries), k), jnp.int32)


def _best_by_halves(
    k: int, queries: Array, references: Array, first: Array, total: Array, tile: int
) -> State:
    """The k best, candidates by bfloat16; where that cannot be proven, all is done in float32."""
    here = jnp.clip(total - first, 0, len(references))
    wide = min(2 * k + 48, len(references))
    search = (queries, references, jnp.int32(0), here, tile)
    fast, index = _best_of(_half_products, _nothing(queries, wide), *search)
    # By number first: the stable top_k then gives ties to the smaller one.
    order = jnp.argsort(index, axis=1)
    rows = references[jnp.take_along_axis(index, order, axis=1)]  # [q, wide, d]
    # A sum of its own for each: in a product, equal rows at different places can round differently.
    exact = (queries[:, None, :] * rows).sum(-1)
    seen = jnp.take_along_axis(fast, order, axis=1) > -jnp.inf
    scores, place = jax.lax.top_k(jnp.where(seen, exact, -jnp.inf), k)
    found = scores, jnp.take_along_axis(index, jnp.take_along_axis(order, place, 1), axis=1)
    # Whatever was left out scored at most fast[:, -1], so truly at most that plus the error.
    longest = jnp.linalg.norm(references, axis=1).max()
    error = HALF_ERROR * jnp.linalg.norm(queries, axis=1) * longest
    proven = (here <= wide) | (scores[:, -1] > fast[:, -1] + error)
    scores, index = jax.lax.cond(
        proven.all(),
        lambda: found,
        lambda: _best_of(products, _nothing(queries, k), *search),
    )
    return scores, index + first


@functools.cache
def visit_best(*, tiling: Tiling, in_order: bool) -> Visit:
    """Keeps the best: state (scores [q, k], ids int32 [q, k]); ties go to the smaller id.

    `in_order` says that references come in the order of their ids.
    """

    def visit(state: State, queries: Array, references: Array, first: Array, total: Array) -> State:
        def strip(item: tuple[Array, ...]) -> State:
            rows, known = item[0], item[1:]
            if in_order and not tiling.half:
                return _best_of(products, known, rows, references, first, total, tiling.tile)
            k = known[0].shape[1]
            few = min(k, len(references))
            if tiling.half:
                new = _best_by_halves(few, rows, references, first, total, tiling.tile)
            else:
                new = _best_of(
                    products, _nothing(rows, few), rows, references, first, total, tiling.tile
                )
            scores, ids = (jnp.concatenate(p, 1) for p in zip(known, new, strict=True))
            falling, ids = jax.lax.sort((-scores, ids), num_keys=2)
            return -falling[:, :k], ids[:, :k]

        return _by_strips(strip, (queries, *state), tiling.rows)

    return visit


@functools.cache
def visit_counts(*, thresholds: tuple[float, ...], tiling: Tiling) -> Visit:
    """Counts scores at or above each threshold: state (int32 [q, len(thresholds)],)."""
    levels = np.asarray(thresholds, np.float32)

    def visit(state: State, queries: Array, references: Array, first: Array, total: Array) -> State:
        def update(counts: State, scores: Array, start: Array) -> State:
            real = first + start + jnp.arange(tiling.tile, dtype=jnp.int32) < total
            scores = jnp.where(real[None, :], scores, -jnp.inf)
            above = [(scores >= level).sum(1, dtype=jnp.int32) for level in levels]
            return (counts[0] + jnp.stack(above, 1),)

        def strip(item: tuple[Array, ...]) -> State:
            return _scan(products, update, item[1:], item[0], references, tiling.tile)

        return _by_strips(strip, (queries, *state), tiling.rows)

    return visit


@functools.cache
def visit_histogram(*, bins: int, tiling: Tiling) -> Visit:
    """Counts scores in equal bins of [-1, 1], for every query: state (int32 [q, bins],)."""

    def visit(state: State, queries: Array, references: Array, first: Array, total: Array) -> State:
        def update(counts: State, scores: Array, start: Array) -> State:
            real = first + start + jnp.arange(tiling.tile, dtype=jnp.int32) < total
            place = jnp.clip(jnp.floor((scores + 1) * (bins / 2)), 0, bins - 1).astype(jnp.int32)
            return (counts[0] + _occurrences(jnp.where(real[None, :], place, bins), bins),)

        def strip(item: tuple[Array, ...]) -> State:
            return _scan(products, update, item[1:], item[0], references, tiling.tile)

        return _by_strips(strip, (queries, *state), tiling.rows)

    return visit


def _occurrences(place: Array, bins: int) -> Array:
    """How often each of 0 .. bins - 1 occurs in each row of int32 [n, m]; int32 [n, bins]."""
    # Accelerators scatter into one place one by one; comparing with every bin is faster there.
    scattered, compared = (functools.partial(f, bins=bins) for f in (_scattered, _compared))
    return jax.lax.platform_dependent(place, cpu=scattered, default=compared)


def _scattered(place: Array, bins: int) -> Array:
    n = len(place)
    flat = place + (bins + 1) * jnp.arange(n, dtype=jnp.int32)[:, None]
    counts = jnp.zeros(n * (bins + 1), jnp.int32)
    counts = counts.at[flat.reshape(-1)].add(1, mode="promise_in_bounds")
    return counts.reshape(n, bins + 1)[:, :bins]


def _compared(place: Array, bins: int) -> Array:
    each = jax.lax.map(lambda b: (place == b).sum(1, dtype=jnp.int32), jnp.arange(bins))
    return each.T


def _by_strips(strip: Callable[[tuple[Array, ...]], State], items: State, rows: int) -> State:
    """Runs `strip` on `rows` rows at a time; a single strip needs no loop."""
    if len(items[0]) == rows:
        return strip(items)
    split = tuple(x.reshape(-1, rows, *x.shape[1:]) for x in items)
    return tuple(x.reshape(-1, *x.shape[2:]) for x in jax.lax.map(strip, split))


def padded(rows: object, length: int) -> np.ndarray:
    """Float32 rows with zeros appended up to `length`."""
    rows = np.asarray(rows, np.float32)
    if len(rows) == length:
        return rows
    return np.pad(rows, ((0, length - len(rows)), (0, 0)))
