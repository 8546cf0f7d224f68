"""What a search for duplicates needs of what it compares, be it images or volumes.

Both read a collection, take equal files out, look each of the others up among all, and hold what they
found against what unrelated ones of this folder reach. All that follows is the same for both: groups,
splits, patients, tables, the report (`jobs.findings`, `jobs.duplicates_outputs`).
"""

import dataclasses
from typing import Any, Protocol

import numpy as np

from deepssim_jax.audit.self_join import connected
from deepssim_jax.data.store import ImageStore
from deepssim_jax.jobs.copy_rule import Rule
from deepssim_jax.jobs.duplicate_pictures import Pictures
from deepssim_jax.jobs.duplicates_result import Compared, DuplicatePair, DuplicatesResult


@dataclasses.dataclass(frozen=True)
class Found:
    """`pairs` (copies) and `similar`, by rows of the store, most evidence first: arrays with the fields
    query, reference and evidence, and what `DuplicateSearch.placed` reads.

    `equal` int [n] is the row that stands for each image and those that equal it; `rule` says what
    copies are.
    """

    pairs: np.ndarray
    similar: np.ndarray
    equal: np.ndarray
    rule: Rule

    @classmethod
    def of(cls, pairs: np.ndarray, copy: np.ndarray, *, equal: np.ndarray, rule: Rule) -> "Found":
        """From all pairs, most evidence first, and bool [pairs] which of them are copies."""
        copies, alike = pairs[copy], rule.alike(pairs)
        # Images of one group are no merely similar ones, however they are linked.
        group = connected(copies["query"], copies["reference"], len(equal))
        alike &= group[pairs["query"]] != group[pairs["reference"]]
        return cls(pairs=copies, similar=pairs[alike & ~copy], equal=equal, rule=rule)


class DuplicateSearch(Protocol):
    """A collection that was searched against itself."""

    @property
    def compared(self) -> Compared:
        """Which of both it is."""
        ...

    @property
    def images(self) -> ImageStore:
        """The store of what could be read."""
        ...

    @property
    def found(self) -> Found:
        """By rows of that store."""
        ...

    @property
    def comparable(self) -> np.ndarray:
        """Bool [n]: what holds enough to be compared."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What is a duplicate, in sentences."""
        ...

    @property
    def pair(self) -> type[DuplicatePair]:
        """What says what was found of a pair."""
        ...

    def placed(self, row: np.void) -> dict[str, Any]:
        """Score and transformation, the fields of a `pair`, from a row of `found`."""
        ...

    def pictures(self, result: DuplicatesResult) -> Pictures:
        """Of pairs of the result, whose copies and similar pairs are in the order of `found`."""
        ...
