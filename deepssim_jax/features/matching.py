"""Which real images hold the points of a query: all pairs, by one matrix product and group maxima.

Contract: descriptors are float32 [n, k, d] of `basis`. For each point of the query the best point of
every real image is found, as it is and mirrored; what many images hold (text, frames, ribs) counts
nothing: weight 1 - (1 - m) / (1 - b), with m the point's best cosine in this image and b the one that
few of a fixed sample of real images reach. The sum over the points ranks the images. Nothing of size
n x m x k ever exists, and the answer depends neither on tiles nor on devices.
"""

import dataclasses
import functools
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops.batches import even_rows
from deepssim_jax.typing import Array

COMMON = 2  # the so many-th best image of the sample says what is common
SAMPLE = 128
_USUAL = 0.7
_TILE = 32  # images whose products stay in a core's cache
_WORKERS = 2


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
    """[m, 2, k]: the best cosine of each point [2, k, d] in each image [m, p, d]."""
    two, k, d = signed.shape
    products = jax.lax.dot_general(
        images.reshape(-1, d),
        signed.reshape(-1, d),
        (((1,), (1,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )
    return products.reshape(len(images), -1, two * k).max(1).reshape(len(images), two, k)


@functools.partial(jax.jit, static_argnames=("count",))
def _rank(
    query: Array,
    own: Array,
    tiles: Array,
    subjects: Array,
    sample: Array,
    sample_subjects: Array,
    signs: Array,
    *,
    count: int,
) -> tuple[Array, Array]:
    """The best of 2 x images in the order of (image, mirrored): values [count] and places [count]."""
    signed = jnp.stack([query, query * signs[None]])
    known = jnp.where((sample_subjects == own)[:, None, None], -1.0, _best(signed, sample))
    common = jnp.sort(known.max(1), 0)[-min(COMMON, len(sample))]
    exists = (jnp.abs(query).sum(-1) > 0).astype(jnp.float32)

    def score(tile: tuple[Array, Array]) -> Array:
        images, people = tile
        worth = (weights(_best(signed, images), common[None, None]) * exists[None, None]).sum(-1)
        return jnp.where((people == own)[:, None] | (people < 0)[:, None], -1.0, worth)

    scores = jax.lax.map(score, (tiles, subjects)).reshape(-1)
    return jax.lax.top_k(scores, count)


@dataclasses.dataclass(frozen=True)
class PointIndex:
    """Descriptors of the real side in tiles, and a sample of them that says what is common."""

    tiles: Array
    subjects: Array
    sample: Array
    sample_subjects: Array
    signs: Array
    count: int

    @classmethod
    def build(
        cls, descriptors: np.ndarray, signs: np.ndarray, subjects: np.ndarray
    ) -> "PointIndex":
        """From float32 [n, k, d], the signs of the basis and a number >= 0 for each image's patient."""
        n = len(descriptors)
        padding = -n % _TILE
        wide = np.pad(descriptors, ((0, padding), (0, 0), (0, 0)))
        people = np.pad(subjects, (0, padding), constant_values=-1).astype(np.int32)
        rows = even_rows(n, most=SAMPLE)
        return cls(
            tiles=jnp.asarray(wide.reshape(-1, _TILE, *wide.shape[1:])),
            subjects=jnp.asarray(people.reshape(-1, _TILE)),
            sample=jnp.asarray(descriptors[rows]),
            sample_subjects=jnp.asarray(subjects[rows].astype(np.int32)),
            signs=jnp.asarray(signs),
            count=n,
        )

    def rank(self, queries: np.ndarray, *, count: int, exclude: np.ndarray | None = None) -> Ranked:
        """The `count` real images that hold most of each query's points.

        Args:
          queries: float32 [q, k, d].
          count: images a query; an image takes one place for itself and one for its mirror image.
          exclude: int [q], a patient whose images each query must not be compared with.
        """
        own = np.full(len(queries), -2) if exclude is None else exclude
        take = min(count, 2 * self.count)

        def one(i: int) -> tuple[np.ndarray, np.ndarray]:
            found = _rank(
                jnp.asarray(queries[i]),
                jnp.int32(own[i]),
                self.tiles,
                self.subjects,
                self.sample,
                self.sample_subjects,
                self.signs,
                count=take,
            )
            return np.asarray(found[0]), np.asarray(found[1])

        with ThreadPoolExecutor(_WORKERS) as pool:
            found = list(pool.map(one, range(len(queries))))
        scores = np.full((len(queries), count), -1.0, np.float32)
        places = np.full((len(queries), count), -1, np.int32)
        for row, (values, place) in enumerate(found):
            scores[row, :take], places[row, :take] = values, place
        missing = scores < 0
        images = np.where(missing, -1, places // 2)
        return Ranked(scores, images.astype(np.int32), ~missing & (places % 2 == 1))
