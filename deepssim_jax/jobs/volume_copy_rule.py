"""When two volumes of one folder are copies, by what unrelated volumes of that folder reach.

Contract: pairs are rows of `VOLUME_PAIR`, of one volume and another that keypoints have placed. Evidence
is the logarithm of what the keypoints weigh that agree on one map. The law is that of the plain weight,
learned from what each volume has for its third best and further others beside its copies; from it a pair
is alike. A copy is what `audit.replica_doubles` takes for one, whatever the law says: a folder of many
degraded copies can lift it all the same, and a note says so.
"""

import dataclasses
import math

import numpy as np

from deepssim_jax.audit.replica_doubles import MIN_EVIDENCE, MIN_SHARE, are_volume_doubles
from deepssim_jax.audit.self_join import connected
from deepssim_jax.audit.volume_join import LEAST_NOTED, VolumeJoin
from deepssim_jax.jobs.copy_rule import Rule
from deepssim_jax.scoring.evidence import false_discovery_cut
from deepssim_jax.scoring.volume_evidence import law_beside_copies

# `noted` is the row of what `audit.volume_join` has noted of the pair, `share` that of its points.
VOLUME_PAIR = np.dtype(
    [("query", "<i4"), ("reference", "<i4"), ("noted", "<i4"), ("evidence", "<f4")]
    + [("points", "<f4"), ("share", "<f4"), ("structure", "<f4"), ("covered", "<f4")]
    + [("mirrored", "<i4"), ("rotation_deg", "<f4"), ("shift_mm", "<f4")]
)

_WHOLE = 0.9  # structure that no volume made of parts of two reaches with either


@dataclasses.dataclass(frozen=True)
class VolumeCopyRule(Rule):
    """Of volumes: evidence of pairs is a logarithm."""

    least_evidence = math.log(MIN_EVIDENCE)

    @property
    def copy_evidence(self) -> float:
        """From which a pair can be a copy: what no two unrelated volumes at hand reach."""
        return self.least_evidence

    @classmethod
    def of(
        cls, join: VolumeJoin, doubles: np.ndarray, *, own: np.ndarray, rate: float
    ) -> "VolumeCopyRule":
        """From a folder searched against itself.

        Args:
          join: what its volumes have for each other.
          doubles: int [m, 2], rows of pairs that are copies.
          own: float [n], the evidence that each has for itself.
          rate: of false discoveries among volumes called alike.
        """
        # All copies of one volume say nothing of unrelated ones.
        law = law_beside_copies(join.most(connected(doubles[:, 0], doubles[:, 1], len(join.rest))))
        points = MIN_SHARE * float(np.median(own))  # of a volume that is neither rich nor poor
        cut = false_discovery_cut(law.p_values(join.most()[:, 0]), rate=rate)
        return cls(law, math.log(max(law.threshold(cut), LEAST_NOTED)), points)

    @property
    def limits(self) -> dict[str, float]:
        """`points` are those of a volume that is neither rich nor poor in them."""
        return super().limits | {"points_share": MIN_SHARE}

    def p_value(self, evidence: float) -> float:
        """The law is that of no logarithm."""
        return super().p_value(math.exp(evidence))

    def whole(self, pairs: np.ndarray) -> np.ndarray:
        """By the structure that agrees."""
        return pairs["structure"] >= _WHOLE

    def unsure(self, copies: np.ndarray) -> str | None:
        """What a report says where copies, rows of `VOLUME_PAIR`, lie below what chance can reach here."""
        below = int((copies["evidence"] < self.evidence).sum())
        if not below:
            return None
        return (
            f"The thresholds are unsure: unrelated volumes of this folder seem to reach an evidence of "
            f"{self.evidence:.2f}, as they do where many volumes are degraded copies of others. {below:,} of "
            f"{len(copies):,} pairs of copies lie below it; look at them, and at the folder."
        )


def copies_of(pairs: np.ndarray) -> np.ndarray:
    """Bool [n]: which rows of `VOLUME_PAIR` are copies."""
    return are_volume_doubles(np.exp(pairs["evidence"]), pairs["share"], pairs["structure"])
