"""Unrelated queries made of one or two images, and how often they are called copies."""

import numpy as np
from scipy import ndimage

from deepssim_jax.data.preprocess import fit_to_size
from deepssim_jax.scoring.decide import clopper_pearson
from deepssim_jax.scoring.evidence import false_discovery_cut

_PROBABILITIES = (1e-2, 5e-3, 1e-3, 1e-4)
_AUDITS = {100: 1000, 1_000: 100, 10_000: 10, 100_000: 1}


def composite(inner: np.ndarray, outer: np.ndarray, window: np.ndarray) -> np.ndarray:
    """`outer` with a window of `inner` in it, at its place; both [s, s].

    A window [3] is the share of the area and where, from -1 to 1 of what there is room for.
    """
    side = len(outer)
    size = max(1, round(side * float(np.sqrt(window[0]))))
    top, left = np.round((side - size) / 2 * (1 + window[1:])).astype(int)
    out = outer.copy()
    here = slice(top, top + size), slice(left, left + size)
    out[here] = inner[here]
    return out


def varied(image: np.ndarray, rng: np.random.Generator, *, side: int) -> np.ndarray:
    """A square [side, side] of an image [h, w] on [0, 1], slightly turned, zoomed, blurred and relit."""
    square = fit_to_size(np.asarray(image, np.float32), size=(side, side))
    angle, zoom = rng.uniform(-0.2, 0.2), rng.uniform(0.85, 1.15)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    middle = np.full(2, (side - 1) / 2)
    square = ndimage.affine_transform(
        square, matrix, middle - matrix @ middle, order=1, mode="nearest"
    )
    square = ndimage.gaussian_filter(square, rng.uniform(0, 0.008) * side)
    return np.clip(square, 0, 1) ** rng.uniform(0.7, 1.4)


def exceeded(p_values: np.ndarray) -> list[dict[str, float]]:
    """How many of each half of the queries fall below a probability; even ones are of the same kind."""
    out = []
    for p in _PROBABILITIES:
        below = p_values <= p
        for name, part in (("same kind", below[::2]), ("other kinds", below[1::2])):
            share = clopper_pearson(int(part.sum()), len(part))
            out.append({
                "p": p, "queries": name, "count": int(part.sum()), "of": len(part),
                "low": share.low, "high": share.high,
            })  # fmt: skip
    return out


def audits(p_values: np.ndarray, rng: np.random.Generator) -> list[dict[str, float]]:
    """In how many audits without copies anything is called one; each query takes part once a size."""
    out = []
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
