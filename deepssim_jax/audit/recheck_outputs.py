"""Checking the folder of any command: every file that it wrote is there, unchanged, and nothing else is.

What is kept in `work` for later runs is looked at, too; a later run makes anew what is damaged there.
"""

import dataclasses
from pathlib import Path

from deepssim_jax.audit import recheck_summary
from deepssim_jax.audit.recheck import Recheck, recheck
from deepssim_jax.scoring.match import Progress
from deepssim_jax.workspace import WORK, examine

_GONE = "the folder `work`, which holds the hashes of the files, is gone"


def recheck_outputs(folder: Path) -> Recheck:
    """Holds every output against the hash that was noted when it was written.

    Files can have the names of patients: they are said by number, in the order of the list of outputs,
    unless the command chose the name itself.

    Args:
      folder: the `--out` (or `--workdir`) of a finished command.

    Raises:
      WorkspaceError: it is no folder of this program.
    """
    found = examine(folder, work=folder / WORK)
    problems: list[str] = []
    if not found.listed:
        problems.append(_GONE)
    for what, names in (("was changed", found.changed), ("missing", found.missing)):
        own = [name for name in names if "/" not in name]
        problems += [f"file {name}: {what}" for name in own]
        if count := len(names) - len(own):
            problems.append(f"{count:,} {'file' if count == 1 else 'files'} in its folders: {what}")
    # Without the list every file is one that nobody wrote.
    if found.strange and found.listed:
        files = "1 file was" if found.strange == 1 else f"{found.strange:,} files were"
        problems.append(f"{files} not written by `deepssim {found.command}`")
    if found.damaged:
        parts = "1 part" if found.damaged == 1 else f"{found.damaged:,} parts"
        problems.append(f"{parts} of the work that is kept for later runs: changed or missing")
    count = len(found.intact) + len(found.changed) + len(found.missing)
    if found.listed and not count:
        problems.append(
            f"nothing that `deepssim {found.command}` finished is here; run it again, and it goes on"
        )
    return Recheck(count, 0, 0, tuple(problems))


def recheck_audit(
    folder: Path, *, on_progress: Progress = lambda done, total, what: None
) -> Recheck:
    """`recheck`, and nothing else lies in the folder."""
    found, files = recheck(folder, on_progress=on_progress), recheck_outputs(folder)
    # What the summary rests on is said by `recheck` already.
    known = (*found.problems, f"{recheck_summary.FILE}{recheck_summary.NAME}: was changed", _GONE)
    more = [line for line in files.problems if line not in known]
    return dataclasses.replace(found, problems=(*found.problems, *more))
