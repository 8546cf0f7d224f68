"""The stress list: one change of `data.changes.MOVES`, or several after each other."""

import numpy as np

from deepssim_jax.data.changes import MOVES

CONDITIONS: dict[str, int | str] = {
    **{name: name for name in MOVES},
    "two of them": 2,
    "three of them": 3,
}


def stressed(image: np.ndarray, condition: str, rng: np.random.Generator) -> np.ndarray:
    """One image under one of `CONDITIONS`."""
    what = CONDITIONS[condition]
    names = [what] if isinstance(what, str) else rng.choice(list(MOVES), what, replace=False)
    for name in names:
        image = MOVES[str(name)](image, rng)
    return image
