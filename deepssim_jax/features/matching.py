"""Which real images hold the points of a query: all pairs, by one matrix product and group maxima.

Contract: descriptors are float32 [n, k, d] of `basis`. For each point of the query the best point of
every real image is found, as it is and mirrored; what many images hold (text, frames, ribs) counts
nothing: weight 1 - (1 - m) / (1 - b), with m the point's best cosine in this image and b the one that
few of a fixed sample of real images reach. The sum over the points ranks the images. Nothing of size
n x m x k ever exists, and the answer depends neither on tiles nor on devices.
"""

import dataclasses
import functools
import itertools
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import programs
from deepssim_jax.ops.batches import batch_size, one_of_each
from deepssim_jax.typing import Array

COMMON = 2  # the so many-th best image of the sample says what is common
SAMPLE = 128
_USUAL = 0.7
# Images whose products stay in a core's cache, or that keep an accelerator busy; and queries at a time.
_tile = functools.partial(batch_size, cpu=32, accelerator=256)
_together = functools.partial(batch_size, cpu=1, accelerator=64)
_WORKERS = 2
_MANY_TILES = 64


@dataclasses.dataclass(frozen=True)
class Ranked:
    """`scores` float32 [n, c], falling; `images` int32 [n, c], -1 where there are none; `mirrored` bool."""

    scores: np.ndarray
    images: np.ndarray
    mirrored: np.ndarray


def weights(best: Array, common: Array) -> Array:
    """How much a match says: 1 for the same descriptor, 0 for what is as good elsewhere.

    Where there are too few other images to say what is common, a usual cosine is.
    """
    common = jnp.clip(common, _USUAL, 1 - 1e-3)
    return jnp.maximum(1 - (1 - best) / (1 - common), 0.0)


