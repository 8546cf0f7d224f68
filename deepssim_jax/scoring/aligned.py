"""Best match of every query among all references over a grid of transformations.

Contract: queries and references are low-resolution images [n, s, s] (s of the `SearchGrid`); the
result names, for each query, the k references whose correlation inside a central disc is highest
over all mirrorings, rotations, scales and shifts of the grid, and the transformation.

The search is a matrix product. References are projected once on the principal components of
their own side; every transformed version of a query is projected too, and versions times
references gives all correlations of a tile, of which the maximum over versions is kept. With p
disc pixels, c components and t transformations a query costs 2 t c (p + references) operations;
no array of queries x references ever exists.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax import parallel
from deepssim_jax.ops import arguments, products, search_grid, topk
from deepssim_jax.ops.batches import batch_size, in_batches, mapped, part_length
from deepssim_jax.ops.intensity import zscore
from deepssim_jax.ops.local_likelihood import likelihoods
from deepssim_jax.ops.search_grid import SearchGrid
from deepssim_jax.ops.transform import FLIP_SIGNS, mirrorings
from deepssim_jax.scoring.tiles import half_error, split_bf16
from deepssim_jax.typing import Array, Images

_query_block = functools.partial(batch_size, cpu=8, accelerator=32)
# Transformations of one product: what a core's cache holds, or enough to fill an accelerator.
_rows = functools.partial(batch_size, cpu=512, accelerator=1 << 14)
_SCATTERED = 2048  # rows at a time as float64
_REFERENCE_TILE = 4096


@dataclasses.dataclass(frozen=True)
class AlignedMatches:
    """Best references of each query, best first; equal scores: smaller index first.

    `scores` float32 [n, k] are correlations, `indices` int32 [n, k] rows of the references,
    `transforms` int32 [n, k] flat indices of the grid. A row with fewer than k admissible
    references ends in scores of -2.

    Examples:
      >>> import deepssim_jax as ds
      >>> from deepssim_jax import testing
      >>> phantoms = testing.phantom_images(5)
      >>> found = ds.nearest_aligned(phantoms[1:3], phantoms, k=2)
      >>> found.indices[:, 0], found.scores.shape
      (array([1, 2], dtype=int32), (2, 2))
    """

    scores: np.ndarray
    indices: np.ndarray
    transforms: np.ndarray


@dataclasses.dataclass(frozen=True)
class AlignedIndex:
    """References ready to be searched; build with `build`."""

    grid: SearchGrid
    basis: jax.Array  # [p, c] orthonormal columns
    features: jax.Array  # [n, c] the projected references
    tiles: tuple[jax.Array, ...]  # each [c, tile]
    groups: tuple[jax.Array, ...]  # each int32 [tile]; -1 marks padding
    size: int

    @classmethod
    def build(
        cls,
        references: Images,
        *,
        grid: SearchGrid = SearchGrid(),
        components: int = 160,
        groups: np.ndarray | None = None,
    ) -> "AlignedIndex":
        """Projects the references on their own principal components.

        Args:
          references: [n, s, s] low-resolution images.
          grid: transformations to try.
          components: size of the basis; more is more exact and slower.
          groups: int [n]; a query of the same group never matches the reference.

        Raises:
          ValueError: if there is no reference, or its side is not the grid's.
        """
        references = np.asarray(references, np.float32)
        if (
            references.ndim != 3
            or references.shape[1:] != (grid.size, grid.size)
            or not len(references)
        ):
            raise ValueError(
                f"references must be [n, {grid.size}, {grid.size}] with n >= 1, got "
                f"{references.shape}; make them with search_grid.low_resolution"
            )
        vectors = np.asarray(search_grid.disc_vectors(jnp.asarray(references), grid=grid))
        # The scatter matrix is at most p x p whatever n is; float64 makes its basis repeatable.
        scatter = np.zeros((vectors.shape[1],) * 2)
        for start in range(0, len(vectors), _SCATTERED):
            wide = vectors[start : start + _SCATTERED].astype(np.float64)
            scatter += wide.T @ wide
        # n references span n dimensions at most; whole lanes keep products fast.
        rank = min(components, -(-len(vectors) // 16) * 16)
        basis = np.linalg.eigh(scatter)[1][:, ::-1][:, :rank].astype(np.float32)
        features = vectors @ basis
        groups = (
            np.zeros(len(features), np.int32) if groups is None else np.asarray(groups, np.int32)
        )
        tile = part_length(len(features), most=_REFERENCE_TILE)
        tiles, labels = [], []
        for start in range(0, len(features), tile):
            part, label = features[start : start + tile], groups[start : start + tile]
            missing = tile - len(part)
            tiles.append(jnp.asarray(np.pad(part, ((0, missing), (0, 0))).T))
            labels.append(jnp.asarray(np.pad(label, (0, missing), constant_values=-1)))
        return cls(
            grid=grid,
            basis=jnp.asarray(basis),
            features=jnp.asarray(features),
            tiles=tuple(tiles),
            groups=tuple(labels),
            size=len(features),
        )

    def search(
        self,
        queries: Images,
        *,
        k: int,
        groups: np.ndarray | None = None,
    ) -> AlignedMatches:
        """The k best references of every query.

        Args:
          queries: [n, s, s] low-resolution images.
          k: references wanted; at most as many as there are.
          groups: int [n]; references of the same group are left out (with `build`'s groups).

        Returns:
          The matches, in the order of the queries.
        """
        queries = np.asarray(queries, np.float32)
        k = min(k, self.size)
        # Without groups, -2 is equal to no reference's group.
        labels = (
            np.full(len(queries), -2, np.int32) if groups is None else np.asarray(groups, np.int32)
        )
        block = functools.partial(self._block, k=k)
        scores, indices, versions = in_batches(block, queries, labels, size=_query_block())
        transforms = search_grid.mirrored_order(self.grid).ravel()[versions]
        return AlignedMatches(np.asarray(scores), np.asarray(indices), transforms)

    def _block(self, queries: Array, labels: Array, *, k: int) -> tuple[Array, ...]:
        """Scores, references and versions [b, k] of a block of queries, still on the device."""
        features = _features(queries, self.basis, grid=self.grid)
        chunk, half = _chunk(self.grid), parallel.fast_bfloat16(jax.default_backend())

        def found(number: int) -> tuple[Array, Array]:
            tile, groups = self.tiles[number], self.groups[number]
            scores, index = _search_tile(
                features, tile, groups, labels, k=min(k, tile.shape[1]), chunk=chunk, half=half
            )
            return scores, index + number * tile.shape[1]

        scores, indices = topk.merge_all(map(found, range(len(self.tiles))), k=k)
        return scores, indices, _best_transforms(features, self.features[indices])


def _chunk(grid: SearchGrid) -> int:
    """Transformations of one product: whole poses, at most `_rows` where a pose has fewer."""
    poses, shifts = len(FLIP_SIGNS) * len(grid.poses), len(grid.shifts)
    return shifts * max(
        d for d in range(1, poses + 1) if not poses % d and d * shifts <= max(_rows(), shifts)
    )


@functools.partial(jax.jit, static_argnames="grid")
def _features(low: Array, basis: Array, *, grid: SearchGrid) -> Array:
    """[b, s, s] -> [b, t, c]: every version of every query, normalised and projected.

    In the order of `search_grid.mirrored_order`: the basis is mirrored, and not the images, so that a
    quarter of the versions has to be made.
    """
    window = search_grid.window_indices(grid)
    mirrored = [basis[pixels] for pixels in search_grid.mirrored_disc(grid)]

    def project(image: Array) -> Array:
        pixels = jnp.take(image, window, axis=1, mode="clip").reshape(-1, window.shape[1])
        mean = pixels.mean(1, keepdims=True)
        norm = jnp.sqrt(
            jnp.maximum((pixels**2).mean(1, keepdims=True) - mean**2, 1e-12) * pixels.shape[1]
        )
        # The basis spans vectors of zero mean, so the query's mean drops out by itself.
        return jnp.concatenate([products.matmul(pixels, columns) / norm for columns in mirrored])

    return mapped(project, search_grid.posed(low, grid=grid), side_by_side=8)


@functools.partial(jax.jit, static_argnames=("k", "chunk", "half"))
def _search_tile(
    features: Array, tile: Array, groups: Array, labels: Array, *, k: int, chunk: int, half: bool
) -> tuple[Array, Array]:
    """Scores [b, k] and columns [b, k] of the best references of a tile [c, m]."""
    allowed = (groups[None, :] != labels[:, None]) & (groups[None, :] >= 0)

    def scores(kind: jax.typing.DTypeLike) -> Array:
        exact = products.HIGHEST if kind == jnp.float32 else None
        columns = tile.astype(kind)

        def one(query: Array) -> Array:
            # The maximum is carried, so a chunk of scores is all there is.
            def step(best: Array, rows: Array) -> tuple[Array, None]:
                found = jnp.matmul(
                    rows, columns, precision=exact, preferred_element_type=jnp.float32
                )
                return jnp.maximum(best, found.max(0)), None

            chunks = query.astype(kind).reshape(-1, chunk, query.shape[1])
            return jax.lax.scan(step, jnp.full(tile.shape[1], -2.0), chunks)[0]

        return jnp.where(allowed, jax.lax.map(one, features), -2.0)

    def surely() -> tuple[Array, Array]:
        return topk.top_k(scores(jnp.float32), k)

    if not half:
        return surely()
    wide = min(4 * k + 32, tile.shape[1])
    fast, index = topk.top_k(scores(jnp.bfloat16), wide)
    index = jnp.sort(index, axis=1)  # ties of the exact scores then go to the smaller one
    candidates = jnp.moveaxis(tile[:, index], 0, -1)  # [b, wide, c]
    exact = products.einsum("btc,bwc->btw", features, candidates).max(1)
    exact = jnp.where(jnp.take_along_axis(allowed, index, axis=1), exact, -2.0)
    values, place = jax.lax.top_k(exact, k)
    found = values, jnp.take_along_axis(index, place, axis=1)
    # What was left out cannot truly exceed this.
    error = half_error(features.reshape(-1, features.shape[2]), *split_bf16(tile.T).norms)
    most = fast[:, -1] + error.reshape(features.shape[:2]).max(1)
    proven = (values[:, -1] > most) | (fast[:, -1] <= -2.0)
    return jax.lax.cond(proven.all() | (wide == tile.shape[1]), lambda: found, surely)


def most_likely(
    matches: AlignedMatches,
    queries: Images,
    references: Images,
    *,
    keep: int,
    grid: SearchGrid = SearchGrid(),
) -> AlignedMatches:
    """The matches whose images agree best tile by tile, as they were found or without any motion.

    A correlation is ruled by its strongest region; `ops.local_likelihood` is not, so a copy with a
    changed region comes before an unrelated image of the same outline.

    Args:
      matches: more than are wanted, of `AlignedIndex.search`.
      queries: [n, s, s] low-resolution images that were searched for.
      references: [m, s, s] that were searched.
      keep: matches of each query to keep.
      grid: of the search.

    Returns:
      Matches with likelihoods as scores, best first; absent ones stay at -2.
    """
    compare = functools.partial(_likelihoods, grid=grid)
    near = np.asarray(references, np.float32)[matches.indices]
    score = in_batches(compare, queries, near, matches.transforms, size=_query_block())
    score = np.where(matches.scores > -2.0, score, -2.0)
    order = np.lexsort((matches.indices, -score))[:, :keep]
    return AlignedMatches(
        *(np.take_along_axis(x, order, 1) for x in (score, matches.indices, matches.transforms))
    )


@functools.partial(jax.jit, static_argnames="grid")
def _likelihoods(queries: Array, references: Array, index: Array, *, grid: SearchGrid) -> Array:
    """[b, s, s] queries, [b, k, s, s] references and [b, k] transformations to [b, k]."""

    def one(row: tuple[Array, Array, Array]) -> Array:
        query, others, chosen = row
        found = search_grid.grid_transform(chosen, grid=grid, size=grid.size)
        tried = jax.tree.map(
            lambda one, more: jnp.concatenate([one[:, None], more], 1),
            found,
            mirrorings(len(chosen)),
        )
        copies = jnp.broadcast_to(query, others.shape)
        return likelihoods(copies, others, tried, size=grid.size).max(1)

    return mapped(one, (queries, references, index), side_by_side=8)


@jax.jit
def _best_transforms(features: Array, references: Array) -> Array:
    """[b, t, c] versions and [b, m, c] references to the best version of each, int32 [b, m]."""
    return products.einsum("btc,bmc->btm", features, references).argmax(1).astype(jnp.int32)


def nearest_aligned(
    synthetic: Images,
    real: Images,
    *,
    k: int,
    grid: SearchGrid = SearchGrid(),
    components: int = 160,
) -> AlignedMatches:
    """Best match of every synthetic image over mirrorings, rotations, zooms and shifts.

    Args:
      synthetic: [n, s, s] square images, any intensity scale.
      real: [m, t, t] square images.
      k: references wanted; at most m.
      grid: the transformations tried.
      components: principal components of the real side that are compared.

    Returns:
      Correlations, indices and grid transformations, best first. A constant image has no structure:
      its correlations are 0.

    Raises:
      ValueError: images are not square or hold NaN or infinite values, there is no real one, or `k` or
        `components` does not fit.

    Examples:
      >>> import deepssim_jax as ds
      >>> from deepssim_jax import testing
      >>> phantoms = testing.phantom_images(5)
      >>> mirrored = phantoms[:, :, ::-1]
      >>> ds.nearest_aligned(mirrored, phantoms, k=1).indices[:, 0]
      array([0, 1, 2, 3, 4], dtype=int32)
    """
    synthetic, real = (
        arguments.images(images, name, shape="[n, s, s]", dims=(3,), square=True)
        for name, images in (("synthetic", synthetic), ("real", real))
    )
    arguments.instance(grid, "grid", SearchGrid, remedy="the global search of images")
    if not len(real):
        raise ValueError("real holds no image to search in; m is 0")
    arguments.whole(k, "k", least=1, most=len(real))
    arguments.whole(components, "components", least=1)
    low = [
        in_batches(lambda x: search_grid.low_resolution(zscore(x), grid=grid), images, size=256)
        for images in (synthetic, real)
    ]
    return AlignedIndex.build(low[1], grid=grid, components=components).search(low[0], k=k)
