"""Pairs of phantom images, or volumes, with the similarity that the encoder must learn.

Contract: a batch is a pure function of (seed, step). SSIM is computed of what the images are made
from, after alignment (`training.similarity`); afterwards each image goes its own way through flips,
rotations, noise and so on. The encoder sees only the latter, so its cosine must tell the SSIM of the
former (Scardace et al., arXiv 2509.16582, section 3).
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from deepssim_jax.data import phantom, phantom_chests, phantom_heads, phantom_textures
from deepssim_jax.data.anatomy import Anatomy
from deepssim_jax.ops import augment as augmenting
from deepssim_jax.ops import resample
from deepssim_jax.ops.augment import AugmentConfig
from deepssim_jax.ops.head_labels import BRAIN_WINDOW
from deepssim_jax.ops.intensity import zscore
from deepssim_jax.training.similarity import similarity_aligned, similarity_in_place
from deepssim_jax.typing import Array

ECHO = 8  # steps in a row that augment the same pairs
# Slice heights in mm above the atlas' origin, from the cerebellum to where small brains begin to end;
# and how far apart two slices of one person lie (standard deviation, at most twice that).
_LOWEST, _HIGHEST, _APART = -35.0, 36.0, 4.0


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("a", "b", "target", "all"), meta_fields=()
)
@dataclasses.dataclass(frozen=True)
class PairBatch:
    """z-scored images [n, *space] twice, and the SSIM [n] of what they were made from.

    `all` [n, n], where it is known, is the SSIM of what every a and every b were made from.
    """

    a: Array
    b: Array
    target: Array
    all: Array | None = None


def step_key(seed: int, step: int, *, made: bool = False) -> Array:
    """The key of how one step's images are augmented, or of how pairs of this number are `made`."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), made), step + 2**31)


class Echoes:
    """Keeps the pairs that several steps in a row are made of; one thread asks for them."""

    def __init__(self) -> None:
        self._kept: tuple[int, PairBatch] | None = None

    def of(self, step: int, make: Callable[[int], PairBatch]) -> PairBatch:
        """What `make` gives for the steps around this one; for validation each has its own."""
        if step < 0:
            return make(step)
        number = step // ECHO
        if self._kept is None or self._kept[0] != number:
            self._kept = number, make(number)
        return self._kept[1]


