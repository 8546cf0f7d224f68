"""What happens to one tile of all pairs: the k best, or a histogram.

Contract: `Queries` [q, d] are float32 rows of one device, and so are its `References` [r, d]; r is a
multiple of the tile. `first` is the global number of the first reference and `total` how many there
are: rows from `total` on are padding and never count. Every visit takes what is known so far and
gives back what is known after these references, so that a stream of them, in any portions, ends in
the same answer. A tile of scores [rows, tile] is the largest array made.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax import parallel
from deepssim_jax.ops import topk
from deepssim_jax.typing import Array

_EXACT = jax.lax.Precision.HIGHEST

State = tuple[Array, ...]


@functools.partial(jax.tree_util.register_dataclass, data_fields=("rows", "groups"), meta_fields=())
@dataclasses.dataclass(frozen=True)
class Queries:
    """Rows [q, d], and the group of each, int32 [q], whose references are left out; or None."""

    rows: Array
    groups: Array | None = None


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("rows", "groups", "low", "norms"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True)
class References:
    """Rows [r, d]; where bfloat16 chooses candidates, also rounded ones with what that took away.

    `groups` int32 [r] are there where the queries have theirs. `low` are the rows in bfloat16, `norms`
    those of them [r] and of what rounding took away [r].
    """

    rows: Array
    groups: Array | None = None
    low: Array | None = None
    norms: tuple[Array, ...] = ()


Visit = Callable[[State, Queries, References, Array, Array], State]


@jax.jit
def split_bf16(rows: Array, groups: Array | None = None) -> References:
    """The rows with their bfloat16 versions."""
    low = rows.astype(jnp.bfloat16)
    near = low.astype(jnp.float32)
    norms = jnp.linalg.norm(near, axis=1), jnp.linalg.norm(rows - near, axis=1)
    return References(rows, groups, low, norms)


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How all pairs are cut; it changes the speed, never the result.

    `rows` queries meet `tile` references at a time on one device; one call of the program does
    `strips` of such rows and `spans` of such tiles. With `half`, bfloat16 products choose
    candidates with a proven margin and float32 decides; without, float32 does both. The candidates
    of a call are `wide[0]` times as many as are wanted, and `wide[1]` more. References of at most
    `resident_bytes` are on one device at a time.
    """

    rows: int
    tile: int
    strips: int = 1
    spans: int = 1
    half: bool = False
    wide: tuple[int, int] = (2, 48)
    resident_bytes: int = 4 << 30

    def __post_init__(self) -> None:
        if min(self.rows, self.tile, self.strips, self.spans) < 1:
            raise ValueError(f"{self}: rows, tile, strips and spans must be at least 1")

    @classmethod
    def best(cls, platform: str, *, queries: int, k: int) -> "Tiling":
        """What was measured to be fastest on "cpu" and "gpu"; on a TPU, few calls of large programs.

        `k` are the best wanted of each query, 0 where all pairs are counted.
        """
        if platform == "cpu":  # a loop inside the program would copy each tile
            # Many candidates, or rounding for few queries, would cost what bfloat16 saves.
            worth = queries > 1024 and 0 < k + 6 <= topk.FEW
            half = worth and parallel.fast_bfloat16(platform)
            return cls(rows=256, tile=8192, half=half, wide=(1, 6))
        if platform == "gpu":
            half = 0 < k + 6 <= topk.FEW
            return cls(rows=4096, tile=8192, strips=32, half=half, wide=(1, 6))
        return cls(rows=1024, tile=8192, strips=32, spans=128, half=k > 0)


def products(queries: Array, references: Array) -> Array:
    """float32 [q, r] cosines, exact to float32 on every platform."""
    return jnp.einsum("qd,rd->qr", queries, references, precision=_EXACT)


def half_products(queries: Array, low: Array) -> Array:
    """float32 [q, r] sums of the products of bfloat16 rows, which float32 holds without an error."""
    low_queries = queries.astype(jnp.bfloat16)
    return jnp.einsum("qd,rd->qr", low_queries, low, preferred_element_type=jnp.float32)


