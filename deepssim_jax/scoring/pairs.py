"""All pairs of two sets of embeddings: exact nearest neighbours and the histogram.

Contract: queries and references are float32 rows of unit norm, [n, d] and [m, d]: NumPy arrays,
memory maps, or anything with a shape whose slices turn into arrays, such as a TensorStore.
Only slices are read. Nothing of size n x m ever exists: queries are cut
into blocks, a block is spread over the devices, and references either stay on every device or,
where they are too many, are spread too and passed round a ring. The answer does not depend on
any of it. With several processes each reads the rows of its own devices, and all get the answer.
"""

import collections
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax import parallel
from deepssim_jax.ops import arguments, topk
from deepssim_jax.ops.batches import in_batches
from deepssim_jax.scoring import embedding_rows, tiles
from deepssim_jax.scoring.embedding_rows import ChosenRows, UnitRows, check_groups, check_rows
from deepssim_jax.scoring.embedding_rows import Rows as Rows
from deepssim_jax.scoring.tiles import Queries, References, State, Tiling, Visit
from deepssim_jax.typing import Array
from deepssim_jax.workspace import By, Section

_FOUND = np.dtype([("score", "<f4"), ("index", "<i4")])
_Columns = tuple[np.ndarray, ...]
_BLOCK = 65_536  # queries a journalled block
_TRACED = 256  # queries of a step inside another program
_WORKERS = 3  # threads that hand strips to a single device
_AHEAD = 4  # strips handed to several devices before the first one is waited for
_REPLICATED_BYTES = 1 << 30  # references that every device holds; more go round a ring


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("scores", "indices"), meta_fields=()
)
@dataclasses.dataclass(frozen=True)
class Neighbours:
    """`scores` float32 [n, k] from best to worst, clipped to [-1, 1]; `indices` int32 [n, k].

    A row with fewer than k admissible references ends in scores of -2 and indices of -1.

    Examples:
      >>> import numpy as np
      >>> import deepssim_jax as ds
      >>> found = ds.nearest(np.eye(3, dtype="float32")[1:], np.eye(3, dtype="float32"), k=2)
      >>> found.indices[:, 0], found.scores[:, 0]
      (array([1, 2], dtype=int32), array([1., 1.], dtype=float32))
    """

    scores: np.ndarray
    indices: np.ndarray


@dataclasses.dataclass(frozen=True)
class PairHistogram:
    """`counts` int64 [bins] of all n x m scores between `edges` [bins + 1] from -1 to 1."""

    edges: np.ndarray
    counts: np.ndarray


def nearest(
    queries: Rows,
    references: Rows,
    *,
    k: int,
    journal: Section | None = None,
    mesh: jax.sharding.Mesh | None = None,
    tiling: Tiling | None = None,
    ring: bool | None = None,
    groups: embedding_rows.Groups | None = None,
) -> Neighbours:
    """The k references with the largest cosine to each query; ties go to the smaller index.

    Args:
      queries: [n, d] unit rows.
      references: [m, d] unit rows, m >= 1.
      k: how many, 1 <= k <= min(m, 1024).
      journal: keeps finished blocks, so that a run that was killed goes on; its inputs must tell the
        rows, of which only the number, the groups, k and the block are part of a block's key.
      mesh: devices to use, all if None.
      tiling: how to cut the work, the best known for the platform if None.
      ring: spread the references over the devices; None decides by their size.
      groups: ids [n] and [m], numbers or texts; a reference of the query's own is left out.

    Returns:
      Scores and indices, best first: NumPy, or JAX inside `jax.jit`, where one device does it all and
      the norms of rows cannot be looked at.

    Raises:
      ValueError: if the dimensions differ, a row has not norm 1, k does not fit, or an id is missing.

    Examples:
      >>> import numpy as np
      >>> import deepssim_jax as ds
      >>> rows = np.eye(8, dtype=np.float32)
      >>> ds.nearest(rows[:4], rows, k=3).indices[:, 0]
      array([0, 1, 2, 3], dtype=int32)
      >>> patients = np.arange(8) // 2  # two images of each; only other patients' are found
      >>> ds.nearest(rows[:4], rows, k=1, groups=(patients[:4], patients)).indices.shape
      (4, 1)
    """
    check_rows(queries, references)
    arguments.whole(k, "k", least=1, most=min(references.shape[0], 1024))
    embedding_rows.check_how(journal=journal, mesh=mesh, tiling=tiling, ring=ring)
    if arguments.is_traced(queries, references):
        return _traced(queries, references, k=k, groups=groups)
    unit = UnitRows(queries, "queries"), UnitRows(references, "references")
    how = {"journal": journal, "mesh": mesh, "tiling": tiling, "ring": ring, "groups": groups}
    return largest_products(*unit, k=k, **how)


