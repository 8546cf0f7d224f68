"""Do the matched points of two images lie as one image's do? An affine map, and how much agrees with it.

Contract: positions are (y, x) from the middle of the canvas, in its pixels. Each match of two points
is a hypothesis by itself: a similarity, from positions, sizes and orientations. The hypothesis with
which most of the others agree is refined to an affine map by reweighted least squares; then every
point may look for its partner near where the map puts it. The score is a sum of the matches' weights
in which a real point counts once, and one that lies where the map puts it four times as much as one near
it: points of a copy lie there to a fraction of a pixel, even where few of them were copied, while those
of unrelated images lie anywhere around.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from deepssim_jax.features.extract import LocalFeatures
from deepssim_jax.features.matching import weights
from deepssim_jax.ops.products import einsum, matmul
from deepssim_jax.typing import Array

COMMON = 4  # the so many-th best candidate says what is common
_MATCHES = 96  # of each pair vote
_VERIFIED = 12  # candidates of the most votes get an affine map
_NEAR, _SLOPE = 6.0, 0.2  # error of a prediction in pixels, and by the distance
_TURN, _ZOOM = 0.85, 0.55  # cosine of the turn and log of the scale that still agree
_TOLERANCES = (16.0, 10.0, 7.0)  # pixels, of the reweighting
_GUIDED = 8.0  # pixels around the predicted place
# How far from there a copy's points lie: pixels, and sigmas of the point; and what one counts that is
# merely near.
_PLACED, _BY_SIZE, _LOOSE = 0.5, 0.2, 0.25
# What a match counts where bright and dark change places: the other contrasts of a patient's MR series look
# so, too, in 13 points of a slice, and a negative of the image itself in nearly all.
_NEGATIVE = 0.4
_MIN_AREA, _MAX_AREA, _MAX_ASPECT = 0.06, 16.0, 2.4


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("score", "exact", "matrix", "shift", "image", "mirrored", "negative"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True)
class Verified:
    """Of n queries the best candidates, `score` [n, c] falling.

    `exact` [n, c], in [0, 1], is how exactly the matches lie where the map puts them. `matrix`
    [n, c, 2, 2] and `shift` [n, c, 2] map positions of the query (mirrored left to right first where
    `mirrored`) to those of the real image; `image` int [n, c], -1 where there is none; `negative`,
    whether bright and dark changed places.
    """

    score: Array
    exact: Array
    matrix: Array
    shift: Array
    image: Array
    mirrored: Array
    negative: Array


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("position", "angle", "log_sigma", "polarity", "valid"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True)
class _Frames:
    """Keypoints without their descriptors, arrays [..., k]."""

    position: Array
    angle: Array
    log_sigma: Array
    polarity: Array
    valid: Array

    @classmethod
    def of(cls, f: LocalFeatures) -> "_Frames":
        return cls(f.positions, f.angles, jnp.log(f.sigmas), f.polarities, f.valid)

    def mirrored(self, which: Array) -> "_Frames":
        """[c, k]: left and right changed places for those of `which` [c]."""
        flip = which[:, None]
        sign = jnp.where(flip, -1.0, 1.0)
        y = jnp.broadcast_to(self.position[..., 0], (len(which), len(self.angle)))
        position = jnp.stack([y, sign * self.position[None, :, 1]], -1)
        angle = jnp.where(flip, jnp.pi - self.angle[None], self.angle[None])
        return dataclasses.replace(self, position=position, angle=angle)


def verify(
    query: LocalFeatures, candidates: LocalFeatures, image: Array, mirrored: Array, signs: Array
) -> Verified:
    """One query against its candidates; descriptors are those of `basis`.

    Args:
      query: arrays [k, ...].
      candidates: arrays [c, k, ...].
      image: int [c], the candidates' numbers, -1 for none.
      mirrored: bool [c].
      signs: of the basis.
    """
    frames, others = _Frames.of(query), _Frames.of(candidates)
    both = query.descriptors[None], (query.descriptors * signs[None])[None]
    signed = jnp.where(mirrored[:, None, None], both[1], both[0])
    cosine = einsum("ckd,cjd->ckj", signed, candidates.descriptors)
    cosine = jnp.where(others.valid[:, None, :] & (image >= 0)[:, None, None], cosine, -1.0)
    best = cosine.max(2)
    partner = _first_of(cosine, best)
    common = jnp.sort(best, 0)[-min(COMMON, len(best))]
    weight = weights(best, common[None]) * frames.valid[None]
    frames = frames.mirrored(mirrored)
    votes, seeds = jax.vmap(_vote)(_for_each(frames, len(best)), others, partner, weight)
    _, chosen = jax.lax.top_k(votes, min(_VERIFIED, len(votes)))
    take = functools.partial(jax.tree.map, lambda a: a[chosen])
    found = jax.vmap(_fit, in_axes=(0, 0, 0, 0, 0, 0, None))(
        take(_for_each(frames, len(best))), take(others), partner[chosen], weight[chosen],
        take(seeds), cosine[chosen], common,
    )  # fmt: skip
    score, exact, matrix, shift, negative = found
    score = jnp.where(image[chosen] >= 0, score, 0.0)
    order = jnp.argsort(-score, stable=True)
    columns = (score, exact, matrix, shift, image[chosen], mirrored[chosen], negative)
    return Verified(*(a[order] for a in columns))


def _for_each(frames: _Frames, count: int) -> _Frames:
    """The query's frames once for each candidate."""
    k = frames.valid.shape[-1]
    wide = functools.partial(jnp.broadcast_to, shape=(count, k))
    return _Frames(
        frames.position,
        frames.angle,
        wide(frames.log_sigma),
        wide(frames.polarity),
        wide(frames.valid),
    )