def half_error(queries: Array, length: Array, lost: Array) -> Array:
    """How far `half_products` may be from the true scores [q], for references of any number.

    q r - q' r' = (q - q') r + q' (r - r'), each at most the product of its norms (Cauchy-Schwarz). To
    it come the roundings of the sums: one in 2^24 a term for either way of summing, times two.

    Args:
      queries: float32 [q, d].
      length: norms of the rounded references.
      lost: norms of what rounding took from them.
    """
    low = queries.astype(jnp.bfloat16).astype(jnp.float32)
    taken, left = jnp.linalg.norm(queries - low, axis=1), jnp.linalg.norm(low, axis=1)
    longest, most = length.max(), lost.max()
    sums = 4 * queries.shape[1] * 2.0**-24
    return taken * (longest + most) + left * most + sums * (left + taken) * (longest + most)


def _apart(scores: Array, own: Array | None, theirs: Array | None) -> Array:
    """Scores [q, r] with -inf where both are of one group."""
    if own is None or theirs is None:
        return scores
    return jnp.where(own[:, None] == theirs[None, :], -jnp.inf, scores)


def _scan(
    score: Callable[[Array, Array], Array],
    update: Callable[[State, Array, Array], State],
    state: State,
    queries: Queries,
    references: References,
    tile: int,
) -> State:
    """Runs `update(state, scores, number of the tile's first row)` over the tiles of the rows."""

    def scores(rows: Array, groups: Array | None) -> Array:
        return _apart(score(queries.rows, rows), queries.groups, groups)

    given = references.rows, references.groups
    if len(references.rows) == tile:
        return update(state, scores(*given), jnp.int32(0))
    tiles = jax.tree.map(lambda x: x.reshape(-1, tile, *x.shape[1:]), given)

    def step(carry: State, item: tuple[tuple[Array, Array | None], Array]) -> tuple[State, None]:
        part, number = item
        return update(carry, scores(*part), number * tile), None

    return jax.lax.scan(step, state, (tiles, jnp.arange(len(tiles[0]), dtype=jnp.int32)))[0]