@dataclasses.dataclass(frozen=True)
class PairMaker:
    """Makes batches of phantoms: half brains, the rest chests and textures, 3 to 1.

    In a `space` of 3 axes half brains, the rest CT heads and angiograms, 1 to 1; heads lie much alike,
    and are compared as they lie. `batch` is a multiple of 16; `size` the side in pixels. To make and
    compare them takes longest, so `ECHO` steps in a row augment the same pairs, each in its own way.
    """

    anatomy: Anatomy
    seed: int
    batch: int
    size: int
    augment: AugmentConfig = AugmentConfig.stress()
    space: int = 2
    _echoes: Echoes = dataclasses.field(
        default_factory=Echoes, init=False, compare=False, repr=False
    )

    def __call__(self, step: int) -> PairBatch:
        """The batch of one step; negative steps are for validation, of other people."""
        made = self._echoes.of(step, self._made)
        return moved_apart(step_key(self.seed, step), made, config=self.augment)

    def _made(self, number: int) -> PairBatch:
        people, others, mix = jax.random.split(step_key(self.seed, number, made=True), 3)
        more = self._heads(others) if self.space == 3 else self._bodies(others)
        return _pairs(mix, jnp.concatenate([self._rendered(people), *more]))

    def names(self, step: int) -> str:
        """What this batch was made from."""
        return f"the phantoms of seed {self.seed}, step {step}"

    def _rendered(self, key: Array) -> Array:
        """A quarter of the batch is subjects, each scanned twice.

        Slices lie anywhere in the brain. The second one is near the first, half of the time in its
        contrast: as hard to tell apart as slices of one volume, or of a scan and its repetition.
        """
        keys, count = jax.random.split(key, 8), self.batch // 4
        subjects = phantom.sample_subjects(keys[0], count)
        first, second = (
            phantom.sample_scans(k, count, pose=0.3, scalp=0.4) for k in (keys[1], keys[2])
        )
        height = jax.random.uniform(keys[3], (count,), minval=_LOWEST, maxval=_HIGHEST)
        near = height + _APART * jnp.clip(jax.random.normal(keys[4], (count,)), -2, 2)
        same = jax.random.bernoulli(keys[5], 0.5, (count, 1))
        first = dataclasses.replace(first, height=height)
        second = dataclasses.replace(
            second, height=near, means=jnp.where(same, first.means, second.means)
        )
        render = functools.partial(phantom.slices, size=(self.size,) * 2)
        if self.space == 3:
            render = functools.partial(phantom.volumes, size=(self.size,) * 3)
        return jnp.concatenate(
            [
                render(noise, subjects, scans, anatomy=self.anatomy)
                for noise, scans in ((keys[6], first), (keys[7], second))
            ]
        )

    def _bodies(self, key: Array) -> list[Array]:
        chest, texture = jax.random.split(key)
        size = (self.size, self.size)
        return [
            phantom_chests.chests(chest, 3 * self.batch // 8, size=size),
            phantom_textures.textures(texture, self.batch // 8, size=size),
        ]

    def _heads(self, key: Array) -> list[Array]:
        """Made at twice the size, so that vessels are as thin as in what is later embedded."""
        ct, vessels = jax.random.split(key)
        size, count = (2 * self.size,) * 3, self.batch // 4
        parts = [
            jnp.clip(phantom_heads.ct_heads(ct, count, size=size).volumes, *BRAIN_WINDOW),
            phantom_heads.angiograms(vessels, count, size=size).volumes,
        ]
        return [resample.resize(part, (self.size,) * 3) for part in parts]


@jax.jit
def _pairs(key: Array, images: Array) -> PairBatch:
    n, dims = images.shape[0], images.ndim - 1
    keys = jax.random.split(key, 5)
    a = zscore(images, spatial_dims=dims)
    # Neighbours in the list are mostly of one kind: other people, hard to tell apart.
    other = jnp.roll(a, 1 + n // 8, axis=0)
    near = jnp.roll(a, 1, axis=0)
    scanned = jnp.concatenate([jnp.roll(a[: n // 2], n // 4, axis=0), near[n // 2 :]])
    mode = jax.random.choice(keys[0], 6, (n,), p=jnp.array([0.15, 0.2, 0.2, 0.2, 0.17, 0.08]))
    candidates = jnp.stack(
        [
            a,
            mixed(keys[1], a, near),
            bent(keys[2], a),
            altered(keys[3], a),
            jnp.where(jax.random.bernoulli(keys[4], 0.5, (n, *(1,) * dims)), other, near),
            scanned,
        ]
    )
    b = zscore(candidates[mode, jnp.arange(n)], spatial_dims=dims)
    every = (similarity_in_place if dims == 3 else similarity_aligned)(a, b)
    return PairBatch(a, b, jnp.diagonal(every), every)


@functools.partial(jax.jit, static_argnames="config")
def moved_apart(key: Array, made: PairBatch, *, config: AugmentConfig) -> PairBatch:
    """The batch in which every image has gone its own way through the augmentations."""
    moved, dims = [], made.a.ndim - 1
    for image, part in zip((made.a, made.b), jax.random.split(key), strict=True):
        draw, noise = jax.random.split(part)
        params = augmenting.sample_params(draw, image.shape, config)
        moved.append(zscore(augmenting.augment(image, params, noise), spatial_dims=dims))
    return dataclasses.replace(made, a=moved[0], b=moved[1])


def mixed(key: Array, a: Array, donor: Array) -> Array:
    """Soft regions of very different extent from the donor: SSIM anywhere between the two."""
    share = _regions(key, a)
    return a * (1 - share) + donor * share


def altered(key: Array, a: Array) -> Array:
    """Regions as of `mixed` whose contrast is lowered or turned round, that are smooth, or lighter or darker.

    What an image loses by a lesion, by inpainting or by another uptake of contrast in a place.
    """
    n, *space = a.shape
    keys = jax.random.split(key, 4)
    each = (n, *(1 for _ in space))
    share = _regions(keys[0], a)
    width, reach = space[-1] / 12, space[-1] // 8
    around = resample.gaussian_blur(a, width, radius=reach, spatial_dims=len(space))
    contrast = jax.random.uniform(keys[1], each, minval=-1.0, maxval=1.0)
    level = jax.random.uniform(keys[2], each, minval=-1.5, maxval=1.5)
    kinds = jnp.stack([contrast * a, around, a + level])
    kind = jax.random.randint(keys[3], (n,), 0, len(kinds))
    return a * (1 - share) + kinds[kind, jnp.arange(n)] * share


def _regions(key: Array, like: Array) -> Array:
    """Shares in [0, 1] like images [n, *space]: smooth regions, from next to none to nearly all."""
    n, *space = like.shape
    field, level = jax.random.split(key)
    coarse = jax.random.normal(field, (n, *(5 for _ in space)))
    smooth = jax.image.resize(coarse, like.shape, "cubic")
    threshold = jax.random.uniform(level, (n, *(1 for _ in space)), minval=-1.5, maxval=2.0)
    return jax.nn.sigmoid(8 * (smooth - threshold))


def bent(key: Array, a: Array) -> Array:
    """Local deformations from invisible to gross."""
    n, *space = a.shape
    field, strength = jax.random.split(key)
    coarse = jax.random.normal(field, (n, *(6 for _ in space), len(space)))
    smooth = jax.image.resize(coarse, (*a.shape, len(space)), "cubic")
    draw = jax.random.uniform(strength, (n, *(1 for _ in space), 1))
    amount = 0.06 * space[-1] * draw**2
    return resample.warp_displacement(a, amount * smooth)
