"""Looking at the folder of a finished command from outside: is everything as it was written?"""

import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path

from deepssim_jax.workspace import claims, files
from deepssim_jax.workspace.outputs import FILE, GROWS, Outputs
from deepssim_jax.workspace.steps import damaged_work, strange_work


@dataclasses.dataclass(frozen=True)
class Examined:
    """The outputs of a `command` by name: `intact`, `changed`, `missing`; those that `grow` or belong to
    a library are not followed. `strange` counts files that the command did not write, in its kept work, too,
    `damaged` what is kept for later runs and is not as it was written. `listed` is False where the list of
    outputs is gone, and nothing can be said.
    """

    command: str
    listed: bool
    intact: tuple[str, ...]
    changed: tuple[str, ...]
    missing: tuple[str, ...]
    grow: tuple[str, ...]
    strange: int
    damaged: int


def owner(folder: Path) -> str | None:
    """Whose folder it is, None if it has no marker that can be read."""
    try:
        return json.loads((folder / claims.MARKER).read_text(encoding="utf-8"))["command"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def check_written(folder: Path, names: Iterable[str], *, command: str) -> None:
    """Refuses to read what a command left in its folder and someone changed since.

    Args:
      folder: of the finished command; one without a marker is a user's own, of converted weights, say,
        and passes.
      names: of the files that are about to be read.
      command: who wrote them.

    Raises:
      WorkspaceError: the folder is another command's, or a file is not as it was written last.
    """
    if not (folder / claims.MARKER).is_file():
        return
    if (found := owner(folder)) != command:
        raise claims.WorkspaceError(
            f"{folder.name!r} is a folder of {found}; give one of a finished {command}"
        )
    outputs = Outputs(folder / claims.WORK / FILE)
    for name in names:
        if not files.holds(folder / name, outputs.last(name) or ""):
            raise claims.WorkspaceError(
                f"{folder.name!r}: its {name} was changed or removed after {command} wrote it, or the folder "
                f"`work`, which holds its hash, is gone. Move the file away and run the same {command} "
                "again, which writes it anew"
            )


def was_changed(folder: Path, name: str) -> bool:
    """Whether a file is known to be another than was written last; False where no hash of it is kept."""
    digest = Outputs(folder / claims.WORK / FILE).last(name)
    return digest not in (None, GROWS) and not files.holds(folder / name, str(digest))


def examine(folder: Path, *, work: Path) -> Examined:
    """Hashes every output of a command.

    Args:
      folder: its `--out`.
      work: where it keeps its work, as a rule `folder / WORK`.

    Raises:
      WorkspaceError: the folder is not one of this program.
    """
    command = owner(folder)
    if command is None:
        raise claims.WorkspaceError(
            f"{folder.name!r} holds nothing of this program; give the --out of a finished command"
        )
    outputs = Outputs(work / FILE)
    found: dict[str, list[str]] = {"intact": [], "changed": [], "missing": [], "grow": []}
    for name in outputs:
        digest, path = outputs.last(name), folder / name
        if digest == GROWS:
            kind = "grow"
        elif path.is_symlink() or not path.is_file():
            kind = "missing"
        else:
            kind = "intact" if files.sha256(path) == digest else "changed"
        found[kind].append(name)
    if outputs.last(claims.MARKER) not in (None, files.sha256(folder / claims.MARKER)):
        found["changed"].append(claims.MARKER)
    return Examined(
        command=command,
        listed=(work / FILE).is_file(),
        damaged=damaged_work(work),
        strange=_others(folder, work, outputs) + strange_work(work),
        **{kind: tuple(names) for kind, names in found.items()},
    )


def check_alone(folder: Path, *, work: Path, flag: str) -> None:
    """Refuses to go on in a folder that is to be given away and holds files that nobody judged.

    Args:
      folder: the outputs.
      work: where the list of them is kept; where that is inside of the folder, it is not to be given away.
      flag: that of the folder, for messages.

    Raises:
      WorkspaceError: a file lies there that was not written by the command.
    """
    if work.parent == folder:
        return
    if count := _others(folder, work, Outputs(work / FILE)):
        files = "1 file was" if count == 1 else f"{count:,} files were"
        raise claims.WorkspaceError(
            f"{flag}={folder.name!r}: {files} not written by this command, and this folder is to be given "
            "away: move out what was added, and run the same command again"
        )


def _others(folder: Path, work: Path, outputs: Outputs) -> int:
    """How many files the command did not write."""
    return sum(_not_of(outputs, name) for name in _names(folder, work))


def _not_of(outputs: Outputs, name: str) -> bool:
    lent = name.partition("/")[0] + "/"
    return name not in outputs and lent not in outputs


def _names(folder: Path, work: Path) -> list[str]:
    """Files of a folder, without its kept work and without workspaces that lie in it."""
    out = []
    for place, inside, names in os.walk(folder):
        here = Path(place)
        if here != folder and claims.MARKER in names:
            inside.clear()
            continue
        inside[:] = [name for name in inside if here / name != work]
        out += [(here / name).relative_to(folder).as_posix() for name in names]
    kept = claims.OWN_FILES | claims.NOBODYS
    return [name for name in out if name.rpartition("/")[2] not in kept]
