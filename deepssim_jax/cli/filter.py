"""Writes what may leave of a folder of synthetic images, with a certificate.

    deepssim filter --real=training/ --synthetic=generated/ --out=to_share/

An image stays behind if its embedding or its verified score, after alignment, is too close to any
training image. What leaves is written anew, as PNG or NIfTI: its pixels and nothing else of the file, under
a number. released.csv in the private work folder says which file it was.

    deepssim verify to_share/ --real=training/

checks the certificate.
"""

from pathlib import Path

from absl import flags

from deepssim_jax.cli import guard_flags, usage
from deepssim_jax.cli.progress import progress

_GUARD = guard_flags.GuardFlags.define(required=True)
_SYNTHETIC = flags.DEFINE_string("synthetic", None, "the images to judge", required=True)
_OUT = flags.DEFINE_string(
    "out", None, "folder for what may leave, and certificate.json", required=True
)


def main() -> int:
    """Filters the folder.

    Returns:
        `ExitCode.DONE`.
    """
    from deepssim_jax.audit.safeguard import account_of, filter_folder
    from deepssim_jax.data.manifest import Role, read_manifest

    usage.exists(_GUARD.real, "folder or file")
    usage.exists(_SYNTHETIC, "folder or file")
    out = Path(_OUT.value)
    inputs = {"--synthetic": _SYNTHETIC.value}
    opened = _GUARD.open(out, command="filter", inputs=inputs, reads={})
    with opened as workspace, progress() as on_progress:
        # Once more below; what is wrong with it is said before the training images take minutes.
        offered = read_manifest(_SYNTHETIC.value, role=Role.SYNTHETIC)
        workspace.keep_apart(offered.elsewhere)
        release = filter_folder(
            _SYNTHETIC.value,
            _GUARD.build(workspace, on_progress),
            workspace,
            residual_pairs=_GUARD.residual_pairs.value,
            on_progress=on_progress,
        )
    account = account_of(release, offered)
    return guard_flags.finish(
        release, out, work=_GUARD.work_folder(out), files=account.rows("synthetic")
    )
