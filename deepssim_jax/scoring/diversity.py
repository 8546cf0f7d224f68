"""How much of the real variety a set of images shows.

Contract: features are float rows [n, d], for example embeddings; distances are Euclidean. Memory is
bounded whatever the number of rows.
"""

import dataclasses

import numpy as np

from deepssim_jax.scoring.distances import squared_distances

_ROWS = 512


@dataclasses.dataclass(frozen=True)
class Diversity:
    """Shares in [0, 1].

    `precision` of the images lie among the real ones and `recall` of the real ones among the images:
    within the distance to the k-th neighbour of one of them (Kynkaanniemi et al., NeurIPS 2019, eq. 1
    and 2). `coverage` of the real ones have an image within the distance to their own k-th real
    neighbour (Naeem et al., ICML 2020, eq. 5).
    """

    precision: float
    recall: float
    coverage: float


def diversity(real: np.ndarray, made: np.ndarray, *, k: int = 3) -> Diversity:
    """Compares the variety of two sets.

    Args:
      real: [n, d].
      made: [m, d].
      k: neighbours; as many as there are where there are fewer.
    """
    radius_real, radius_made = _radius(real, k), _radius(made, k)
    among_real, among_made = np.zeros(len(made), bool), np.zeros(len(real), bool)
    covered = np.zeros(len(real), bool)
    for start in range(0, len(made), _ROWS):
        rows = slice(start, start + _ROWS)
        away = np.sqrt(squared_distances(made[rows], real))
        among_real[rows] = (away <= radius_real).any(1)
        covered |= (away <= radius_real).any(0)
        among_made |= (away <= radius_made[rows, None]).any(0)
    return Diversity(*(float(x.mean()) for x in (among_real, among_made, covered)))


def _radius(points: np.ndarray, k: int) -> np.ndarray:
    """Distance [n] of each point to its k-th neighbour."""
    place = min(k, len(points) - 1)
    blocks = [
        np.partition(squared_distances(points[i : i + _ROWS], points), place, axis=1)[:, place]
        for i in range(0, len(points), _ROWS)
    ]
    return np.sqrt(np.concatenate(blocks))
