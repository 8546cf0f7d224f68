"""Which correspondences of keypoints agree on one affine map, and how much they are worth.

Contract: `moving` float32 [k, 3] are places of a query's keypoints, `fixed` [r, k, 3] those of the
keypoint that is most similar in each of r references, `weight` [r, k] >= 0 how distinctive that
similarity is. Two correspondences agree if the distance between their keypoints is the same in both
volumes, whatever the pose; the largest set that agrees is the leading eigenvector of the matrix of
agreement (Leordeanu and Hebert, ICCV 2005), here with that matrix times its square, so that pairs
count which many others support. Its map is orthogonal first, reflections among them, and affine then.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import products
from deepssim_jax.typing import Array

KEPT = 96  # correspondences of a reference that are looked at, those of most weight
_ROUNDS, _REFITS, _POLAR = 20, 3, 12
# Points of the grid: by how much distances may differ, in all and by their length; the least distance
# that says something; and how far from where the map sends it a keypoint still counts.
_SLACK, _STRETCH, _APART, _CLOSE = 2.0, 0.08, 3.0, 2.0
_EXACT = 0.5  # how far from there they are at most in a copy that was not degraded
# The affine map is pulled towards the orthogonal one as by so much evidence of spread-out keypoints.
_PULL = 40.0


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("evidence", "exact", "matrix", "shift"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True)
class Votes:
    """`evidence` [r], the weight that agrees, and `exact` [r], the share of it whose keypoints lie within
    half a point of where the map sends them; `matrix` [r, 3, 3] and `shift` [r, 3] take places of the
    reference to those of the query.
    """

    evidence: Array
    exact: Array
    matrix: Array
    shift: Array


def _polar(matrix: Array) -> Array:
    """The orthogonal matrix [3, 3] nearest to one, reflections among them, by Newton's iteration with
    scaling by the determinant (Higham, SIAM J. Sci. Stat. Comput. 7, 1986): a batch of singular value
    decompositions is many times slower on every device.
    """

    def step(_: int, x: Array) -> Array:
        # The transposed inverse, by the cofactors.
        cofactors = jnp.stack([jnp.cross(x[1], x[2]), jnp.cross(x[2], x[0]), jnp.cross(x[0], x[1])])
        determinant = (x[0] * cofactors[0]).sum()
        determinant = jnp.where(determinant < 0, -1.0, 1.0) * jnp.maximum(
            jnp.abs(determinant), 1e-12
        )
        scale = jnp.abs(determinant) ** (-1 / 3)
        return 0.5 * (scale * x + cofactors / (scale * determinant))

    size = jnp.sqrt((matrix**2).sum())
    start = matrix / jnp.maximum(size, 1e-12) + 1e-4 * jnp.eye(3)
    return jax.lax.fori_loop(0, _POLAR, step, start)


def _orthogonal(a: Array, b: Array, weight: Array) -> tuple[Array, Array]:
    """The orthogonal map of a [k, 3] onto b with least squares (Kabsch), reflections allowed."""
    share = weight / jnp.maximum(weight.sum(), 1e-9)
    middle_a, middle_b = products.matmul(share, a), products.matmul(share, b)
    cross = products.matmul(((b - middle_b[None]) * share[:, None]).T, a - middle_a[None])
    matrix = _polar(cross)
    return matrix, middle_b - products.matmul(matrix, middle_a)


def _affine(a: Array, b: Array, weight: Array, near: Array) -> tuple[Array, Array]:
    """The affine map of a onto b, pulled towards the linear map `near`."""
    total = jnp.maximum(weight.sum(), 1e-9)
    middle_a, middle_b = (products.matmul(weight, x) / total for x in (a, b))
    p, q = a - middle_a[None], b - middle_b[None]
    pull = _PULL * jnp.eye(3)
    left = products.matmul((q * weight[:, None]).T, p) + products.matmul(near, pull)
    right = products.matmul((p * weight[:, None]).T, p) + pull
    matrix = jnp.linalg.solve(right.T, left.T).T
    return matrix, middle_b - products.matmul(matrix, middle_a)


@jax.jit
def agreeing(moving: Array, fixed: Array, weight: Array) -> Votes:
    """The best map for each reference; see the module."""

    def one(item: tuple[Array, Array]) -> Votes:
        places, worth = item
        strongest, rows = jax.lax.top_k(worth, KEPT)
        a, b = places[rows], moving[rows]
        far_a, far_b = (jnp.sqrt(((x[:, None] - x[None]) ** 2).sum(-1) + 1e-9) for x in (a, b))
        off = (far_a - far_b) / (_SLACK + _STRETCH * far_b)
        agree = jnp.maximum(1 - off**2, 0) * ((far_a > _APART) & (far_b > _APART))
        agree = agree * strongest[:, None] * strongest[None]
        agree = agree * products.matmul(agree, agree)

        def power(_: int, x: Array) -> Array:
            x = products.matmul(agree, x)
            return x / (jnp.linalg.norm(x) + 1e-12)

        chosen = jax.lax.fori_loop(0, _ROUNDS, power, jnp.full(KEPT, 1 / np.sqrt(KEPT)))
        matrix, shift = _orthogonal(a, b, chosen)
        near = matrix

        def fit(matrix: Array, shift: Array, close: float = _CLOSE) -> Array:
            away = ((products.matmul(a, matrix.T) + shift[None] - b) ** 2).sum(-1)
            return jnp.exp(-0.5 * away / close**2) * strongest

        for _ in range(_REFITS):
            inliers = fit(matrix, shift)
            near, _ = _orthogonal(a, b, inliers)
            matrix, shift = _affine(a, b, inliers, near)
        evidence, exact = fit(matrix, shift).sum(), fit(matrix, shift, _EXACT).sum()
        return Votes(evidence, exact / jnp.maximum(evidence, 1e-9), matrix, shift)

    return jax.lax.map(one, (fixed, weight), batch_size=64)
