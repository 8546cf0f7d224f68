"""Brain images of people who do not exist, made on the device.

Contract: a subject is a set of coarse random grids; the same subject always has the same anatomy,
whatever its contrast, pose, noise or resolution. Images are float32 [n, h, w], volumes
[n, d, h, w], in [0, 1], axes as in `data.volume`.

A position in the image (mm) is moved by the pose, then by smooth displacement fields of three
scales in turn, and the tissue maps are read where it arrives. Each field's gradient stays below
one, so that each step, and their composition, is invertible: tissue is moved, never torn. The atlas
is an average, whose cortex is a blur of many people's; each subject's own folds decide there which
tissue it is.
"""

import dataclasses
import enum
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.data.anatomy import Anatomy, load_anatomy
from deepssim_jax.ops.resample import gaussian_blur, sample_at
from deepssim_jax.typing import Array

_EXTENT = 220.0  # mm, the cube that the random grids span
# (grid points along an edge, standard deviation in mm): head shape, gyri, folds.
_SCALES = ((4, 9.0), (8, 4.0), (18, 1.6))
# How sharply tissues part, and the grid of the subject's own folds.
_SHARPNESS, _FOLD_POINTS = 3.0, 48
# The atlas is larger than most people: Lancaster et al., Human Brain Mapping 28, 2007.
_HEAD = 0.93
FIELD_OF_VIEW = 205.0  # mm along the longer side


class Contrast(enum.Enum):
    """Mean intensity of csf, grey, white, skull and scalp; RANDOM draws its own."""

    T1 = (0.12, 0.55, 0.85, 0.05, 0.80)
    T2 = (0.95, 0.45, 0.32, 0.05, 0.55)
    FLAIR = (0.15, 0.75, 0.60, 0.05, 0.70)
    RANDOM = None


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("grids", "size", "folds", "texture"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True)
class Subjects:
    """n people: displacement grids [n, 3, g, g, g] per scale (mm), head size [n, 3], a
    field [n, 48, 48, 48] that shapes the cortex, and a coarse one [n, 24, 24, 24] of variation
    inside the tissues.
    """

    grids: tuple[Array, ...]
    size: Array
    folds: Array
    texture: Array


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("means", "turn", "move", "height", "bias", "noise", "blur", "scalp", "texture"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True)
class Scans:
    """How each subject is imaged: tissue means [n, 5], turn radians [n, 3], move mm [n, 3],
    slice height mm [n], bias [n, 3], noise [n], blur pixels [n], scalp 0 or 1 [n], texture [n].
    """

    means: Array
    turn: Array
    move: Array
    height: Array
    bias: Array
    noise: Array
    blur: Array
    scalp: Array
    texture: Array


def sample_subjects(key: Array, n: int) -> Subjects:
    """Draws n people."""
    keys = jax.random.split(key, len(_SCALES) + 3)
    grids = []
    for scale_key, (points, deviation) in zip(keys[:-3], _SCALES, strict=True):
        grid = deviation * jax.random.normal(scale_key, (n, 3, points, points, points))
        # No displacement may change by more than its own distance between grid points.
        limit = 0.35 * _EXTENT / (points - 1)
        grids.append(limit * jnp.tanh(grid / limit))
    return Subjects(
        grids=tuple(grids),
        size=_HEAD * (1.0 + 0.05 * jnp.clip(jax.random.normal(keys[-3], (n, 3)), -2, 2)),
        folds=jax.random.normal(keys[-2], (n,) + (_FOLD_POINTS,) * 3),
        texture=jax.random.normal(keys[-1], (n, 24, 24, 24)),
    )


def sample_scans(
    key: Array,
    n: int,
    *,
    contrast: Contrast = Contrast.RANDOM,
    pose: float = 1.0,
    scalp: float = 0.0,
) -> Scans:
    """Draws how n subjects are imaged.

    Args:
      key: typed PRNG key.
      n: scans.
      contrast: of the tissues; each scan varies a little around it.
      pose: 0 keeps every head straight and centred, 1 turns by about 4 degrees and moves by
        about 3 mm.
      scalp: share of scans that are not brain-extracted.
    """
    keys = iter(jax.random.split(key, 10))
    if contrast is Contrast.RANDOM:
        means = jax.random.uniform(next(keys), (n, 5), minval=0.1, maxval=1.0)
    else:
        base = jnp.asarray(contrast.value)[None]
        means = base + 0.04 * jax.random.normal(next(keys), (n, 5))
    return Scans(
        means=jnp.clip(means, 0.0, 1.0),
        turn=pose * jnp.deg2rad(4.0) * jax.random.normal(next(keys), (n, 3)),
        move=pose * 3.0 * jax.random.normal(next(keys), (n, 3)),
        height=5.0 + 4.0 * pose * jax.random.normal(next(keys), (n,)),
        bias=0.12 * jax.random.normal(next(keys), (n, 3)),
        noise=jax.random.uniform(next(keys), (n,), minval=0.005, maxval=0.04),
        blur=jax.random.uniform(next(keys), (n,), minval=0.2, maxval=0.9),
        scalp=jax.random.bernoulli(next(keys), float(scalp), (n,)).astype(jnp.float32),
        texture=jax.random.uniform(next(keys), (n,), minval=0.02, maxval=0.05),
    )


