"""The verified score without each of its parts.

What is left out is replaced while a variant is compiled, so that the package has no switches for it.
"""

import contextlib
from collections.abc import Callable
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.audit.stress import REFERENCE
from deepssim_jax.ops import agreement
from deepssim_jax.ops.batches import in_batches
from deepssim_jax.ops.intensity import zscore
from deepssim_jax.ops.registration import register
from deepssim_jax.ops.search_grid import SearchGrid
from deepssim_jax.ops.transform import ellipsoid
from deepssim_jax.scoring import methods as scoring
from deepssim_jax.scoring import verify
from deepssim_jax.scoring.methods import Method
from deepssim_jax.typing import Array

_BATCH = 32

Replaced = tuple[object, str, object]


def variant(*replaced: Replaced, figure: str = "score") -> Method:
    """The verified score, or one of its figures, with these names of modules replaced."""

    @jax.jit
    def found(real: Array, synthetic: Array) -> Array:
        # Traced anew in here; what is jitted inside knows nothing of what is replaced.
        parts = verify._verify.__wrapped__(synthetic, real, grid=SearchGrid())[0]
        return getattr(parts, figure)

    def score(real: np.ndarray, synthetic: np.ndarray) -> np.ndarray:
        with contextlib.ExitStack() as stack:
            for module, name, value in replaced:
                stack.enter_context(mock.patch.object(module, name, value))
            return np.asarray(in_batches(found, real, synthetic, size=_BATCH))

    return score


def in_place() -> Method:
    """The score of images as they lie."""

    @jax.jit
    def found(real: Array, synthetic: Array) -> Array:
        sides = [zscore(x.astype(jnp.float32)) for x in (synthetic, real)]
        inside = jnp.asarray(ellipsoid(real.shape[1:], radius=verify._DISC))[None]
        inside = jnp.broadcast_to(inside, real.shape)
        return jnp.nan_to_num(agreement.agreement(*sides, inside, core=inside).score)

    return lambda real, synthetic: np.asarray(in_batches(found, real, synthetic, size=_BATCH))


def aligned(score: Callable[[Array, Array], Array]) -> Method:
    """One of the field's similarities, of the aligned images."""

    def found(real: Array, synthetic: Array) -> Array:
        return score(real, register(synthetic, real).aligned)

    return lambda real, synthetic: np.asarray(in_batches(found, real, synthetic, size=_BATCH))


def methods() -> dict[str, Method]:
    """The whole score, and it without each of its parts."""
    evenness = agreement._evenness
    return {
        REFERENCE: variant(),
        "without alignment": in_place(),
        "without likeness": variant(figure="unchanged"),
        "without sameness": variant(figure="structure"),
        "sameness of plain intensities alone": variant(
            (agreement, "_evenness", lambda views: evenness(views[:1]))
        ),
        "sameness against the neighbourhood alone": variant(
            (agreement, "_evenness", lambda views: evenness(views[1:]))
        ),
        "without the blur": variant((agreement, "_blur_band", np.eye)),
        "without what a copy's range cut off": variant(
            (agreement, "_cut_off", lambda a, b, core: b)
        ),
        "a change counts to the rim": variant((verify, "_RIM", 0.0)),
        "SSIM after alignment": aligned(scoring._ssim),
        "correlation after alignment": aligned(scoring._ncc),
    }
