"""What the queries that are called copies rest on, and how many of them chance alone would give.

Contract: a call is a query that is called a copy. It is confirmed if a second kind of evidence calls the
same reference. References that are copies of each other count as one original.
"""

import collections
import dataclasses
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import scipy  # whose parts load when they are first used

# As many calls as chance gives at least this often are no evidence of copying.
MOST_BY_CHANCE = 0.05
# So many calls that point at one original, most of them unconfirmed, can be what they share with it.
MIN_ALIKE = 3


@dataclasses.dataclass(frozen=True)
class Call:
    """One query that is called a copy of `original`, a name of the reference and of its doubles."""

    original: Hashable
    confirmed: bool
    exact: bool = False


@dataclasses.dataclass(frozen=True)
class Calls:
    """How many calls there are: `alike` look like `originals` references that many point at, and of the
    others, `count`, so many are `confirmed`, and of these so many `exact` copies.
    """

    count: int = 0
    confirmed: int = 0
    exact: int = 0
    alike: int = 0
    originals: int = 0

    @classmethod
    def of(cls, found: Sequence[Call]) -> "Calls":
        """Counts the calls."""
        alike = look_alikes(found)
        rest = [call for call, out in zip(found, alike, strict=True) if not out]
        return cls(
            count=len(rest),
            confirmed=sum(call.confirmed for call in rest),
            exact=sum(call.confirmed and call.exact for call in rest),
            alike=len(found) - len(rest),
            originals=len({call.original for call, out in zip(found, alike, strict=True) if out}),
        )


def look_alikes(found: Sequence[Call]) -> list[bool]:
    """Which calls can be what unrelated queries share with one original.

    A mark, a frame or a scanner's text on one reference makes many unrelated queries with the like of it
    copies of that one, as a rule by one kind of evidence only; copies are mostly confirmed. So
    MIN_ALIKE calls or more of one original, of which fewer than half are confirmed, are look-alikes.
    """
    total = collections.Counter(call.original for call in found)
    confirmed = collections.Counter(call.original for call in found if call.confirmed)
    marked = {k for k, n in total.items() if n >= MIN_ALIKE and 2 * confirmed[k] < n}
    return [call.original in marked for call in found]


def originals_of(names: Sequence[str], doubles: Iterable[tuple[object, str]]) -> list[str]:
    """What each reference is an image of: its name, or that of the first one that it is a copy of.

    Args:
      names: of the references.
      doubles: (group, name) of those that are copies of each other.
    """
    first: dict[object, str] = {}
    known = {name: first.setdefault(group, name) for group, name in doubles}
    return [known.get(name, name) for name in names]


@dataclasses.dataclass(frozen=True)
class FalseCalls:
    """Of `total` images without a copy, how many each kind of evidence calls `alone`; and beside these,
    how many are called by `both`.
    """

    alone: tuple[int, ...]
    both: int
    total: int


@dataclasses.dataclass(frozen=True)
class Chance:
    """The `share` of images without a copy that are called one, by `of` of them; None where it is known."""

    share: float
    of: float | None = None

    @classmethod
    def seen(cls, false: int, total: int) -> "Chance":
        """By Laplace's rule, which keeps an unseen error from being taken for an impossible one."""
        return cls((false + 1) / (total + 2), total + 2)

    def and_also(self, other: "Chance") -> "Chance":
        """That of two independent errors at once, both estimated from few images.

        The product of two shares with beta laws, as the beta law of the same mean and variance.
        """
        mean = self.share * other.share
        square = self._square * other._square
        return Chance(mean, (mean - square) / (square - mean**2))

    @property
    def _square(self) -> float:
        """Expectation of the share's square; of a beta law."""
        if self.of is None:
            return self.share**2
        return self.share * (self.share * self.of + 1) / (self.of + 1)

    @property
    def law(self) -> str:
        """Of the number of calls."""
        return "binomial" if self.of is None else "beta-binomial"

    def p_value(self, count: int, total: int) -> float:
        """The probability of `count` calls or more of `total`. A share that few images tell is itself
        unsure, by a beta law (Gelman et al., Bayesian Data Analysis, 2013, section 2.4).
        """
        if self.of is None:
            return float(scipy.stats.binom.sf(count - 1, total, self.share))
        false, true = self.of * self.share, self.of * (1 - self.share)
        # Not `sf`, which is a difference to 1 and has no small values.
        as_many = np.arange(count, total + 1)
        return min(float(scipy.stats.betabinom.pmf(as_many, total, false, true).sum()), 1.0)


@dataclasses.dataclass(frozen=True)
class Chances:
    """How often an image without a copy is called one at all, and how often the call is `confirmed`; None
    where one kind of evidence decides.
    """

    called: Chance
    confirmed: Chance | None = None

    @property
    def limit(self) -> float:
        """The p-value up to which a test is evidence: two tests have two chances (Bonferroni)."""
        return MOST_BY_CHANCE / (1 if self.confirmed is None else 2)