def displaced(subjects: Subjects, points: Array) -> jax.Array:
    """Where points [n, 3, *out] (mm from the centre) of each subject lie in the atlas (mm)."""
    lead = (slice(None), slice(None)) + (None,) * (points.ndim - 2)
    points = points / subjects.size[lead]
    for grid in subjects.grids:
        moved = [_on_grid(grid[:, axis], points) for axis in range(3)]
        points = points + jnp.stack(moved, 1)
    return points


def _on_grid(grid: Array, points: Array) -> Array:
    """Cubic B-spline values of coarse grids [n, g, g, g] at points [n, 3, *out]: smooth twice."""
    count, n = grid.shape[-1], grid.shape[0]
    shape = points.shape[2:]
    at = (points / _EXTENT + 0.5) * (count - 1)
    weights = [_spline_weights(at[:, axis].reshape(n, -1), count) for axis in range(3)]
    value = jnp.einsum("npz,nzyx->npyx", weights[0], grid)
    value = jnp.einsum("npy,npyx->npx", weights[1], value)
    return (weights[2] * value).sum(-1).reshape(n, *shape)


def _spline_weights(at: Array, count: int) -> Array:
    """[n, p] positions to [n, p, count] cubic B-spline weights."""
    away = jnp.abs(at[..., None] - jnp.arange(count, dtype=jnp.float32)[None, None])
    near = 2 / 3 - away**2 + away**3 / 2
    far = jnp.maximum(2 - away, 0.0) ** 3 / 6
    return jnp.where(away < 1, near, far)


def _read_maps(maps: Array, index: list[Array]) -> Array:
    """Trilinear values [n, *out, k] of shared maps [k, d, h, w]; outside, 0.

    One gather a corner fetches all tissues of a position.
    """
    k, *space = maps.shape
    rows = maps.reshape(k, -1).T
    inside = jnp.ones(index[0].shape, bool)
    lower, fraction = [], []
    for position, size in zip(index, space, strict=True):
        inside &= (position >= 0) & (position <= size - 1)
        base = jnp.clip(position.astype(jnp.int32), 0, size - 2)
        lower.append(base)
        fraction.append(position - base)
    out = jnp.zeros((*index[0].shape, k), jnp.float32)
    for corner in itertools.product((0, 1), repeat=3):
        flat = jnp.zeros(index[0].shape, jnp.int32)
        weight = inside.astype(jnp.float32)
        for bit, base, share, size in zip(corner, lower, fraction, space, strict=True):
            flat = flat * size + base + bit
            weight = weight * (share if bit else 1 - share)
        out = out + weight[..., None] * jnp.take(rows, flat, axis=0, mode="clip")
    return out


def _posed(points: Array, scans: Scans) -> Array:
    """Turns (z, then y, then x axis) and moves points [3, *out] for every scan."""
    n = scans.turn.shape[0]
    matrix = jnp.broadcast_to(jnp.eye(3)[None], (n, 3, 3))
    for axis in range(3):
        c, s = jnp.cos(scans.turn[:, axis]), jnp.sin(scans.turn[:, axis])
        i, j = [k for k in range(3) if k != axis]
        turn = jnp.broadcast_to(jnp.eye(3)[None], (n, 3, 3))
        turn = turn.at[:, i, i].set(c).at[:, j, j].set(c).at[:, i, j].set(-s).at[:, j, i].set(s)
        matrix = matrix @ turn
    moved = jnp.einsum("nij,j...->ni...", matrix, points)
    return moved + scans.move[(slice(None), slice(None)) + (None,) * (points.ndim - 1)]


