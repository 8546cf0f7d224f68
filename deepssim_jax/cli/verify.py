"""Checks a finished audit, a certificate, or the folder of any other command, from its files.

    deepssim verify audit/
    deepssim verify to_share/ --real=training/
    deepssim verify replicas/

Of an audit every hash, count and flagged score is made again. A certificate is of `generate
--safeguard` or of `filter`: its limits are calibrated again, and every image is judged again against
every training image. Of any other command every file is held against the hash that was noted when it was
written; nothing is computed again, and files that grow, such as a training's metrics and checkpoints, are
not followed.
"""

from pathlib import Path

from absl import flags

from deepssim_jax.cli import console, usage
from deepssim_jax.cli.exit_codes import ExitCode
from deepssim_jax.cli.progress import progress

POSITIONALS = ("DIR",)
_SHOWN = 50
_REAL = flags.DEFINE_string("real", None, "of a certificate: the training images that it speaks of")
_ENCODER = flags.DEFINE_string(
    "encoder", "default", "of a certificate: what its images were judged by"
)
_SUBJECT_REGEX = flags.DEFINE_string(
    "subject_regex", None, "of a certificate: that of the command that released the images"
)


def main(folder: str) -> int:
    """Re-checks what is in a folder.

    Args:
        folder: The one to check.

    Returns:
        `ExitCode.DONE` if everything holds, else `ExitCode.FAILED`.
    """
    from deepssim_jax.audit.recheck_certificate import has_certificate, recheck_certificate
    from deepssim_jax.audit.recheck_outputs import recheck_audit, recheck_outputs
    from deepssim_jax.workspace import owner

    root = Path(folder).expanduser()
    if not root.is_dir():
        raise usage.UsageError(f"DIR={folder}: there is no such folder")
    with progress() as on_progress:
        certified = has_certificate(root)
        usage.belong(
            [_REAL, _ENCODER, _SUBJECT_REGEX],
            "a certificate in DIR, and this has none",
            wanted=certified,
        )
        if certified:
            found = recheck_certificate(
                root,
                _REAL.value,
                encoder=_ENCODER.value,
                subject_regex=_SUBJECT_REGEX.value,
                on_progress=on_progress,
            )
        elif owner(root) in (None, "audit"):
            found = recheck_audit(root, on_progress=on_progress)
        else:
            found = recheck_outputs(root)
    for line in found.problems[:_SHOWN]:
        console.error(line)
    if len(found.problems) > _SHOWN:
        console.error(f"... and {len(found.problems) - _SHOWN} more")
    console.finish(
        [
            ("files", found.files),
            ("images", found.inputs),
            ("pairs", found.pairs),
            ("problems", len(found.problems)),
        ],
        written=[],
    )
    return ExitCode.FAILED if found.problems else ExitCode.DONE
