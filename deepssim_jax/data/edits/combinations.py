"""Three milder edits after each other, each with a strength of its own draw.

Contract: float64 [h, w] on [0, 1] in, float64 [h', w'] out; between two edits values are cut to [0, 1].
"""

from collections.abc import Callable, Sequence

import numpy as np

from deepssim_jax.data.edits import acquisition, geometry

Mild = Callable[[np.ndarray, np.random.Generator], np.ndarray]
_COUNT = 3


def _mirrored(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.flip(image, int(rng.integers(2)))


def _turned(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.rot90(image, int(rng.integers(1, 4)))


def _cropped(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return geometry.cropped_at_one_side(image, rng, share=rng.uniform(0.05, 0.2))


def _stretched(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return geometry.stretched(image, rng, ratio=np.exp(rng.uniform(-0.2, 0.2)))


GEOMETRIC: tuple[Mild, ...] = (
    lambda image, rng: geometry.rotated_randomly(image, rng, limit=20),
    lambda image, rng: geometry.shifted(image, rng, share=rng.uniform(0.05, 0.15)),
    lambda image, rng: geometry.zoomed(image, rng, factor=np.exp(rng.uniform(-0.22, 0.22))),
    lambda image, rng: geometry.sheared(image, rng, amount=rng.uniform(0.05, 0.15)),
    _mirrored,
    _turned,
    _cropped,
    _stretched,
)
OF_INTENSITY: tuple[Mild, ...] = (
    lambda image, rng: acquisition.noisy(image, rng, deviation=rng.uniform(0.02, 0.08)),
    lambda image, rng: acquisition.blurred(image, rng, sigma=rng.uniform(0.5, 2.0)),
    lambda image, rng: acquisition.jpeg(image, rng, quality=int(rng.integers(20, 70))),
    lambda image, rng: acquisition.gamma(image, rng, exponent=np.exp(rng.uniform(-0.5, 0.5))),
    lambda image, rng: acquisition.contrasted(image, rng, factor=rng.uniform(0.6, 1.4)),
    lambda image, rng: acquisition.posterised(image, rng, levels=int(rng.integers(8, 33))),
    lambda image, rng: acquisition.equalised(image, rng),
)


def three(image: np.ndarray, rng: np.random.Generator, *, of: Sequence[Mild]) -> np.ndarray:
    """Three different ones of a list, in the order in which they are drawn."""
    for number in rng.choice(len(of), _COUNT, replace=False):
        image = np.clip(of[number](image, rng), 0, 1)
    return image
