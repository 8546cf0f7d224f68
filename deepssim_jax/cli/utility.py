"""Does a network that learned from synthetic images do as well as one that learned from real ones?

    deepssim utility --real=training/ --synthetic=generated/ --safeguarded=to_share/ \
        --test=held_out/ --subject_regex='^([0-9]+)_' --out=utility/

Networks learn to take noise away and to restore a quarter of the resolution, with the same budget on
every folder, and are tested on real patients they never saw. Writes utility.html, .json and .csv.
"""

import dataclasses

from absl import flags

from deepssim_jax.cli import console, usage
from deepssim_jax.cli.exit_codes import ExitCode
from deepssim_jax.cli.progress import progress

_REAL = flags.DEFINE_string("real", None, "real images to learn from", required=True)
_SYNTHETIC = flags.DEFINE_string("synthetic", None, "synthetic images to learn from", required=True)
_SAFEGUARDED = flags.DEFINE_string(
    "safeguarded", None, "folder of the synthetic images that passed release screening; optional"
)
_TEST = flags.DEFINE_string("test", None, "real images of other patients to test on", required=True)
_OUT = flags.DEFINE_string("out", None, "folder for the report", required=True)
_SUBJECT_REGEX = flags.DEFINE_string(
    "subject_regex", None, "finds the patient in a real file's name"
)
_SIZE = flags.DEFINE_integer(
    "size", 64, "side in pixels that images are brought to; a multiple of 4"
)
_TASKS = flags.DEFINE_multi_enum(
    "task",
    ["denoising", "super_resolution"],
    ["denoising", "super_resolution"],
    "what networks learn; may be repeated",
)
_SEEDS = flags.DEFINE_integer("seeds", 3, "networks of each kind and task", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 600, "training steps of a network", lower_bound=1)
_CHANNELS = flags.DEFINE_integer("channels", 16, "width of the networks; published: 96", 1)
_BATCH = flags.DEFINE_integer("batch", 8, "patches of a step", lower_bound=1)
_PATCH = flags.DEFINE_integer(
    "patch", 32, "side of a patch in pixels, a multiple of 4; published: 64", lower_bound=24
)
_MARGIN_PSNR = flags.DEFINE_float(
    "margin_psnr", 0.5, "difference in dB that does not matter", lower_bound=1e-9
)
_MARGIN_SSIM = flags.DEFINE_float(
    "margin_ssim", 0.01, "difference in SSIM that does not matter", lower_bound=1e-9
)
_MARGIN_RMSE = flags.DEFINE_float(
    "margin_rmse", 0.002, "difference in RMSE that does not matter", lower_bound=1e-9
)


def main() -> int:
    """Trains, tests and writes the report.

    Returns:
        `ExitCode.DONE`.
    """
    from deepssim_jax.audit import utility, utility_report
    from deepssim_jax.audit.utility import Figure, UtilitySettings
    from deepssim_jax.data.manifest import check_subject_regex
    from deepssim_jax.ops.degradation import Task
    from deepssim_jax.training.restoration import RestorationSettings
    from deepssim_jax.workspace import Workspace

    for holder in (_REAL, _SYNTHETIC, _SAFEGUARDED, _TEST):
        usage.exists(holder, "folder or file")
    check_subject_regex(_SUBJECT_REGEX.value)
    if _PATCH.value % 4 or _PATCH.value > _SIZE.value:
        raise usage.UsageError(
            f"--patch={_PATCH.value} must be a multiple of 4 and at most --size={_SIZE.value}"
        )
    folders = {"real": _REAL.value, "synthetic": _SYNTHETIC.value}
    if _SAFEGUARDED.value:
        folders["safeguarded"] = _SAFEGUARDED.value
    settings = UtilitySettings(
        tasks=tuple(Task(name) for name in dict.fromkeys(_TASKS.value)),
        training=RestorationSettings(
            channels=_CHANNELS.value, steps=_STEPS.value, batch=_BATCH.value, patch=_PATCH.value
        ),
        seeds=_SEEDS.value,
        margins={
            Figure.PSNR: _MARGIN_PSNR.value,
            Figure.SSIM: _MARGIN_SSIM.value,
            Figure.RMSE: _MARGIN_RMSE.value,
        },
    )
    inputs = {**{f"--{name}": folder for name, folder in folders.items()}, "--test": _TEST.value}
    with Workspace.open(_OUT.value, command="utility", inputs=inputs) as workspace:
        with progress() as on_progress:
            given = utility.read_arms(
                folders,
                _TEST.value,
                workspace,
                size=_SIZE.value,
                subject_regex=_SUBJECT_REGEX.value,
                on_progress=on_progress,
            )
        with progress(unit="steps") as on_progress:
            result = utility.utility(
                given.arms, given.test, given.patients, settings=settings, on_progress=on_progress
            )
        result = dataclasses.replace(result, accounts=given.accounts)
        written = utility_report.write(result, workspace)
        workspace.prune()
    files = [row for side, account in given.accounts.items() for row in account.rows(side)]
    console.finish(
        [*files, ("images learned from", result.images), *utility_report.summary(result)],
        written=written,
    )
    return ExitCode.DONE