def _vote(frames: _Frames, others: _Frames, partner: Array, weight: Array) -> tuple[Array, Array]:
    """The most votes that a match gets, and the two best matches' sets of those that agree [2, k]."""
    w, order = jax.lax.top_k(weight, min(_MATCHES, len(weight)))
    p = frames.position[order]
    there = partner[order]
    q = others.position[there]
    turn = others.angle[there] - frames.angle[order]
    zoom = others.log_sigma[there] - frames.log_sigma[order]
    negative = frames.polarity[order] * others.polarity[there]
    c, s = jnp.cos(turn) * jnp.exp(zoom), jnp.sin(turn) * jnp.exp(zoom)
    dy, dx = (p[None, :, i] - p[:, None, i] for i in (0, 1))
    ey = q[:, None, 0] + s[:, None] * dx + c[:, None] * dy - q[None, :, 0]
    ex = q[:, None, 1] + c[:, None] * dx - s[:, None] * dy - q[None, :, 1]
    distance = jnp.sqrt(((q[:, None] - q[None]) ** 2).sum(-1))
    agrees = ey**2 + ex**2 < (_NEAR + _SLOPE * distance) ** 2
    agrees &= _alike(turn[:, None], turn[None]) > _TURN
    agrees &= jnp.abs(zoom[:, None] - zoom[None]) < _ZOOM
    agrees &= negative[:, None] == negative[None]
    votes = jnp.where(w > 0, (agrees * w[None]).sum(1), 0.0)
    top, which = jax.lax.top_k(votes, 2)
    chosen = jnp.zeros((2, len(weight)), bool).at[:, order].set(agrees[which])
    return top[0], chosen


