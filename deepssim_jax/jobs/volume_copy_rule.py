"""When two volumes of one folder are copies, by what unrelated volumes of that folder reach.

Contract: pairs are rows of `VOLUME_PAIR`, of one volume and another that keypoints have placed. Evidence
is the logarithm of what the keypoints weigh that agree on one map; it follows a law that is learned from
the folder. A copy is what `audit.replica_doubles` takes for one, with more evidence than that law gives.
"""

import dataclasses
import math

import numpy as np

from deepssim_jax.audit.replica_doubles import MIN_EVIDENCE, MIN_POINTS, are_volume_doubles
from deepssim_jax.audit.volume_join import LEAST_NOTED
from deepssim_jax.jobs.copy_rule import Rule
from deepssim_jax.scoring.evidence import false_discovery_cut
from deepssim_jax.scoring.volume_evidence import law_of, scaled
from deepssim_jax.scoring.volume_search import Level

# `noted` is the row of what `audit.volume_join` has noted of the pair.
VOLUME_PAIR = np.dtype(
    [("query", "<i4"), ("reference", "<i4"), ("noted", "<i4"), ("evidence", "<f4")]
    + [("points", "<f4"), ("structure", "<f4"), ("covered", "<f4"), ("mirrored", "<i4")]
    + [("rotation_deg", "<f4"), ("shift_mm", "<f4")]
)


@dataclasses.dataclass(frozen=True)
class VolumeCopyRule(Rule):
    """Of volumes: evidence is a logarithm."""

    least_evidence = math.log(MIN_EVIDENCE)

    @classmethod
    def of(cls, best: np.ndarray, *, rate: float) -> "VolumeCopyRule":
        """From a folder searched against itself.

        Args:
          best: float [n], `audit.volume_join.VolumeJoin.best`.
          rate: of false discoveries among volumes called copies.
        """
        values = scaled(best, Level.POINTS)
        law = law_of(values, Level.POINTS)
        cut = false_discovery_cut(law.p_values(values), rate=rate)
        return cls(law, max(law.threshold(cut), math.log(LEAST_NOTED)), MIN_POINTS)

    def copies(self, pairs: np.ndarray) -> np.ndarray:
        """Bool [n]: which rows of `VOLUME_PAIR` are copies."""
        double = are_volume_doubles(np.exp(pairs["evidence"]), pairs["points"], pairs["structure"])
        return double & (pairs["evidence"] >= self.copy_evidence)
