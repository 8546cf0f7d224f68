"""Draws images from a trained generator; the same command again goes on.

    deepssim generate --workdir=runs/ldm --out=generated --n=1000

Image number i of a seed is the same whatever else is made, and on any number of devices.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from deepssim_jax.cli import console
from deepssim_jax.cli.exit_codes import ExitCode
from deepssim_jax.cli.progress import progress

_WORKDIR = flags.DEFINE_string("workdir", None, "of a finished train_ldm", required=True)
_OUT = flags.DEFINE_string("out", None, "folder of the images and manifest.csv", required=True)
_N = flags.DEFINE_integer("n", 0, "how many images", lower_bound=0)
_PER_RECORD = flags.DEFINE_integer(
    "per_record", 0, "or how many for each training image, with its condition", lower_bound=0
)
_SEED = flags.DEFINE_integer("seed", 0, "of all images", lower_bound=0)
_SAMPLER = flags.DEFINE_enum("sampler", "ddim", ["ddim", "ancestral", "dpm"], "how to draw")
_STEPS = flags.DEFINE_integer("steps", 50, "calls of the network for an image", lower_bound=1)
_GUIDANCE = flags.DEFINE_float("guidance", 1.0, "weight of the condition; 1 for no guidance")
_BATCH = flags.DEFINE_integer("batch", 16, "images a device makes at a time", lower_bound=1)


def main(argv: Sequence[str]) -> int:
    """Writes the images that are not there yet, and the manifest of all.

    Args:
        argv: The command's name.

    Returns:
        `ExitCode.DONE`.
    """
    del argv
    from deepssim_jax.audit.generation import Generator, SamplingSettings, generate
    from deepssim_jax.diffusion.samplers import Sampler

    out = Path(_OUT.value)
    settings = SamplingSettings(
        Sampler(_SAMPLER.value), _STEPS.value, guidance=_GUIDANCE.value, batch=_BATCH.value
    )
    generator = Generator.load(_WORKDIR.value)
    with progress() as on_progress:
        count = generate(
            generator,
            out,
            n=_N.value,
            per_record=_PER_RECORD.value,
            seed=_SEED.value,
            settings=settings,
            on_progress=on_progress,
        )
    console.finish(
        [("images", count), ("seed", _SEED.value), ("weights", generator.weights_hash[:16])],
        written=[out / "manifest.csv"],
    )
    return ExitCode.DONE
