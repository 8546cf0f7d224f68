"""Does an aligned pair share what the other images of its kind do not?

Contract: two images of one kind agree in much that every image of the kind shows: a disc in a black frame,
ribs, a skull. So the structure that the real side has in common, its mean and its principal components in
the real images' own frame, is taken out of both images of a pair by least squares before they are
correlated: a partial correlation. It is looked at in bands of detail apart, because noise destroys
the fine one and blur, too, while the coarse one is similar in unrelated images.

An image of which a part is as bright as can be was perhaps brightened or windowed until the detail of
whole areas was lost. There the real image is also compared with its grey levels brought to those that the
other has in the same places, and so is the mean of the real side, which is taken out as well; the better
agreement counts.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import resample
from deepssim_jax.ops.batches import batch_size, in_batches
from deepssim_jax.ops.intensity import local_zscore, zscore
from deepssim_jax.ops.products import einsum
from deepssim_jax.ops.transform import Transform, ellipsoid
from deepssim_jax.typing import Array, Images

SIGMAS = (
    0.6,
    1.2,
    2.4,
)  # pixels at a side of _SIDE: each band lies between a blur and one twice as wide
BANDS = len(SIGMAS)
_SIDE = 64
_NEIGHBOURHOOD = 16  # the side is this many times the width of what a pixel is compared with
SAMPLE, _COMPONENTS = 256, 16  # images that say what is common, and how much of it
_DISC = 1.05  # corners hold whatever a copy's maker filled them with
# Parts of a real image's grey levels; the share of an image that is as bright as can be, to this share of
# its range, above which detail may be lost.
_TONES, _LOST, _TOP = 12, 0.1, 0.01
_RIDGE = 1e-3  # of the components' mean square
_LIMIT = 1 - 1e-5
# Tiles a side; the part of one that both must see; its energy beside the mean's; and which of the tiles,
# from the best, says how well a copied one agrees, and by how much less others may.
_TILES, _COVERED, _STRUCTURE, _BEST, _AGREES = 8, 0.7, 0.1, 0.1, 0.45
# How far other places lie whose tiles say what agrees by chance, in tiles; and the most that is believed.
_ELSEWHERE, _MOST_CHANCE = ((2, 0), (0, 2), (3, 3), (-3, 2)), 0.5
_batch = functools.partial(batch_size, cpu=16, accelerator=256)  # images or pairs at a time


def _blur(images: Array, sigma: float) -> Array:
    matrix = jnp.asarray(resample.blur_matrix(_SIDE, sigma))
    return einsum("ij,njk,lk->nil", matrix, images, matrix)


def _bands(local: Array) -> Array:
    """[n, BANDS, p] of contrast-normalised images [n, _SIDE, _SIDE]."""
    parts = [_blur(local, sigma) - _blur(local, 2 * sigma) for sigma in SIGMAS]
    return jnp.stack(parts, 1).reshape(len(local), BANDS, -1)


def _small(images: Array) -> Array:
    return zscore(resample.resize(jnp.asarray(images, jnp.float32), (_SIDE, _SIDE)))


def _contrast(small: Array) -> Array:
    return local_zscore(small, sigma=_SIDE / _NEIGHBOURHOOD)


@jax.jit
def _described(images: Array) -> tuple[Array, Array]:
    """Of images [n, s, s] their intensities [n, _SIDE, _SIDE], and [n, BANDS, p]."""
    small = _small(images)
    return small, _bands(_contrast(small))


@dataclasses.dataclass(frozen=True)
class Agreeing:
    """Of n aligned pairs: `partial` float32 [n, BANDS], Fisher's z of the partial correlation times the
    root of the share of the frame that both see, larger for a copy; `share` float32 [n], how much of
    what both see agrees, 1 for the whole and less where only a part was copied.
    """

    partial: np.ndarray
    share: np.ndarray


@dataclasses.dataclass(frozen=True)
class Common:
    """What the images of one side share: `axes` float32 [BANDS, c, p], orthonormal in each band, and
    `mean` float32 [s, s], of their intensities less mean and by deviation.
    """

    axes: np.ndarray
    mean: np.ndarray

    @classmethod
    def of(cls, images: Images) -> "Common":
        """The mean and the first principal components of images [n, s, s], n at least 1."""
        small, found = in_batches(_described, images, size=_batch())
        bands = np.asarray(found, np.float64)
        axes = []
        for band in np.moveaxis(bands, 1, 0):
            mean = band.mean(0)
            centred = band - mean
            values, vectors = np.linalg.eigh(centred @ centred.T)
            few = max(1, min(_COMPONENTS, len(band) // 4))
            axes.append(np.stack([mean, *(vectors[:, ::-1][:, :few].T @ centred)]))
        orthonormal = np.stack([np.linalg.qr(a.T)[0].T for a in axes]).astype(np.float32)
        return cls(orthonormal, np.asarray(small).mean(0, np.float64).astype(np.float32))

    def correlations(
        self, moving: Images, fixed: Images, transform: Transform, negative: np.ndarray
    ) -> "Agreeing":
        """How aligned pairs agree beyond what all images share.

        Args:
          moving: [n, s, s] synthetic images.
          fixed: [n, s, s] real images, row for row.
          transform: how each `fixed` became `moving`, in pixels.
          negative: bool [n], whether bright and dark of `moving` change places first.

        Returns:
          Partial correlations, and the share of the picture that agrees.
        """
        axes, mean = jnp.asarray(self.axes), jnp.asarray(self.mean)
        scale = _SIDE / moving.shape[-1]

        def run(
            a: Array, b: Array, flip: Array, m: Array, shift: Array, sign: Array
        ) -> tuple[Array, Array]:
            return _partial(a, b, Transform(flip, m, shift * scale), sign, axes, mean)

        sign = np.where(negative, -1.0, 1.0).astype(np.float32)
        motion = map(np.asarray, (transform.flip, transform.matrix, transform.shift))
        found = in_batches(run, moving, fixed, *motion, sign, size=_batch())
        return Agreeing(*map(np.asarray, found))


@jax.jit
def _partial(
    moving: Array, fixed: Array, transform: Transform, sign: Array, axes: Array, mean: Array
) -> tuple[Array, Array]:
    positions = transform.positions((_SIDE, _SIDE))
    given, real = _small(moving), _small(fixed)
    levels, aligned = (
        resample.sample_at(x * sign[:, None, None], positions) for x in (given, _contrast(given))
    )
    disc = jnp.asarray(ellipsoid((_SIDE, _SIDE), radius=_DISC))[None]
    seen = (resample.inside(positions, (_SIDE, _SIDE)) & disc).astype(jnp.float32)
    seen = seen.reshape(len(seen), 1, -1)
    a, b = (_bands(x) * seen for x in (aligned, _contrast(real)))
    every = jnp.broadcast_to(axes[None], (len(a), *axes.shape))
    own, others = _left(a, every, seen), _left(b, every, seen)
    cosine, lost = _cosine(own, others), _has_lost(moving)
    again = jax.lax.cond(  # few have lost any detail, and it takes as long as all the rest
        lost.any(),
        lambda: _toned_cosine(a, real, mean, levels, every, seen),
        lambda: cosine,
    )
    cosine = jnp.where(lost[:, None], jnp.maximum(cosine, again), cosine)
    z = jnp.arctanh(jnp.clip(cosine, -_LIMIT, _LIMIT)) * jnp.sqrt(seen.mean(-1))
    return z, _share(own[:, 1:].sum(1), others[:, 1:].sum(1), seen[:, 0])


def _toned_cosine(
    a: Array, real: Array, mean: Array, levels: Array, axes: Array, seen: Array
) -> Array:
    """[n, BANDS]: of `a`, and the real image as `levels` would show it, beyond `mean` shown so."""
    both = jnp.concatenate([real, jnp.broadcast_to(mean[None], real.shape)])
    toned = _toned(both, jnp.tile(levels, (2, 1, 1)), jnp.tile(seen, (2, 1, 1)))
    c, shared = jnp.split(_bands(_contrast(zscore(toned))), 2)
    shared /= jnp.maximum(jnp.sqrt((shared**2).sum(-1, keepdims=True)), 1e-6)
    more = jnp.concatenate([axes, shared[:, :, None]], 2)
    return _cosine(_left(a, more, seen), _left(c * seen, more, seen))


def _left(x: Array, axes: Array, seen: Array) -> Array:
    """What of [n, BANDS, p] the axes [n, BANDS, c, p] do not explain where both images see."""
    masked = axes * seen[:, :, None]
    gram = einsum("nbcp,nbdp->nbcd", masked, axes) + _RIDGE * jnp.eye(axes.shape[2])[None, None]
    weights = jnp.linalg.solve(gram, einsum("nbcp,nbp->nbc", masked, x)[..., None])[..., 0]
    return x - einsum("nbc,nbcp->nbp", weights, masked)


def _has_lost(images: Array) -> Array:
    """Bool [n]: as much of an image is as bright as can be as hides its detail."""
    images = jnp.asarray(images, jnp.float32)
    low, high = images.min((1, 2), keepdims=True), images.max((1, 2), keepdims=True)
    return (images >= high - _TOP * (high - low)).mean((1, 2)) > _LOST


def _cosine(a: Array, b: Array) -> Array:
    norm = jnp.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    return (a * b).sum(-1) / jnp.maximum(norm, 1e-9)


def _toned(real: Array, given: Array, seen: Array) -> Array:
    """Real images [n, s, s] by the curve that takes their grey levels to those of `given` in the same places.

    Its value at the middle of each of `_TONES` equal parts of a real image's pixels is the mean of `given`
    there, of the pixels that both see; between these it is straight.
    """
    flat, given, seen = (x.reshape(len(real), -1) for x in (real, given, seen))
    ordered = jnp.sort(flat, 1)
    step = flat.shape[1] // _TONES
    part = (flat[:, :, None] >= ordered[:, None, step::step][:, :, : _TONES - 1]).sum(-1)
    member = jax.nn.one_hot(part, _TONES) * seen[:, :, None]
    mean = einsum("npk,np->nk", member, given) / jnp.maximum(member.sum(1), 1.0)
    middle = ordered[:, step // 2 :: step][:, :_TONES]
    return jax.vmap(jnp.interp)(flat, middle, mean).reshape(real.shape)


def _share(a: Array, b: Array, seen: Array) -> Array:
    """[n]: of the tiles with structure that both see, those that agree about as well as the best do.

    Noise lowers the agreement everywhere and leaves it even; what was taken from elsewhere agrees nowhere,
    but by chance: as often as tiles with those of other places, which is taken off.
    """
    tile = _SIDE // _TILES

    def sums(x: Array) -> Array:
        return x.reshape(-1, _TILES, tile, _TILES, tile).sum((2, 4)).reshape(len(x), -1)

    def elsewhere(x: Array, by: tuple[int, int], side: int) -> Array:
        return jnp.roll(x.reshape(-1, side, side), by, (1, 2)).reshape(x.shape)

    aa, bb = sums(a * a), sums(b * b)
    there = sums(seen) > _COVERED * tile**2
    count = jnp.maximum(there.sum(1, keepdims=True), 1)
    for own in (aa, bb):
        there &= own > _STRUCTURE * (own * there).sum(1, keepdims=True) / count

    def cosines(b: Array, bb: Array) -> Array:
        return sums(a * b) / jnp.sqrt(jnp.maximum(aa * bb, 1e-12))

    cosine = jnp.where(there, cosines(b, bb), -1.0)
    usual = jnp.sort(cosine, 1)[:, ::-1]
    rank = jnp.maximum((there.sum(1) * _BEST).astype(jnp.int32), 0)
    limit = _AGREES * jnp.take_along_axis(usual, rank[:, None], 1)
    agreeing, met = 0, 0
    for down, right in _ELSEWHERE:
        both = there & elsewhere(there, (down, right), _TILES)
        moved = elsewhere(b, (down * tile, right * tile), _SIDE)
        other = cosines(moved, elsewhere(bb, (down, right), _TILES))
        agreeing, met = agreeing + (both & (other > limit)).sum(1), met + both.sum(1)
    chance = jnp.minimum(agreeing / jnp.maximum(met, 1), _MOST_CHANCE)
    found = (there & (cosine > limit)).sum(1) / jnp.maximum(there.sum(1), 1)
    return jnp.clip((found - chance) / (1 - chance), 1 / count[:, 0], 1.0)