def _render(
    key: Array, subjects: Subjects, scans: Scans, points: Array, maps: Array, spacing: float
) -> jax.Array:
    """Images at points [3, *out] mm; the plane's height is added by the caller."""
    n, shape = scans.noise.shape[0], points.shape[1:]
    dims = len(shape)
    lead = (slice(None),) + (None,) * dims
    inside = displaced(subjects, _posed(points, scans))
    index = [inside[:, axis] / spacing + (maps.shape[1 + axis] - 1) / 2 for axis in range(3)]
    visible = jnp.stack([jnp.ones_like(scans.scalp)] * 3 + [scans.scalp] * 2, 1)
    tissues = _folded(_read_maps(maps, index), _field(subjects.folds, inside))
    image = jnp.einsum("n...k,nk->n...", tissues, scans.means * visible)
    image = image * (1 + scans.texture[lead] * _field(subjects.texture, inside))
    field = sum(scans.bias[:, axis][lead] * points[axis][None] / (_EXTENT / 2) for axis in range(3))
    image = image * jnp.exp(field)
    image = gaussian_blur(image, scans.blur, radius=2, spatial_dims=dims)
    # Brain extraction leaves nothing outside of the brain, not even noise.
    kept = jnp.maximum(scans.scalp[lead], tissues[..., :3].sum(-1) > 0.3)
    real, imaginary = jax.random.normal(key, (2, n, *shape)) * scans.noise[lead][None]
    # Magnitude of two noisy channels (Gudbjartsson and Patz, MRM 34, 1995).
    return kept * jnp.clip(jnp.sqrt((image + real) ** 2 + imaginary**2), 0.0, 1.0)


def _field(grid: Array, points: Array) -> Array:
    """A subject's field [n, g, g, g] at points [n, 3, *out] mm."""
    count = grid.shape[-1]
    return sample_at(grid, [(points[:, a] / _EXTENT + 0.5) * (count - 1) for a in range(3)])


def _folded(tissues: Array, folds: Array) -> Array:
    """Probabilities [n, *out, 5] with csf, grey and white parted along the subject's folds.

    Where the field crosses zero, which it does along winding sheets, the cortex opens into a
    sulcus; where it is far from zero, white matter reaches into a gyrus.
    """
    brain = tissues[..., :3].sum(-1, keepdims=True)
    depth = jnp.abs(folds)
    sulcus = jnp.maximum(7.5 - 14.0 * depth, -1.0)
    push = jnp.stack([sulcus, jnp.zeros_like(depth), 3.0 * (depth - 0.7)], -1)
    parted = jax.nn.softmax(_SHARPNESS * jnp.log(tissues[..., :3] + 0.02) + push, axis=-1)
    return jnp.concatenate([parted * brain, tissues[..., 3:]], -1)


@functools.partial(jax.jit, static_argnames=("size", "spacing"))
def _slices(
    key: Array,
    subjects: Subjects,
    scans: Scans,
    maps: Array,
    *,
    size: tuple[int, int],
    spacing: float,
) -> jax.Array:
    pixel = FIELD_OF_VIEW / max(size)
    y, x = np.meshgrid(*((np.arange(s) - (s - 1) / 2) * pixel for s in size), indexing="ij")
    points = jnp.asarray(np.stack([np.zeros_like(y), y, x]), jnp.float32)
    lifted = dataclasses.replace(scans, move=scans.move.at[:, 0].set(scans.height))
    return _render(key, subjects, lifted, points, maps, spacing)


@functools.partial(jax.jit, static_argnames=("size", "spacing"))
def _volumes(
    key: Array,
    subjects: Subjects,
    scans: Scans,
    maps: Array,
    *,
    size: tuple[int, ...],
    spacing: float,
) -> jax.Array:
    voxel = FIELD_OF_VIEW / max(size)
    grids = np.meshgrid(*((np.arange(s) - (s - 1) / 2) * voxel for s in size), indexing="ij")
    return _render(key, subjects, scans, jnp.asarray(np.stack(grids), jnp.float32), maps, spacing)


def slices(
    key: Array,
    subjects: Subjects,
    scans: Scans,
    *,
    size: tuple[int, int] = (128, 128),
    anatomy: Anatomy | None = None,
) -> jax.Array:
    """Axial slices of the subjects.

    Args:
      key: typed PRNG key of the noise.
      subjects: from `sample_subjects`.
      scans: from `sample_scans`, as many.
      size: (height, width) in pixels; the longer side shows 205 mm.
      anatomy: tissue maps; `load_anatomy()` if None.

    Returns:
      float32 [n, *size] in [0, 1].
    """
    anatomy = anatomy or load_anatomy()
    maps = jnp.asarray(anatomy.maps)
    return _slices(key, subjects, scans, maps, size=size, spacing=anatomy.spacing)


def volumes(
    key: Array,
    subjects: Subjects,
    scans: Scans,
    *,
    size: tuple[int, int, int] = (64, 64, 64),
    anatomy: Anatomy | None = None,
) -> jax.Array:
    """Whole volumes float32 [n, *size] in [0, 1]; arguments as for `slices`."""
    anatomy = anatomy or load_anatomy()
    maps = jnp.asarray(anatomy.maps)
    return _volumes(key, subjects, scans, maps, size=size, spacing=anatomy.spacing)