def _best_of(
    score: Callable[[Array, Array], Array],
    state: State,
    queries: Queries,
    references: References,
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


def _nothing(queries: Queries, k: int) -> State:
    shape = len(queries.rows), k
    return jnp.full(shape, -jnp.inf), jnp.zeros(shape, jnp.int32)


def _best_decided(
    known: State,
    queries: Queries,
    references: References,
    first: Array,
    total: Array,
    tiling: Tiling,
    *,
    surely: bool,
) -> State:
    """The k best of these and the known, by float32 products of a few candidates.

    Candidates come from bfloat16 products, or from float32 where that is to be sure. The scores are the
    same either way. The last of the state [q] says what may at most have been left out so far.
    """
    rows = references.rows
    here = jnp.clip(total - first, 0, len(rows))
    k = min(known[0].shape[1], len(rows))
    wide = min(tiling.wide[0] * k + tiling.wide[1], len(rows))
    where = jnp.int32(0), here, tiling.tile
    if surely:
        fast, index = _best_of(products, _nothing(queries, wide), queries, references, *where)
        missed = known[2]
    else:
        assert references.low is not None
        low = References(references.low, references.groups)
        if len(rows) > tiling.tile:
            fast, index = _best_of(half_products, _nothing(queries, wide), queries, low, *where)
        else:
            scores = half_products(queries.rows, low.rows)
            fast, index = topk.top_k_nearly(
                _apart(scores, queries.groups, low.groups), wide, count=here
            )
            # It has no infinities; a cosine is never so small.
            fast = jnp.where(fast < -2.0, -jnp.inf, fast)
        # Whatever was left out is truly at most the last one plus the errors; where the last one is
        # not admissible, nothing admissible was left out.
        last = fast[:, -1]
        most = last + half_error(queries.rows, *references.norms)
        most = most + topk.rounding(tiling.tile) * jnp.abs(last)
        left_out = (here > wide) & (last != -jnp.inf)
        missed = jnp.maximum(known[2], jnp.where(left_out, most, -jnp.inf))
    exact = _products_of(queries.rows, rows, index)
    new = jnp.where(fast > -jnp.inf, exact, -jnp.inf), index + first
    return (*_joined(known[:2], new), missed)


def _products_of(queries: Array, rows: Array, index: Array) -> Array:
    """float32 [q, w]: each query with its own rows; equal rows give equal products."""
    # A product computes eight rows of a query at a time, and what is left over in another order.
    left = -index.shape[1] % 8

    def by_product(queries: Array, rows: Array, index: Array) -> Array:
        whole = rows[jnp.pad(index, ((0, 0), (0, left)))]
        return jnp.einsum("qd,qwd->qw", queries, whole, precision=_EXACT)[:, : index.shape[1]]

    def by_sums(queries: Array, rows: Array, index: Array) -> Array:
        return (queries[:, None, :] * rows[index]).sum(-1)

    return jax.lax.platform_dependent(queries, rows, index, cpu=by_product, default=by_sums)


def _joined(known: State, new: State) -> State:
    """The best of both [q, k], k as many as are known; ties go to the smaller number."""
    scores, ids = (jnp.concatenate(pair, 1) for pair in zip(known, new, strict=True))
    return topk.best(scores, ids, known[0].shape[1])


@functools.cache
def visit_best(*, tiling: Tiling, in_order: bool, surely: bool = True) -> Visit:
    """Keeps the best: state (scores [q, k], ids int32 [q, k]); ties go to the smaller id.

    `in_order` says that references come in the order of their ids. In bfloat16 the state has one more,
    float32 [q]: unless the last score is above that, a reference that was left out may be better, and
    only a visit of everything that is to be `surely` right can tell.
    """

    def visit(
        state: State, queries: Queries, references: References, first: Array, total: Array
    ) -> State:
        where = first, total, tiling.tile

        def strip(part: Queries, known: State) -> State:
            if tiling.half:
                return _best_decided(known, part, references, first, total, tiling, surely=surely)
            if in_order:
                return _best_of(products, known, part, references, *where)
            none = _nothing(part, min(known[0].shape[1], len(references.rows)))
            return _joined(known, _best_of(products, none, part, references, *where))

        return _by_strips(strip, queries, state, tiling.rows)

    return visit


@functools.cache
def visit_histogram(*, bins: int, tiling: Tiling) -> Visit:
    """Counts scores in equal bins of [-1, 1], for every query: state (int32 [q, bins],)."""

    def visit(
        state: State, queries: Queries, references: References, first: Array, total: Array
    ) -> State:
        def update(counts: State, scores: Array, start: Array) -> State:
            real = first + start + jnp.arange(tiling.tile, dtype=jnp.int32) < total
            place = jnp.clip(jnp.floor((scores + 1) * (bins / 2)), 0, bins - 1).astype(jnp.int32)
            return (counts[0] + _occurrences(jnp.where(real[None, :], place, bins), bins),)

        def strip(part: Queries, known: State) -> State:
            return _scan(products, update, known, part, references, tiling.tile)

        return _by_strips(strip, queries, state, tiling.rows)

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


def _by_strips(
    strip: Callable[[Queries, State], State], queries: Queries, state: State, rows: int
) -> State:
    """Runs `strip` on `rows` rows at a time; a single strip needs no loop."""
    if len(queries.rows) == rows:
        return strip(queries, state)
    split = jax.tree.map(lambda x: x.reshape(-1, rows, *x.shape[1:]), (queries, state))
    found = jax.lax.map(lambda item: strip(*item), split)
    return tuple(x.reshape(-1, *x.shape[2:]) for x in found)


def padded(rows: object, length: int) -> np.ndarray:
    """Float32 rows with zeros appended up to `length`."""
    rows = np.asarray(rows, np.float32)
    if len(rows) == length:
        return rows
    return np.pad(rows, ((0, length - len(rows)), (0, 0)))
