"""Checkpoints of a training state; the only file that knows Orbax."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import jax
from orbax.checkpoint import v1 as ocp

from deepssim_jax import parallel
from deepssim_jax.workspace import NoSpace, Workspace


class Stepped(Protocol):
    """A state that knows how many steps were taken."""

    @property
    def step(self) -> jax.Array:
        """int32 []."""
        ...


State = TypeVar("State", bound=Stepped)


class Checkpoints:
    """The latest `keep` states in a folder of a workspace. Use as a context manager: leaving it waits until
    everything is on disk.

    Beside the folder the size and checksum of every file are kept, so that a damaged state is known
    before Orbax reads it.
    """

    def __init__(self, workspace: Workspace, name: str, *, keep: int):
        self._workspace, self._name = workspace, name
        self._directory = workspace.lend(name).absolute()
        self._checkpointer = ocp.training.Checkpointer(
            self._directory,
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *unused: object) -> None:
        self._guarded(self._checkpointer.close)

    def save(self, state: Stepped) -> None:
        """Saves under the state's own step; the same step is not saved twice.

        Raises:
          NoSpace: the disk is full; earlier checkpoints are whole.
        """
        step = int(state.step)
        if self._checkpointer.latest is None or self._checkpointer.latest.step != step:
            self._guarded(lambda: self._checkpointer.save(step, state))
            if jax.process_index() == 0:
                sums = json.dumps(_sums(self._directory / str(step))).encode()
                self._guarded(lambda: self._workspace.write(self._sums_of(step), sums))
                self._forget()

    def restore(
        self, abstract: State, *, on_notice: Callable[[str], None] = lambda text: None
    ) -> State | None:
        """The newest state that can be read, or None if there is none.

        Args:
          abstract: shapes, types and shardings wanted.
          on_notice: called with each newer one that cannot be read; it is moved out of the way.

        Raises:
          ValueError: there are checkpoints, and none can be read.
        """
        steps = sorted((c.step for c in self._checkpointer.checkpoints), reverse=True)
        for step in steps:
            reason = "its files are not what was written"
            if parallel.agreed(self._whole(step)):
                try:
                    return self._checkpointer.load(step, abstract)
                except Exception as error:  # whatever a broken file makes of Orbax
                    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            on_notice(
                f"the checkpoint of step {step} cannot be read ({reason}); the one before it is taken"
            )
            if jax.process_index() == 0:
                self._set_aside(step)
            self._checkpointer.reload()
        if steps:
            raise ValueError(
                f"none of the {len(steps)} checkpoints in {self._directory.parent.name!r} can be read; "
                "they lie in `unreadable`: remove the folder to begin anew"
            )
        return None

    def _sums_of(self, step: int) -> str:
        return f"{self._name}_sums/{step}.json"

    def _forget(self) -> None:
        """Removes the sums of states that Orbax has removed."""
        there = {self._sums_of(c.step) for c in self._checkpointer.checkpoints}
        for name in self._workspace:
            if name.startswith(f"{self._name}_sums/") and name not in there:
                self._workspace.remove(name)

    def _whole(self, step: int) -> bool:
        """Whether the files are those that were written, as far as that was noted down."""
        path = self._workspace.path(self._sums_of(step))
        if jax.process_index() or not path.exists():
            return True
        return _sums(self._directory / str(step)) == json.loads(path.read_text(encoding="utf-8"))

    def _set_aside(self, step: int) -> None:
        """Nothing that could be looked at is deleted."""
        for found in self._directory.iterdir():
            if found.name == str(step):
                self._workspace.set_aside(found)

    def _guarded(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:  # Orbax and TensorStore wrap it each in their own way
            if "no space left" not in str(error).lower():
                raise
            raise NoSpace(
                f"there is no space left for checkpoints in {self._directory.parent.name!r}; free some "
                "and run the same command again: it goes on from the last whole checkpoint"
            ) from error


def _sums(folder: Path) -> dict[str, list[int]]:
    """Size and checksum of every file under a folder."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        size = total = 0
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                size, total = size + len(block), zlib.crc32(block, total)
        found[path.relative_to(folder).as_posix()] = [size, total]
    return found


def abstract(state: State) -> State:
    """Shapes, types and shardings of a state."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
