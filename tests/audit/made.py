"""Results of audits that were never run."""

from deepssim_jax.audit.result import Thresholds
from deepssim_jax.scoring.decide import Proportion


def thresholds(
    *,
    false_rate: Proportion | None,
    planted_recall: Proportion | None,
    planted_near_recall: Proportion | None,
    null_count: int = 60,
    calibrated: bool = True,
) -> Thresholds:
    """Ordinary ones, with what was measured at them."""
    return Thresholds(
        near=0.95,
        exact=0.97,
        local=1.8,
        partial=(0.5, 0.6, 0.7),
        chance=0.005,
        origin="somewhere",
        null_count=null_count,
        null_max=0.9,
        false_rate=false_rate,
        planted_recall=planted_recall,
        planted_near_recall=planted_near_recall,
        calibrated=calibrated,
    )
