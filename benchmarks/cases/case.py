"""What a case is: the work, how it is checked, and whom it is compared with."""

import dataclasses
from collections.abc import Callable, Mapping


@dataclasses.dataclass(frozen=True)
class Peer:
    """Another program at the same work: `run` does `items` of it, often fewer."""

    run: Callable[[], object]
    items: int


@dataclasses.dataclass(frozen=True)
class Case:
    """One kernel at one size.

    `run` does `items` of `unit` and returns when they are done; `check` compares with an
    independent computation and raises AssertionError where they differ; `flops` and `bytes` are
    what the algorithm needs at least, by hand, or for whole networks XLA's count, which is asked for
    last; None where that is not what bounds it. `half` says that most of them are of bfloat16 on this
    machine.
    """

    name: str
    unit: str
    items: int
    run: Callable[[], object]
    check: Callable[[], None]
    peers: Mapping[str, Peer] = dataclasses.field(default_factory=dict)
    flops: float | Callable[[], float] | None = None
    bytes: float | None = None
    half: bool = False
