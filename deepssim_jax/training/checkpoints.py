"""Checkpoints of a training state; the only file that knows Orbax."""

from pathlib import Path

import jax
from orbax.checkpoint import v1 as ocp

from deepssim_jax.training.step import TrainState


class Checkpoints:
    """The latest `keep` states under a directory. Use as a context manager: leaving it waits until
    everything is on disk.
    """

    def __init__(self, directory: Path, *, keep: int):
        self._checkpointer = ocp.training.Checkpointer(
            directory.absolute(),
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *unused: object) -> None:
        self._checkpointer.close()

    def save(self, state: TrainState) -> None:
        """Saves under the state's own step; the same step is not saved twice."""
        step = int(state.step)
        if self._checkpointer.latest is None or self._checkpointer.latest.step != step:
            self._checkpointer.save(step, state)

    def restore(self, abstract: TrainState) -> TrainState | None:
        """The latest state in the shapes and shardings of `abstract`, or None if there is none."""
        if self._checkpointer.latest is None:
            return None
        return self._checkpointer.load(self._checkpointer.latest.step, abstract)


def abstract(state: TrainState) -> TrainState:
    """Shapes, types and shardings of a state."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