def largest_products(
    queries: Rows,
    references: Rows,
    *,
    k: int,
    journal: Section | None = None,
    mesh: jax.sharding.Mesh | None = None,
    tiling: Tiling | None = None,
    ring: bool | None = None,
    groups: embedding_rows.Groups | None = None,
) -> Neighbours:
    """`nearest` for rows of norm 1 or 0: what is empty has the product 0 with everything.

    See `nearest` for the arguments; they are not checked.
    """
    work = _Work.plan(queries, references, mesh, tiling, ring, k=k, groups=groups)

    def block(first: int, stop: int) -> np.ndarray:
        out = np.empty((stop - first, k), _FOUND)
        out["score"], out["index"], *missed = work.best(first, stop, k=k, surely=False)
        if missed:
            # Not by much, but for these a reference that bfloat16 left out may be among the best.
            doubtful = np.flatnonzero(~(out["score"][:, -1] > missed[0]) & (missed[0] != -np.inf))
            if len(doubtful):
                again = work.of(first + doubtful)
                score, index, _ = again.best(0, len(doubtful), k=k, surely=True)
                out["score"][doubtful], out["index"][doubtful] = score, index
        return out

    found = _journalled(work, block, journal, k=k)
    present = found["score"] != -np.inf
    return Neighbours(
        np.where(present, np.clip(found["score"], -1.0, 1.0), np.float32(-2.0)),
        np.where(present, found["index"], np.int32(-1)),
    )


def histogram(
    queries: Rows,
    references: Rows,
    *,
    bins: int = 200,
    mesh: jax.sharding.Mesh | None = None,
    tiling: Tiling | None = None,
    ring: bool | None = None,
) -> PairHistogram:
    """The distribution of the cosines of all pairs, none left out.

    Args:
      queries: [n, d] unit rows.
      references: [m, d] unit rows.
      bins: equal bins of [-1, 1]; a bin holds its lower edge, the last one both.
      mesh: see `nearest`.
      tiling: see `nearest`.
      ring: see `nearest`.

    Returns:
      Counts that add up to n m.
    """
    work = _Work.plan(queries, references, mesh, tiling, ring)
    visit = tiles.visit_histogram(bins=bins, tiling=work.tiling)
    start = (np.zeros((work.unit, bins), np.int32),)
    counts = np.zeros(bins, np.int64)
    for block in work.blocks():
        counts += work.run(visit, start, *block)[0].sum(0, dtype=np.int64)
    return PairHistogram(np.linspace(-1, 1, bins + 1), counts)


@functools.partial(jax.jit, static_argnames=("visit", "mesh", "ring"))
def _step(
    state: State,
    queries: Queries,
    references: References,
    first: Array,
    total: Array,
    *,
    visit: Visit,
    mesh: jax.sharding.Mesh,
    ring: bool,
) -> State:
    return parallel.stream(visit, mesh=mesh, ring=ring)(state, queries, references, first, total)


