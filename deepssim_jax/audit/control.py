"""The same search with images that the model never saw.

Two questions with one set of held-out images: how near do they come to the real ones (what a
synthetic image would reach without copying: the p-values' null), and how near do the synthetic
images come to them (copies of these there cannot be).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from deepssim_jax.audit.calibration import Trial
from deepssim_jax.audit.doubles import are_doubles
from deepssim_jax.audit.holdout import overlap_error
from deepssim_jax.scoring.kinds import Kinds
from deepssim_jax.scoring.match import PAIR, Progress, match
from deepssim_jax.scoring.retrieval import Proposals
from deepssim_jax.scoring.side import Side
from deepssim_jax.workspace import Section

_COPIED = "by their local features the same picture as one"


@dataclasses.dataclass(frozen=True)
class Control:
    """What the search found of held-out images whose patients the real side does not hold.

    `holdout_to_real` of each held-out image, `synthetic_to_holdout` of each synthetic image; `left_out`
    held-out images share a patient with the real side.
    """

    holdout_to_real: Trial
    synthetic_to_holdout: Trial
    left_out: int


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Pairs of `match`: of held-out images with real ones, and of synthetic images with those held-out ones
    that are `chosen`, because the real side does not hold their patients.
    """

    real: Side
    holdout: Side
    synthetic: Side
    chosen: np.ndarray
    to_real: np.ndarray
    to_holdout: np.ndarray

    def control(self, kinds: Kinds) -> Control:
        """What the pairs say, in the measure of the kinds of the real side."""
        unseen, count = self.holdout.embeddings[self.chosen], len(self.holdout)
        to_real = kinds.levelled(self.to_real, self.real.embeddings)
        to_holdout = kinds.levelled(self.to_holdout, unseen)
        return Control(
            Trial.of(to_real, count)[self.chosen],
            Trial.of(to_holdout, len(self.synthetic) if len(self.chosen) else 0),
            count - len(self.chosen),
        )


def search_holdout(
    holdout: Side,
    real: Side,
    synthetic: Side,
    *,
    apart: Sequence[bool],
    journals: tuple[Section, Section],
    proposals: Proposals,
    on_progress: Progress,
) -> HeldOut:
    """Runs both searches.

    Args:
      holdout: the held-out images.
      real: the real side.
      synthetic: the synthetic side.
      apart: for each held-out image, whether its patient is on the held-out side alone.
      journals: of the two searches, in the order of the fields.
      proposals: as for `match`.
      on_progress: as for `match`.

    Raises:
      InputError: held-out images are copies of real ones.
    """
    to_real = match(
        holdout,
        real,
        journal=journals[0],
        proposals=proposals,
        on_progress=on_progress,
        what="held-out with real",
    )
    # Also those of patients on both sides: a real image under another name is no control.
    if (copied := np.unique(to_real["query"][are_doubles(to_real)])).size:
        raise overlap_error(len(copied), len(holdout), _COPIED)
    chosen = np.flatnonzero(apart)
    if not len(chosen):
        return HeldOut(real, holdout, synthetic, chosen, to_real, np.zeros(0, PAIR))
    unseen = holdout.rows(chosen)
    to_holdout = match(
        synthetic,
        unseen,
        journal=journals[1],
        proposals=proposals,
        # The thresholds are for real images that took part in saying what is common; these shall, too.
        kind=np.concatenate([real.sample(), unseen.sample()]),
        on_progress=on_progress,
        what="synthetic with held-out",
    )
    return HeldOut(real, holdout, synthetic, chosen, to_real, to_holdout)
