"""How well two label maps agree: the segmentation level of replica detection.

Contract: label maps are integers [d, h, w], 0 the background; `spacing` is the size of a voxel along
each axis, in the unit that distances come out in. A label that neither map holds is not compared:
all of its measures are NaN. Where one map alone holds it, its overlap is 0 and its distances are the
length of the volume's diagonal, the largest that there is, so that means stay finite.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from deepssim_jax.ops import products
from deepssim_jax.typing import Array

# Every measure, and whether more of it means more alike.
MEASURES = {
    "dice": True,
    "hausdorff95": False,
    "volume_difference": False,
    "centre_distance": False,
}


@dataclasses.dataclass(frozen=True)
class Overlap:
    """By label, float64 [labels] each.

    `dice` in [0, 1] (Dice, Ecology 26, 1945); `hausdorff95` the larger of the 95th percentiles of
    the distances from one surface to the other; `volume_difference` 2 |V1 - V2| / (V1 + V2), in
    [0, 2]; `centre_distance` between centres of mass.
    """

    dice: np.ndarray
    hausdorff95: np.ndarray
    volume_difference: np.ndarray
    centre_distance: np.ndarray


@functools.partial(jax.jit, static_argnames="labels")
def _moments(a: Array, b: Array, *, labels: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Voxels of both [labels], of each [2, labels], and their centres [2, labels, 3] in voxels."""
    wanted = jnp.asarray(labels, a.dtype)[:, None, None, None]
    masks = [(x[None] == wanted).astype(jnp.float32) for x in (a, b)]
    both = (masks[0] * masks[1]).sum((1, 2, 3))
    sizes = jnp.stack([m.sum((1, 2, 3)) for m in masks])
    centres = []
    for m in masks:
        total = jnp.maximum(m.sum((1, 2, 3)), 1.0)
        along = []
        for axis, side in enumerate(a.shape):
            rest = tuple(1 + other for other in range(3) if other != axis)
            position = jnp.arange(side, dtype=jnp.float32) - (side - 1) / 2
            along.append(products.matmul(m.sum(rest), position) / total)
        centres.append(jnp.stack(along, -1))
    return both, sizes, jnp.stack(centres)


def overlap(
    a: np.ndarray,
    b: np.ndarray,
    *,
    labels: Sequence[int],
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
) -> Overlap:
    """Compares two label maps, label by label.

    Args:
      a: integers [d, h, w].
      b: likewise, of the same shape.
      labels: those to compare, without the background.
      spacing: of the voxels along each axis.

    Raises:
      ValueError: the shapes differ.
    """
    if a.shape != b.shape or a.ndim != 3:
        raise ValueError(f"label maps {a.shape} and {b.shape} must be alike, [d, h, w]")
    both, sizes, centres = (
        np.asarray(x, np.float64)
        for x in _moments(jnp.asarray(a), jnp.asarray(b), labels=tuple(labels))
    )
    total = sizes.sum(0)
    present = (sizes > 0).all(0)
    absent = total == 0
    step = np.asarray(spacing, np.float64)
    farthest = float(np.linalg.norm(np.array(a.shape) * step))
    apart = np.linalg.norm((centres[0] - centres[1]) * step, axis=-1)
    far = np.where(absent, np.nan, farthest)
    distances = far.copy()
    for number in np.flatnonzero(present):
        label = labels[int(number)]
        distances[number] = hausdorff95(a == label, b == label, spacing=spacing)
    return Overlap(
        dice=np.where(absent, np.nan, 2 * both / np.maximum(total, 1)),
        hausdorff95=distances,
        volume_difference=np.where(
            absent, np.nan, 2 * np.abs(sizes[0] - sizes[1]) / np.maximum(total, 1)
        ),
        centre_distance=np.where(present, apart, far),
    )


def hausdorff95(a: np.ndarray, b: np.ndarray, *, spacing: Sequence[float]) -> float:
    """95th percentile Hausdorff distance of two masks, neither of them empty.

    The surface is what erosion by the six neighbours takes off; distances between the surfaces'
    voxels are exact and Euclidean (Huttenlocher et al., IEEE TPAMI 15, 1993, section 2, with the
    percentile in place of the maximum of each direction).

    Args:
      a: bool [d, h, w].
      b: likewise.
      spacing: of the voxels along each axis.
    """
    # Everything outside of the box that holds both is neither.
    box = ndimage.find_objects((a | b).astype(np.uint8))[0]
    edges = []
    for mask in (a[box], b[box]):
        padded = np.pad(mask, 1)
        edges.append((padded & ~ndimage.binary_erosion(padded))[1:-1, 1:-1, 1:-1])
    worst = 0.0
    for one, other in (edges, edges[::-1]):
        away = np.asarray(ndimage.distance_transform_edt(~other, sampling=spacing))
        worst = max(worst, float(np.percentile(away[one], 95)))
    return worst