@dataclasses.dataclass
class _Work:
    """One search, cut up: one call of the program takes `span` references, of all devices."""

    queries: Rows
    references: Rows
    mesh: jax.sharding.Mesh
    tiling: Tiling
    ring: bool
    span: int
    groups: tuple[np.ndarray, np.ndarray] | None = None
    held: list[tuple[int, References]] | None = None

    @classmethod
    def plan(
        cls,
        queries: Rows,
        references: Rows,
        mesh: jax.sharding.Mesh | None,
        tiling: Tiling | None,
        ring: bool | None,
        *,
        k: int = 0,
        groups: embedding_rows.Groups | None = None,
    ) -> "_Work":
        """Checks the shapes and fits the tiling to them; `k` is 0 where all pairs are counted."""
        q, r = check_rows(queries, references)
        ids = check_groups(groups, queries, references)
        mesh = mesh or parallel.data_mesh()
        devices = mesh.size
        if tiling is None:
            platform = mesh.devices.flat[0].platform
            tiling = Tiling.best(platform, queries=q[0], k=k)
        if ring is None:
            ring = devices > 1 and 4 * r[0] * r[1] > _REPLICATED_BYTES
        # Even parts: 65,850 queries must not become two calls of 65,536.
        rows = min(tiling.rows, _up(-(-q[0] // devices), 8))
        strips = _even(-(-q[0] // (rows * devices)), tiling.strips)
        share = -(-r[0] // (devices if ring else 1))
        tile = _up(_even(share, tiling.tile), 32)
        spans = _even(-(-share // tile), tiling.spans)
        tiling = dataclasses.replace(tiling, rows=rows, strips=strips, tile=tile, spans=spans)
        span = tile * spans * (devices if ring else 1)
        return cls(queries, references, mesh, tiling, ring, span, ids)

    def of(self, rows: np.ndarray) -> "_Work":
        """The same search of some queries, a strip at a time; references that are held stay."""
        return dataclasses.replace(
            self,
            queries=ChosenRows(self.queries, rows),
            groups=self.groups and (self.groups[0][rows], self.groups[1]),
            tiling=dataclasses.replace(self.tiling, strips=1),
        )

    @property
    def unit(self) -> int:
        """Queries of one call."""
        return self.tiling.rows * self.tiling.strips * self.mesh.size

    def blocks(self) -> list[tuple[int, int]]:
        """First and one-past-last query of each block."""
        count = self.queries.shape[0]
        size = max(1, _BLOCK // self.unit) * self.unit
        return [(first, min(first + size, count)) for first in range(0, count, size)]

    def best(self, first: int, stop: int, *, k: int, surely: bool) -> _Columns:
        """Scores and ids [n, k] of some queries; in bfloat16 also what may have been missed [n]."""
        start: _Columns = (
            np.full((self.unit, k), -np.inf, np.float32),
            np.zeros((self.unit, k), np.int32),
        )
        if self.tiling.half:
            start = (*start, np.full(self.unit, -np.inf, np.float32))
        visit = tiles.visit_best(tiling=self.tiling, in_order=not self.ring, surely=surely)
        return self.run(visit, start, first, stop)

    def run(self, visit: Visit, start: _Columns, first: int, stop: int) -> _Columns:
        """The state of queries `first` to `stop` after all references, as NumPy arrays."""
        spread = parallel.batch_sharding(self.mesh)
        states: list[State] = [jax.device_put(start, spread)] * -(-(stop - first) // self.unit)
        total = np.int32(self.references.shape[0])
        call = functools.partial(_step, visit=visit, mesh=self.mesh, ring=self.ring)

        def advance(pieces: list[tuple[int, References]], i: int) -> None:
            where = first + i * self.unit, stop, self.unit, spread
            given = Queries(self._place(self.queries, *where), self._labels(0, *where))
            for offset, references in pieces:
                states[i] = call(states[i], given, references, np.int32(offset), total)
            # Enough work is queued to keep the devices busy, and no more: each call in flight
            # holds a tile of scores.
            jax.block_until_ready(states[max(0, i - ahead)])

        # On one CPU a call leaves cores idle, so several run side by side. Collectives must be
        # started in one order everywhere: with more devices, one thread runs ahead of them.
        alone = self.mesh.size == 1
        ahead = 0 if alone else _AHEAD
        with ThreadPoolExecutor(_WORKERS if alone else 1) as pool:
            for pieces in self._resident():
                go = functools.partial(advance, pieces)
                collections.deque(pool.map(go, range(len(states))), maxlen=0)
        columns = zip(*(parallel.whole(state) for state in states), strict=True)
        return tuple(np.concatenate(column)[: stop - first] for column in columns)

    def _resident(self) -> Iterator[list[tuple[int, References]]]:
        """References on the devices, as many at a time as they can hold, each with its number."""
        if self.held is not None:
            yield self.held
            return
        sharding = (parallel.batch_sharding if self.ring else parallel.replicated)(self.mesh)
        count, dim = self.references.shape
        each = 6 if self.tiling.half else 4
        bytes_each = each * dim * self.span // (self.mesh.size if self.ring else 1)
        at_once = max(1, self.tiling.resident_bytes // bytes_each) * self.span
        for low in range(0, count, at_once):
            pieces = []
            for offset in range(low, min(low + at_once, count), self.span):
                where = offset, count, self.span, sharding
                given = self._place(self.references, *where), self._labels(1, *where)
                make = tiles.split_bf16 if self.tiling.half else References
                pieces.append((offset, make(*given)))
            if at_once >= count:
                self.held = pieces
            yield pieces

    def _place(
        self, source: Rows, first: int, stop: int, length: int, sharding: jax.NamedSharding
    ) -> Array:
        """Rows `first` to `stop`, zeros up to `length`; each process reads its devices' own."""
        shape = (length, source.shape[1])

        def read(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            low, high, _ = index[0].indices(length)
            part = source[min(first + low, stop) : min(first + high, stop)]
            return tiles.padded(part, high - low)

        return jax.make_array_from_callback(shape, sharding, read)

    def _labels(
        self, side: int, first: int, stop: int, length: int, sharding: jax.NamedSharding
    ) -> Array | None:
        """Groups `first` to `stop` of the queries (0) or the references (1), -1 up to `length`."""
        if self.groups is None:
            return None
        part = self.groups[side][first : min(first + length, stop)]
        part = np.pad(part, (0, length - len(part)), constant_values=-1)
        return jax.make_array_from_callback((length,), sharding, lambda index: part[index])


def _journalled(
    work: _Work, block: Callable[[int, int], np.ndarray], journal: Section | None, *, k: int
) -> np.ndarray:
    """Runs the blocks that the journal does not hold, and joins all."""
    found = [np.empty((0, k), _FOUND)]
    shape: list[object] = [*work.queries.shape, work.references.shape[0], k]
    if work.groups is not None:
        shape.append(hashlib.sha256(b"/".join(g.tobytes() for g in work.groups)).hexdigest())
    for first, stop in work.blocks():
        make = functools.partial(block, first, stop)
        if journal is None:
            found.append(make())
        else:
            found.append(journal.step("nearest", [shape, first, stop], make, by=By.ALL))
    return np.concatenate(found)


def _traced(
    queries: Rows, references: Rows, *, k: int, groups: embedding_rows.Groups | None
) -> Neighbours:
    """`nearest` as a part of a larger program, a block of queries at a time."""
    rows, others = (jnp.asarray(side, jnp.float32) for side in (queries, references))
    own, theirs = (
        (np.zeros(len(rows), np.int32), np.ones(len(others), np.int32))
        if (given := check_groups(groups, queries, references)) is None
        else given
    )

    def block(part: Array, mine: Array) -> Neighbours:
        products = jnp.where(mine[:, None] == theirs[None], -jnp.inf, tiles.products(part, others))
        scores, indices = topk.top_k(products, k)
        present = scores != -jnp.inf
        clipped = jnp.where(present, jnp.clip(scores, -1.0, 1.0), -2.0)
        return Neighbours(clipped, jnp.where(present, indices, -1))  # type: ignore[arg-type]

    return in_batches(block, rows, own, size=_TRACED)


def _even(count: int, most: int) -> int:
    """The size of the fewest equal parts that hold at most `most`."""
    parts = -(-max(count, 1) // most)
    return -(-max(count, 1) // parts)


def _up(count: int, multiple: int) -> int:
    return -(-max(count, 1) // multiple) * multiple
