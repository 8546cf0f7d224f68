"""The edits of two published benchmarks, by their strengths.

`MI_ONI`: Deo et al., arXiv 2602.13066 (mean area under the ROC curve 0.886 over all; 0.758 at 5
degrees). `LCMEM`: Dombrowski et al., arXiv 2512.14421; their blur is cut off after nine pixels of an
image of 512, ours is a whole Gaussian at 256, which takes more away. Contract: as in `catalogue`.
"""

from collections.abc import Callable, Iterable

import numpy as np

from deepssim_jax.data.edits import acquisition, geometry
from deepssim_jax.data.edits.catalogue import EDITS, alone
from deepssim_jax.data.edits.types import Edit, Group


def _named(*names: str) -> Iterable[Edit]:
    by_name = {edit.name: edit for edit in EDITS}
    return (by_name[name] for name in names)


def _gain(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return acquisition.brightened(image, rng, factor=rng.uniform(0.9, 1.1))


def _row(
    name: str, group: Group, change: Callable[..., np.ndarray], keyword: str, *strengths: float
) -> Iterable[Edit]:
    for strength in strengths:
        yield Edit(f"{name} {strength:g}", group, strength, alone(change, **{keyword: strength}))


MI_ONI: tuple[Edit, ...] = (
    *_named("identity"),
    *_row("noise", Group.NOISE, acquisition.noisy, "deviation", 0.01, 0.02),
    Edit("intensity 0.9 to 1.1", Group.GAMMA, 0.1, alone(_gain)),
    *_row("rotation", Group.ROTATION, geometry.rotated, "degrees", 3, 5),
    *_named("left to right", "upside down"),
)

LCMEM: tuple[Edit, ...] = (
    *_row("blur", Group.BLUR, acquisition.blurred, "sigma", 0.1, 1, 2, 6),
    *_row("noise", Group.NOISE, acquisition.noisy, "deviation", 0.01, 0.1, 0.2, 0.3),
    *_row("rotation", Group.ROTATION, geometry.rotated, "degrees", 5, 10, 20, 30),
    *_row("brightness", Group.GAMMA, acquisition.brightened, "factor", 1.1, 1.3, 1.6, 2),
    *_row("contrast", Group.GAMMA, acquisition.contrasted, "factor", 1.1, 1.3, 1.6, 2),
    *_row("JPEG", Group.JPEG, acquisition.jpeg, "quality", 95, 70, 40, 10),
)
