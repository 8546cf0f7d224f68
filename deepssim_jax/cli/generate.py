"""Draws images from a trained generator; the same command again continues.

    deepssim generate --workdir=runs/ldm --out=generated --n=1000

Image number i of a seed is the same whatever else is made. With another --batch or number of devices
it is the same to one grey level of 255: a compiler adds numbers in another order for another shape.

    deepssim generate --safeguard --real=training/ --workdir=runs/ldm --out=to_share --n=1000

With --safeguard no image leaves that is too close to a training image: it is refused, never written,
and another one drawn, until --n stand or --budget is used (then the status is 4). certificate.json
says what was looked for, and `deepssim verify to_share/ --real=training/` checks it.
"""

from pathlib import Path

from absl import flags

from deepssim_jax.cli import console, guard_flags, usage
from deepssim_jax.cli.exit_codes import ExitCode
from deepssim_jax.cli.progress import progress

_WORKDIR = flags.DEFINE_string("workdir", None, "of a finished train_ldm", required=True)
_OUT = flags.DEFINE_string("out", None, "folder of the images and manifest.csv", required=True)
_N = flags.DEFINE_integer("n", 0, "how many images", lower_bound=0)
_PER_RECORD = flags.DEFINE_integer(
    "per_record", 0, "or how many for each training image, with its condition", lower_bound=0
)
_SEED = flags.DEFINE_integer("seed", 0, "of all images", lower_bound=0, upper_bound=2**32 - 1)
_SAMPLER = flags.DEFINE_enum("sampler", "ddim", ["ddim", "ancestral", "dpm"], "how to draw")
_STEPS = flags.DEFINE_integer("steps", 50, "calls of the network for an image", lower_bound=1)
_GUIDANCE = flags.DEFINE_float(
    "guidance", 1.0, "weight of the condition; 1 for no guidance", lower_bound=0.0
)
_AWAY = flags.DEFINE_bool(
    "away",
    False,
    "while drawing, keep every image as far from each training image as two people's are from each "
    "other; needs the latents that train_ldm left in --workdir",
)
_BATCH = flags.DEFINE_integer("batch", 16, "images made at a time, on all devices", lower_bound=1)
_HALF = flags.DEFINE_enum(
    "half", "auto", ["auto", "yes", "no"], "call the denoiser in bfloat16; auto: on accelerators"
)
_FORMAT = flags.DEFINE_enum(
    "format", "png", ["png", "nifti"], "8-bit .png, or .nii.gz with every value in float32"
)
_SAFEGUARD = flags.DEFINE_bool("safeguard", False, "let no copy of a training image out")
_BUDGET = flags.DEFINE_integer(
    "budget", None, "candidates to judge at most; ten for an image wanted if not given", 1
)
_GUARD = guard_flags.GuardFlags.define(required=False)


def together() -> bool:
    """Whether several processes draw: the guard looks at each image before the next, in one process."""
    return not _SAFEGUARD.value


def main() -> int:
    """Writes the images that are not there yet, and the manifest of all.

    Returns:
        `ExitCode.DONE`; `ExitCode.INCONCLUSIVE` if the safeguard let fewer images out than wanted.

    Raises:
        ValueError: flags that do not go together.
    """
    _check()
    from deepssim_jax import parallel
    from deepssim_jax.audit.generation import Generator, SamplingSettings, Wanted, generate
    from deepssim_jax.audit.safeguard import generate_guarded
    from deepssim_jax.data.pictures import ImageFormat
    from deepssim_jax.diffusion.samplers import Sampler
    from deepssim_jax.training.precision import computes_in_half

    if not _SAFEGUARD.value:  # the guard's work is not spread over devices
        parallel.use_cores(_BATCH.value)
    out = Path(_OUT.value)
    settings = SamplingSettings(
        Sampler(_SAMPLER.value),
        _STEPS.value,
        guidance=_GUIDANCE.value,
        batch=_BATCH.value,
        away=_AWAY.value,
        half=computes_in_half(_HALF.value),
    )
    wanted = Wanted(
        _N.value, _PER_RECORD.value, _SEED.value, ImageFormat(_FORMAT.value), budget=_BUDGET.value
    )
    generator = Generator.load(_WORKDIR.value)
    conditioned = generator.conditions is not None
    usage.belong(
        [_GUIDANCE], "a model that was trained with --config.condition", wanted=conditioned
    )
    if _SAFEGUARD.value:
        reads = {"--workdir": _WORKDIR.value}
        opened = _GUARD.open(out, command="generate", inputs={}, reads=reads)
        with opened as workspace, progress() as on_progress:
            release = generate_guarded(
                generator,
                _GUARD.build(workspace, on_progress),
                workspace,
                wanted,
                settings=settings,
                residual_pairs=_GUARD.residual_pairs.value,
                on_progress=on_progress,
            )
        return guard_flags.finish(release, out, work=_GUARD.work_folder(out))
    with progress() as on_progress:
        count = generate(
            generator,
            out,
            wanted,
            settings=settings,
            on_progress=on_progress,
        )
    console.finish(
        [("images", count), ("seed", _SEED.value), ("weights", generator.weights_hash[:16])],
        written=[out / "manifest.csv"],
    )
    return ExitCode.DONE


def _check() -> None:
    """Raises UsageError for flags that do not go together, and for what does not exist."""
    usage.belong((*_GUARD.all, _BUDGET), "--safeguard", wanted=_SAFEGUARD.value)
    if _SAFEGUARD.value and (not _GUARD.real.value or not _N.value):
        raise usage.UsageError(
            "--safeguard needs --real, the images that the model was trained on, and --n, how many "
            "images are to stand"
        )
    if (_N.value > 0) == (_PER_RECORD.value > 0):
        raise usage.UsageError(
            f"give one of --n and --per_record; got {_N.value} and {_PER_RECORD.value}"
        )
    usage.exists(_WORKDIR, "folder")
    usage.exists(_GUARD.real, "folder or file")
