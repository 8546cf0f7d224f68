"""The processes that share a workspace, and how they tell how far they are."""

import dataclasses
from collections.abc import Callable

Progress = Callable[[int, int, str], None]


def silent(done: int, total: int, what: str) -> None:
    """Progress that nobody sees."""


@dataclasses.dataclass(frozen=True)
class Processes:
    """The processes that work on one workspace together, on a file system that all of them see.

    `agreed` answers in every process what it was asked in the first one, once all have asked.
    """

    index: int = 0
    count: int = 1
    agreed: Callable[[bool], bool] = lambda answer: answer

    @property
    def first(self) -> bool:
        """Whether this is the process that writes for all."""
        return self.index == 0

    def wait(self) -> None:
        """Returns when every process has come here."""
        self.agreed(True)