def _best(signed: Array, images: Array) -> Array:
    """[m, q, 2, k]: the best cosine of each point [q, 2, k, d] in each image [m, p, d]."""
    *points, d = signed.shape
    products = jax.lax.dot_general(
        images.reshape(-1, d),
        signed.reshape(-1, d),
        (((1,), (1,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )
    return products.reshape(*images.shape[:2], -1).max(1).reshape(len(images), *points)


@functools.partial(jax.jit, static_argnames=("count",))
def _rank(
    queries: Array,
    own: Array,
    tiles: Array,
    subjects: Array,
    sample: Array,
    sample_subjects: Array,
    signs: Array,
    *,
    count: int,
) -> tuple[Array, Array]:
    """The best of 2 x images in the order of (image, mirrored): values [q, count] and places [q, count]."""
    signed = jnp.stack([queries, queries * signs[None, None]], 1)
    same = sample_subjects[:, None] == own[None]
    known = jnp.where(same[..., None, None], -1.0, _best(signed, sample))
    common = jnp.sort(known.max(2), 0)[-min(COMMON, len(sample))]
    exists = (jnp.abs(queries).sum(-1) > 0).astype(jnp.float32)

    def score(tile: tuple[Array, Array]) -> Array:
        images, people = tile
        worth = weights(_best(signed, images), common[None, :, None]) * exists[None, :, None]
        left_out = (people[:, None] == own[None]) | (people < 0)[:, None]
        return jnp.where(left_out[..., None], -1.0, worth.sum(-1))

    scores = jax.lax.map(score, (tiles, subjects))
    return jax.lax.top_k(jnp.moveaxis(scores, 2, 0).reshape(len(queries), -1), count)


_kept_rank = programs.kept()(_rank)
_Part = tuple[int, Array | np.ndarray, Array | np.ndarray]


def _merged(
    parts: list[tuple[np.ndarray, np.ndarray]], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """What `_rank` of all tiles gives, from that of each part, in their order."""
    scores, places = (np.concatenate(column, 1) for column in zip(*parts, strict=True))
    best = np.argsort(-scores, 1, kind="stable")[:, :count]
    return np.take_along_axis(scores, best, 1), np.take_along_axis(places, best, 1)


@dataclasses.dataclass(frozen=True)
class PointIndex:
    """Descriptors of the real side in tiles, and a sample of them that says what is common."""

    tiles: Array | np.ndarray
    subjects: Array | np.ndarray
    sample: Array | np.ndarray
    sample_subjects: Array | np.ndarray
    signs: Array
    count: int

    @classmethod
    def build(
        cls, descriptors: np.ndarray, signs: np.ndarray, subjects: np.ndarray
    ) -> "PointIndex":
        """From float32 [n, k, d], the signs of the basis and a number >= 0 for each image's patient."""
        n = len(descriptors)
        tile = _tile()
        padding = -n % tile
        wide = np.pad(descriptors, ((0, padding), (0, 0), (0, 0)))
        people = np.pad(subjects, (0, padding), constant_values=-1).astype(np.int32)
        # What stands twice on the real side is not common for that: one image of each patient is asked.
        rows = one_of_each(subjects, most=SAMPLE)
        return cls(
            tiles=jnp.asarray(wide.reshape(-1, tile, *wide.shape[1:])),
            subjects=jnp.asarray(people.reshape(-1, tile)),
            sample=jnp.asarray(descriptors[rows]),
            sample_subjects=jnp.asarray(subjects[rows].astype(np.int32)),
            signs=jnp.asarray(signs),
            count=n,
        )

    @functools.cached_property
    def _parts(self) -> tuple[_Part, ...]:
        """(first tile, tiles, subjects): a part for each worker, where one query has many tiles."""
        tiles, subjects = np.asarray(self.tiles), np.asarray(self.subjects)
        count = _WORKERS if len(tiles) >= _MANY_TILES else 1
        edges = np.linspace(0, len(tiles), count + 1).astype(int).tolist()
        return tuple(
            (a, jnp.asarray(tiles[a:b]), jnp.asarray(subjects[a:b]))
            for a, b in itertools.pairwise(edges)
        )

    @property
    def points(self) -> int:
        """How many of each image's points it holds."""
        return self.tiles.shape[2]

    def rank(self, queries: np.ndarray, *, count: int, exclude: np.ndarray | None = None) -> Ranked:
        """The `count` real images that hold most of each query's points.

        Args:
          queries: float32 [q, k, d].
          count: images a query; an image takes one place for itself and one for its mirror image.
          exclude: int [q], a patient whose images each query must not be compared with.
        """
        own = np.full(len(queries), -2) if exclude is None else exclude
        take = min(count, 2 * self.count)
        together = _together()
        parts = self._parts if len(queries) == together == 1 else ((0, self.tiles, self.subjects),)

        def some(first: int, part: _Part) -> tuple[np.ndarray, np.ndarray]:
            rows = np.minimum(np.arange(first, first + together), len(queries) - 1)
            start, tiles, subjects = part
            scores, places = _kept_rank(
                jnp.asarray(queries[rows]),
                jnp.asarray(own[rows].astype(np.int32)),
                tiles,
                subjects,
                self.sample,
                self.sample_subjects,
                self.signs,
                count=take,
            )
            return np.asarray(scores), np.asarray(places) + 2 * start * tiles.shape[1]

        firsts = range(0, len(queries), together)
        with ThreadPoolExecutor(_WORKERS) as pool:
            found = list(pool.map(some, *zip(*itertools.product(firsts, parts), strict=True)))
        if len(parts) > 1:
            found = [_merged(found, take)]
        scores = np.full((len(queries), count), -1.0, np.float32)
        places = np.full((len(queries), count), -1, np.int32)
        for column, blocks in zip((scores, places), zip(*found), strict=False):
            column[:, :take] = np.concatenate(blocks)[: len(queries)]
        missing = scores < 0
        images = np.where(missing, -1, places // 2)
        return Ranked(scores, images.astype(np.int32), ~missing & (places % 2 == 1))
