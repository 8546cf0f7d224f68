"""Unrelated queries made of the points of two images, and how often they are called copies."""

import numpy as np

from deepssim_jax.scoring.decide import clopper_pearson
from deepssim_jax.scoring.evidence import GumbelLaw, false_discovery_cut
from deepssim_jax.scoring.points import SIDE, PointSet

_PROBABILITIES = (1e-2, 5e-3, 1e-3, 1e-4, 1e-5)
_AUDITS = {100: 1000, 1_000: 100, 10_000: 10, 100_000: 1}


def composite(sets: PointSet, rows: np.ndarray, window: np.ndarray) -> PointSet:
    """Of pairs of images [n, 2]: points of the first in a window, of the second outside of it.

    Windows [n, 3] are the share of the area and where, from -1 to 1 of what there is room for.
    """
    geometry, descriptors = sets.geometry[rows], sets.descriptors[rows]
    side = SIDE * np.sqrt(window[:, :1, None])
    middle = window[:, None, 1:] * (SIDE - side) / 2
    inside = (np.abs(geometry[..., :2] - middle[:, None]) <= side[..., None] / 2).all(-1)
    wanted = (geometry[..., 5] > 0) & (inside == np.array([True, False])[:, None])
    # The best points of both first, as an image's own points are.
    k = geometry.shape[2]
    rank = np.where(wanted, np.arange(k) + 0.5 * np.arange(2)[:, None], 2 * k).reshape(
        len(rows), -1
    )
    order = np.argsort(rank, axis=1, kind="stable")[:, :k]
    each = np.arange(len(rows))[:, None]
    chosen = geometry.reshape(len(rows), -1, 6)[each, order]
    chosen[..., 5] = np.take_along_axis(rank, order, 1) < 2 * k
    return PointSet(chosen, descriptors.reshape(len(rows), 2 * k, -1)[each, order])


def exceeded(law: GumbelLaw, evidence: np.ndarray) -> list[dict[str, float]]:
    """How many of each half of the queries exceed the thresholds; even ones are of the same kind."""
    out = []
    for p in _PROBABILITIES:
        above = evidence > law.threshold(p)
        for name, part in (("same kind", above[::2]), ("other kinds", above[1::2])):
            share = clopper_pearson(int(part.sum()), len(part))
            out.append({
                "p": p, "queries": name, "count": int(part.sum()), "of": len(part),
                "low": share.low, "high": share.high,
            })  # fmt: skip
    return out


def audits(
    law: GumbelLaw, evidence: np.ndarray, rng: np.random.Generator
) -> list[dict[str, float]]:
    """In how many audits without copies anything is called one; each query takes part once a size."""
    p_values, out = law.p_values(evidence), []
    for size, most in _AUDITS.items():
        number = min(most, len(p_values) // size)
        drawn = rng.permutation(p_values)[: number * size].reshape(number, size)
        wrong = sum(bool((row <= false_discovery_cut(row)).any()) for row in drawn)
        if number:
            share = clopper_pearson(wrong, number)
            out.append({
                "images": size, "audits": number, "with_false": wrong,
                "low": share.low, "high": share.high,
            })  # fmt: skip
    return out