def _fit(
    frames: _Frames,
    others: _Frames,
    partner: Array,
    weight: Array,
    seeds: Array,
    cosine: Array,
    common: Array,
) -> tuple[Array, ...]:
    """Score, exactness, matrix, shift and polarity of one candidate by the better of two seeds."""
    q = others.position[partner]
    relation = frames.polarity * others.polarity[partner]

    def refine(seed: Array) -> tuple[Array, Array, Array, Array]:
        sign = jnp.where((seed * weight * relation).sum() < 0, -1.0, 1.0)
        usable = weight * (relation == sign)
        matrix, shift = _affine(seed * (weight + 1e-4), frames.position, q)
        for tolerance in _TOLERANCES:
            error = _residual(matrix, shift, frames.position, q)
            w = usable * (error < 3 * tolerance) / (1 + (error / tolerance) ** 2) ** 2
            better = _affine(w, frames.position, q)
            enough = (w > 0.02).sum() >= 4
            matrix, shift = (jnp.where(enough, a, b) for a, b in zip(better, (matrix, shift)))
        error = _residual(matrix, shift, frames.position, q)
        return (usable / (1 + (error / _TOLERANCES[-1]) ** 2)).sum(), matrix, shift, sign

    worth, matrix, shift, sign = jax.vmap(refine)(seeds)
    i = jnp.argmax(worth)
    matrix, shift, sign = matrix[i], shift[i], sign[i]
    area = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]
    # |M|^2 / det = r + 1 / r for the ratio r of its axes.
    ratio = (matrix**2).sum() / jnp.maximum(area, 1e-3)
    sane = (area > _MIN_AREA) & (area < _MAX_AREA) & (ratio < _MAX_ASPECT + 1 / _MAX_ASPECT)
    placed = _moved(matrix, shift, frames.position)
    apart = ((placed[:, None] - others.position[None]) ** 2).sum(-1)
    near = apart < _GUIDED**2
    zoom = others.log_sigma[None] - frames.log_sigma[:, None] - jnp.log(jnp.maximum(area, 1e-3)) / 2
    near &= jnp.abs(zoom) < _ZOOM
    turn = jnp.arctan2(matrix[0, 1] - matrix[1, 0], matrix[0, 0] + matrix[1, 1])
    near &= _alike(others.angle[None], frames.angle[:, None] + turn) > 0.75
    near &= others.polarity[None] * frames.polarity[:, None] == sign
    guided = jnp.where(near, cosine, -1.0)
    best = guided.max(1)
    w, real = weights(best, common) * frames.valid, _first_of(guided, best)
    strongest = jnp.zeros(len(w)).at[real].max(w)
    w = jnp.where(w >= strongest[real] - 1e-9, w, 0.0)
    reach = _PLACED + _BY_SIZE * jnp.exp(others.log_sigma[real])
    error = jnp.take_along_axis(apart, real[:, None], 1)[:, 0]
    exact = (w * jnp.exp(-0.5 * error / reach**2)).sum()
    score = _LOOSE * w.sum() + (1 - _LOOSE) * exact
    score *= jnp.where(sign < 0, _NEGATIVE, 1.0)
    return score * sane, exact / jnp.maximum(w.sum(), 1e-6), matrix, shift, sign < 0


def _first_of(values: Array, largest: Array) -> Array:
    """Where the largest values [..., k] first stand in [..., k, m]; what `argmax` gives, but vectorised."""
    count = values.shape[-1]
    places = jnp.arange(count).reshape((1,) * (values.ndim - 1) + (count,))
    found = jnp.where(values >= largest[..., None], places, count).min(-1)
    return jnp.minimum(found, count - 1)


def _alike(a: Array, b: Array) -> Array:
    """Cosine of the difference of angles; the functions of single angles are made once each."""
    return jnp.cos(a) * jnp.cos(b) + jnp.sin(a) * jnp.sin(b)


def _moved(matrix: Array, shift: Array, p: Array) -> Array:
    """M p + t of positions [k, 2]."""
    return matmul(p, matrix.T) + shift[None]


def _residual(matrix: Array, shift: Array, p: Array, q: Array) -> Array:
    return jnp.sqrt(((_moved(matrix, shift, p) - q) ** 2).sum(-1))


def _affine(w: Array, p: Array, q: Array) -> tuple[Array, Array]:
    """Weighted least squares q = M p + t, slightly drawn to no change of shape."""
    total = w.sum() + 1e-6
    pm, qm = ((w[:, None] * x).sum(0) / total for x in (p, q))
    a, b = p - pm[None], q - qm[None]
    gram = matmul((a * w[:, None]).T, a) + 1e-3 * total * jnp.eye(2)
    cross = matmul((b * w[:, None]).T, a)
    determinant = gram[0, 0] * gram[1, 1] - gram[0, 1] ** 2
    inverse = jnp.array([[gram[1, 1], -gram[0, 1]], [-gram[0, 1], gram[0, 0]]])
    matrix = matmul(cross, inverse) / jnp.maximum(determinant, 1e-9)
    return matrix, qm - matmul(matrix, pm)
