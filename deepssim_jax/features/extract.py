"""From images to local features.

Contract: `extract` takes canvases [n, s, s] with the image in the middle and gives the same number of
points for each. Rotating or mirroring a canvas by one of the eight symmetries of the square moves its
points likewise and leaves their descriptors (a mirror permutes them).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.features import descriptors, keypoints, scale_space
from deepssim_jax.ops import programs
from deepssim_jax.ops.batches import batch_size, in_batches
from deepssim_jax.typing import Array

SIDE = 256
POINTS = sum(keypoints.QUOTA)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("positions", "sigmas", "angles", "polarities", "descriptors", "strengths"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True)
class LocalFeatures:
    """Points of n images, k each, in the order of their worth.

    `positions` float32 [n, k, 2] (y, x) in pixels of the canvas from its middle; `sigmas` float32
    [n, k] in the same pixels; `angles` float32 [n, k] in radians from x towards y; `polarities`
    float32 [n, k], 1 for bright and -1 for dark points; `descriptors` float32 [n, k, d];
    `strengths` float32 [n, k], how far a point stands out of its surroundings, 0 where there is none.
    """

    positions: Array
    sigmas: Array
    angles: Array
    polarities: Array
    descriptors: Array
    strengths: Array

    @property
    def valid(self) -> Array:
        """Bool [n, k]: which points exist."""
        return self.strengths > 0

    def __len__(self) -> int:
        return len(self.strengths)

    def __getitem__(self, rows: object) -> "LocalFeatures":
        return jax.tree.map(lambda a: a[rows], self)


@functools.partial(jax.jit, static_argnames=("points",))
def extract(canvases: Array, content: Array, *, points: int = POINTS) -> LocalFeatures:
    """Points and RootSIFT descriptors of canvases float32 [n, s, s] with content [n, 2].

    Args:
      canvases: of `data.preprocess.fit_to_canvas`.
      content: rows and columns that hold the image.
      points: how many an image gets.
    """
    return features_of(*oriented(canvases, content, points=points), side=canvases.shape[-1])


def oriented(
    canvases: Array, content: Array, *, points: int
) -> tuple[keypoints.GradientField, keypoints.Points, Array]:
    """The gradients of canvases, the points found in them and their angles; arguments as for `extract`."""
    content = jnp.asarray(content, jnp.float32)
    images = scale_space.without_noise(jnp.asarray(canvases, jnp.float32), content)
    images = scale_space.normalise_contrast(images)
    pyramid = scale_space.build(images, octaves=len(keypoints.QUOTA))
    found = keypoints.detect(pyramid, content, count=points)
    field = keypoints.GradientField.of(pyramid)
    return field, *keypoints.orient(field, found, count=points)


def features_of(
    field: keypoints.GradientField, found: keypoints.Points, angles: Array, *, side: int
) -> LocalFeatures:
    """What `oriented` found, in pixels of a canvas of this side, and described."""
    step = 0.5 * 2.0**found.octave
    positions = jnp.stack([found.y, found.x], -1) * step[..., None]
    return LocalFeatures(
        positions=positions + ((step - side) / 2)[..., None],
        sigmas=found.sigma * step,
        angles=angles,
        polarities=found.polarity,
        descriptors=descriptors.describe(field, found, angles),
        strengths=found.response,
    )


def extract_all(
    canvases: np.ndarray, content: np.ndarray, *, points: int = POINTS
) -> LocalFeatures:
    """`extract` in batches; NumPy arrays."""
    batch = batch_size(cpu=4, accelerator=128)
    run = functools.partial(extract, points=points)
    return in_batches(run, canvases, content, size=batch)


_kept_extract = programs.kept(LocalFeatures)(extract)


def extract_one(canvas: np.ndarray, content: np.ndarray) -> LocalFeatures:
    """`extract` of a batch of one, [1, s, s] and [1, 2]: the same numbers as in any other batch."""
    return jax.tree.map(np.asarray, _kept_extract(canvas, np.asarray(content, np.int32)))


def load_extract() -> None:
    """Loads the program of `extract_one`, which takes a while; another thread can do so."""
    extract_one(np.zeros((1, SIDE, SIDE), np.float32), np.full((1, 2), SIDE))
