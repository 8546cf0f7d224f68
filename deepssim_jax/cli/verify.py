"""Checks every hash and every flagged score of a finished audit from its files.

deepssim verify audit/
"""

from collections.abc import Sequence
from pathlib import Path

from deepssim_jax.cli import console
from deepssim_jax.cli.exit_codes import ExitCode
from deepssim_jax.cli.progress import progress

POSITIONALS = ("DIR",)
_SHOWN = 50


def main(argv: Sequence[str]) -> int:
    """Re-checks the audit in argv[1].

    Args:
        argv: The command's name and the audit's folder.

    Returns:
        `ExitCode.DONE` if everything holds, else `ExitCode.FAILED`.
    """
    from deepssim_jax.audit.recheck import recheck

    with progress() as on_progress:
        found = recheck(Path(argv[1]), on_progress=on_progress)
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
