"""Structure-preserving augmentations: the same anatomy, seen otherwise.

Contract: images are float [n, *space], 2D or 3D, of any intensity scale, which is kept. Every
image has its own parameters, drawn first (`sample_params`) and applied afterwards (`augment`), so
that a batch is a pure function of its key. All geometry is one warp, done once.

Order: flip, rotation, zoom and shift; bias field; gamma; blur; noise (Scardace et al.,
arXiv 2509.16582 and 2609.03615, whose training and test transformations these are).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.ops import intensity, products, resample
from deepssim_jax.typing import Array, Images

_BIAS_DEGREE = 3
_BLUR_RADIUS = 5


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Probabilities `p_*` and ranges of the augmentations.

    Angles are degrees, shifts a share of the side, blur pixels, noise a share of the image's
    range, bias coefficients logarithms of the field. `flip_axes` says which spatial axes may be
    mirrored, each by itself with `p_flip`. What comes from outside of the frame repeats its edge,
    or with `p_fill` is flat: half of the time as dark as the darkest pixel.
    """

    p_flip: float = 0.0
    flip_axes: tuple[int, ...] = (0, 1)
    p_rotate: float = 0.0
    rotation_deg: float = 0.0
    p_shift: float = 0.0
    shift: float = 0.0
    p_zoom: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    p_bias: float = 0.0
    bias: float = 0.0
    p_gamma: float = 0.0
    gamma: tuple[float, float] = (1.0, 1.0)
    p_blur: float = 0.0
    blur: tuple[float, float] = (0.0, 0.0)
    p_noise: float = 0.0
    noise: float = 0.0
    p_fill: float = 0.0

    @classmethod
    def v1(cls) -> "AugmentConfig":
        """The training augmentations of DeepSSIM."""
        return cls(
            p_flip=0.33,
            p_rotate=0.33,
            rotation_deg=float(np.rad2deg(0.17)),
            p_gamma=0.33,
            gamma=(0.5, 1.5),
        )

    @classmethod
    def v2(cls) -> "AugmentConfig":
        """The training augmentations of DeepSSIM++ (4 pixels of 136 are a shift of 0.03)."""
        return cls(
            p_flip=0.25,
            p_rotate=0.75,
            rotation_deg=float(np.rad2deg(0.09)),
            p_shift=0.75,
            shift=0.03,
            p_zoom=0.75,
            zoom=(0.9, 1.05),
            p_bias=0.5,
            bias=0.1,
            p_gamma=0.25,
            gamma=(0.5, 1.5),
            p_blur=0.25,
            blur=(0.25, 0.5),
        )

    @classmethod
    def stress(cls) -> "AugmentConfig":
        """What a copy may have gone through and must still be found."""
        return cls(
            p_flip=0.3,
            p_rotate=0.5,
            rotation_deg=15.0,
            p_shift=0.5,
            shift=0.1,
            p_zoom=0.5,
            zoom=(0.87, 1.15),
            p_bias=0.5,
            bias=0.45,
            p_gamma=0.5,
            gamma=(0.5, 1.5),
            p_blur=0.3,
            blur=(0.3, 1.0),
            p_noise=0.5,
            noise=0.05,
            p_fill=0.7,
        )

    @classmethod
    def volumes(cls) -> "AugmentConfig":
        """The same for heads in 3D, which are mirrored left to right and lie much alike."""
        head = {"flip_axes": (2,), "rotation_deg": 8.0, "shift": 0.06, "p_bias": 0.4, "bias": 0.3}
        return dataclasses.replace(cls.stress(), **head)

    @classmethod
    def copies(cls) -> "AugmentConfig":
        """What the copies go through that an audit plants: two or three of these, mildly."""
        return cls(
            p_flip=0.15,
            p_rotate=0.35,
            rotation_deg=10.0,
            p_shift=0.35,
            shift=0.05,
            p_zoom=0.35,
            zoom=(0.9, 1.1),
            p_bias=0.2,
            bias=0.1,
            p_gamma=0.35,
            gamma=(0.6, 1.5),
            p_blur=0.25,
            blur=(0.3, 0.8),
            p_noise=0.35,
            noise=0.05,
        )


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("flip", "rotation", "zoom", "shift", "bias", "gamma", "blur", "noise", "fill"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True)
class AugmentParams:
    """What happens to each of n images of d axes.

    flip bool [n, d]; rotation radians [n] in 2D, [n, 3] in 3D; zoom [n]; shift pixels [n, d];
    bias [n, terms]; gamma [n]; blur pixels [n]; noise [n] as a share of the range; fill [n] the
    same, or negative where the edge is repeated.
    """

    flip: Array
    rotation: Array
    zoom: Array
    shift: Array
    bias: Array
    gamma: Array
    blur: Array
    noise: Array
    fill: Array


def _bias_terms(spatial_dims: int) -> list[tuple[int, ...]]:
    grid = np.indices((_BIAS_DEGREE + 1,) * spatial_dims).reshape(spatial_dims, -1).T
    return [tuple(int(p) for p in powers) for powers in grid if 0 < powers.sum() <= _BIAS_DEGREE]


