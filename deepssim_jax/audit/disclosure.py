"""What may be shown to whom: the rules of the shared edition of every report.

Contract: the shared edition holds no identifier of a patient, and no count of patients' images from 1
to 4, neither written nor computable from what is written. A count that is not shown has the same
words whatever it is, and so is each figure that depends on it: its share, interval and p-value, what
with it adds up to a total, and the verdict that a few copies lead to.
"""

import enum
import hashlib
import hmac

from deepssim_jax.scoring.decide import Proportion

# A count of patients' images from 1 to below this could point to a person.
SMALL = 5


def is_small(count: int) -> bool:
    """Whether a count could point to a person."""
    return 0 < count < SMALL


def is_telling(p: Proportion | None) -> bool:
    """Whether a share gives a small count away: of those counted, or of the others."""
    return p is not None and (is_small(p.count) or is_small(p.total - p.count))


class Edition(enum.Enum):
    """Who reads: the institution that holds the images, or anybody."""

    INTERNAL = "internal"
    SHARED = "shared"

    def shows(self, *counts: int) -> bool:
        """Whether figures may be stated from which these counts can be computed."""
        return self is Edition.INTERNAL or not any(map(is_small, counts))

    def count(self, value: int) -> str:
        """A number of patients' images."""
        if not self.shows(value):
            return f"fewer than {SMALL}"
        return f"{value:,}"

    def proportion(self, p: Proportion) -> str:
        """A share with its interval."""
        if self is Edition.SHARED and is_telling(p):
            return f"suppressed: a count below {SMALL} could point to a person"
        bounds = f"{p.level:.0%} interval {percent(p.low)} to {percent(p.high)}"
        return f"{p.count:,} of {p.total:,} ({percent(p.value)}, {bounds})"

    def alias(self, identifier: str, salt: bytes) -> str:
        """An identifier, or what stands for it outside: the same for one salt, and without it nothing."""
        if self is Edition.INTERNAL:
            return identifier
        return hmac.new(salt, identifier.encode(), hashlib.sha256).hexdigest()[:10]


def percent(value: float) -> str:
    """A share in [0, 1] as text."""
    return f"{value:.0%}" if value in (0.0, 1.0) else f"{value:.2%}"
