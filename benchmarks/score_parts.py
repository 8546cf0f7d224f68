r"""What each part of the verified score is worth: planted copies judged with that part left out.

    python benchmarks/score_parts.py --real=../shared/data/cxr --subject_regex='^([0-9]+)_' --seed=3 \
        --work=/tmp/score_parts --out=benchmarks/results

The pairs are those of `deepssim stress` with the same seed; every variant chooses its thresholds anew,
on half of the patients, and is judged on the other half. The parts are described and sourced in
`deepssim_jax/ops/agreement.py`. What is left out is replaced while a variant is compiled, so that the
package itself has no switches for it. Writes what `stress` writes into WORK, with a figure of the
whole score a setting, and one line into OUT/score_parts.jsonl. About twenty minutes on two cores.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks.cases.records import dated, keep
from deepssim_jax.audit import stress
from deepssim_jax.data import pipelines
from deepssim_jax.data.planted_pairs import Setting
from deepssim_jax.ops import agreement
from deepssim_jax.ops.batches import in_batches
from deepssim_jax.ops.intensity import zscore
from deepssim_jax.ops.registration import register
from deepssim_jax.ops.search_grid import SearchGrid
from deepssim_jax.ops.ssim import ssim
from deepssim_jax.ops.transform import ellipsoid
from deepssim_jax.scoring import verify
from deepssim_jax.scoring.methods import Method
from deepssim_jax.typing import Array

_REAL = flags.DEFINE_string("real", None, "folder of real images", required=True)
_SUBJECT_REGEX = flags.DEFINE_string("subject_regex", None, "the patient in a file's name")
_WORK = flags.DEFINE_string("work", None, "folder for pairs, scores and figures", required=True)
_OUT = flags.DEFINE_string("out", None, "folder for the record; none is written without")
_SEED = flags.DEFINE_integer("seed", 0, "of pairs and halves")
_SETTINGS = flags.DEFINE_multi_enum(
    "setting", ["registered", "perturbed", "harsh"], ["registered", "perturbed", "harsh"], "which"
)
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
    """A field's similarity of the aligned images."""

    def found(real: Array, synthetic: Array) -> Array:
        moved = register(synthetic, real).aligned
        return score(zscore(real.astype(jnp.float32)), zscore(moved))

    return lambda real, synthetic: np.asarray(in_batches(found, real, synthetic, size=_BATCH))


def methods() -> dict[str, Method]:
    """The whole score, and it without each of its parts."""
    evenness = agreement._evenness
    return {
        stress.REFERENCE: variant(),
        "without alignment": in_place(),
        "without likeness": variant(figure="sameness"),
        "without sameness": variant(figure="likeness"),
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
        "SSIM after alignment": aligned(
            lambda a, b: ssim(a, b, data_range="first", reduction="none")
        ),
        "correlation after alignment": aligned(lambda a, b: (a * b).mean((1, 2))),
    }


def main(_: list[str]) -> None:
    work = Path(_WORK.value)
    images = pipelines.open_images(
        _REAL.value, work / "images", size=(256, 256), subject_regex=_SUBJECT_REGEX.value
    )
    found = stress.stress(
        images.take(np.arange(len(images))),
        images.patients(),
        methods=methods(),
        settings=[Setting(name) for name in dict.fromkeys(_SETTINGS.value)],
        seed=_SEED.value,
        on_progress=lambda done, total, what: print(f"{what}: {done} of {total}", flush=True),
    )
    stress.write(found, work, image_ids=images.image_ids)
    print(stress.table(found.outcomes))
    record: dict[str, object] = {
        "real": Path(_REAL.value).name,
        "seed": _SEED.value,
        "outcomes": [dataclasses.asdict(outcome) for outcome in found.outcomes],
    }
    keep(dated(record), _OUT.value, "score_parts")


if __name__ == "__main__":
    app.run(main)