def sample_params(key: Array, shape: tuple[int, ...], config: AugmentConfig) -> AugmentParams:
    """Draws the parameters of a batch.

    Args:
      key: typed PRNG key.
      shape: [n, *space] of the images.
      config: probabilities and ranges.
    """
    n, space = shape[0], shape[1:]
    dims = len(space)
    keys = iter(jax.random.split(key, 16))

    def gate(p: float, *more: int) -> Array:
        return jax.random.bernoulli(next(keys), p, (n, *more))

    def draw(low: float, high: float, *more: int) -> Array:
        return jax.random.uniform(next(keys), (n, *more), minval=low, maxval=high)

    allowed = jnp.asarray([axis in config.flip_axes for axis in range(dims)])
    angle = np.deg2rad(config.rotation_deg)
    turns = () if dims == 2 else (3,)
    terms = len(_bias_terms(dims))
    p_rotate, p_shift = gate(config.p_rotate), gate(config.p_shift)
    rotation = draw(-angle, angle, *turns)
    shift = draw(-config.shift, config.shift, dims) * jnp.asarray(space, jnp.float32)[None]
    return AugmentParams(
        flip=gate(config.p_flip, dims) & allowed[None],
        rotation=jnp.where(p_rotate.reshape(n, *(1 for _ in turns)), rotation, 0.0),
        zoom=jnp.where(gate(config.p_zoom), draw(*config.zoom), 1.0),
        shift=jnp.where(p_shift[:, None], shift, 0.0),
        bias=jnp.where(gate(config.p_bias, 1), draw(-config.bias, config.bias, terms), 0.0),
        gamma=jnp.where(gate(config.p_gamma), draw(*config.gamma), 1.0),
        blur=jnp.where(gate(config.p_blur), draw(*config.blur), 0.0),
        noise=jnp.where(gate(config.p_noise), draw(0.0, config.noise), 0.0),
        fill=_fill_levels(draw(0.0, 1.0), config.p_fill),
    )


def _fill_levels(uniform: Array, p: float) -> Array:
    level = 2 * uniform / max(p, 1e-6) - 1
    return jnp.where(uniform < p, jnp.maximum(level, 0.0), -1.0)


def _matrices(params: AugmentParams) -> Array:
    """Output-to-input maps [n, d, d + 1]: the inverse of flip after move after turn and zoom."""
    sign = jnp.where(params.flip, -1.0, 1.0)
    if params.flip.shape[1] == 2:
        c, s = jnp.cos(params.rotation), jnp.sin(params.rotation)
        turn = jnp.stack([jnp.stack([c, -s], -1), jnp.stack([s, c], -1)], -2)
    else:
        turn = jax.vmap(_turn_3d)(params.rotation)
    inverse = jnp.swapaxes(turn, 1, 2) / params.zoom[:, None, None]
    offset = -products.einsum("nij,nj->ni", inverse, params.shift)
    return jnp.concatenate([inverse * sign[:, None, :], offset[..., None]], -1)


def _turn_3d(angles: Array) -> Array:
    out = jnp.eye(3)
    for axis in range(3):
        c, s = jnp.cos(angles[axis]), jnp.sin(angles[axis])
        i, j = [k for k in range(3) if k != axis]
        turn = jnp.eye(3).at[i, i].set(c).at[j, j].set(c).at[i, j].set(-s).at[j, i].set(s)
        out = products.matmul(out, turn)
    return out


def geometry(images: Images, params: AugmentParams) -> jax.Array:
    """Flip, rotation, zoom and shift in one warp; outside is as `params.fill` says."""
    dims = images.ndim - 1
    low, extent = intensity.extent_of(images, spatial_dims=dims)
    level = params.fill[(slice(None),) + (None,) * dims]
    fill = jnp.where(level < 0, jnp.nan, low + level * extent)
    return resample.warp_affine(images, _matrices(params), fill=fill)


def appearance(images: Images, params: AugmentParams, key: Array) -> jax.Array:
    """Bias field, gamma, blur and noise; the anatomy stays where it is."""
    dims = images.ndim - 1
    lead = (slice(None),) + (None,) * dims
    low, extent = intensity.extent_of(images, spatial_dims=dims)
    unit = intensity.rescale01(images, spatial_dims=dims)
    axes = [np.linspace(-1, 1, size) for size in images.shape[1:]]
    grids = np.meshgrid(*axes, indexing="ij")
    logarithm = jnp.zeros_like(unit)
    for number, powers in enumerate(_bias_terms(dims)):
        basis = np.prod([g**p for g, p in zip(grids, powers, strict=True)], axis=0)
        logarithm = logarithm + params.bias[:, number][lead] * jnp.asarray(basis, jnp.float32)[None]
    unit = unit * jnp.exp(logarithm)
    # The smallest power's gradient at 0 is infinite; a floor keeps training finite.
    unit = jnp.maximum(unit, 1e-6) ** params.gamma[lead]
    blurred = resample.gaussian_blur(unit, params.blur, radius=_BLUR_RADIUS, spatial_dims=dims)
    noisy = blurred + params.noise[lead] * jax.random.normal(key, images.shape)
    return low + extent * noisy


def augment(images: Images, params: AugmentParams, key: Array) -> jax.Array:
    """All of it.

    Args:
      images: [n, *space] float.
      params: of the same n and number of axes.
      key: typed PRNG key of the noise.

    Returns:
      [n, *space] on the scale of the input.
    """
    return appearance(geometry(images, params), params, key)
