"""What a search for duplicates found, be it of images or volumes.

Both searches (`jobs.duplicate_images`, `jobs.duplicate_volumes`) read a collection, take equal files out,
look each of the others up among all, and hold what they found against what unrelated ones of this folder
reach. All that follows is the same for both: groups, splits, patients, tables, the report (`jobs.findings`,
`jobs.duplicates_outputs`).
"""

import dataclasses

import numpy as np

from deepssim_jax.audit.self_join import connected
from deepssim_jax.jobs.copy_rule import Rule


@dataclasses.dataclass(frozen=True)
class Found:
    """`pairs` (copies) and `similar`, by rows of the store, most evidence first: arrays with the fields
    query, reference and evidence, and what the search's `placed` reads.

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
