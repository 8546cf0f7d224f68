"""What a search for copies means as a whole: the verdict, its reasons as data, rates and recalls.

Contract: knows neither pixels nor words. Whoever searches images, volumes or a set against itself states
what was searched, what was found and what the controls came to; `assess` is the one place that draws a
verdict. A reason is a cause with its numbers, and `audit.sentences` writes it out for who reads it.
"""

import dataclasses
import enum
from collections.abc import Iterator, Mapping

from scipy import stats

from deepssim_jax.data.manifest import Role
from deepssim_jax.scoring.decide import Proportion

# Where more of a side than this share could not be read or compared, finding nothing proves little.
MAX_UNTESTED = 0.01
# Below this lower bound on the recall of positive controls, finding nothing means nothing.
MIN_RECALL = 0.8
# So large a share of unrelated images, of which half a percent may be called copies, needs a word.
MANY_FALSE = 0.02
MIN_PATIENTS = 20
# As many calls as chance gives at least this often are no evidence of copying.
MOST_BY_CHANCE = 0.05


class Verdict(enum.StrEnum):
    """The one-word answer. None of them says that data are anonymous."""

    COPIES_FOUND = "copies_found"
    NONE_FOUND_WITHIN_LIMITS = "none_found_within_limits"
    INCONCLUSIVE = "inconclusive"


class Cause(enum.StrEnum):
    """Why a verdict is what it is, or what bounds it."""

    HELD_OUT_DIFFER = "held_out_differ"
    HELD_OUT_KNOWN = "held_out_known"
    HELD_OUT_CALLED = "held_out_called"
    FEW_PATIENTS = "few_patients"
    MANY_ALIKE = "many_alike"
    UNREADABLE = "unreadable"
    NOT_COMPARABLE = "not_comparable"
    DUPLICATED = "duplicated"
    WITHIN_CHANCE = "within_chance"
    BEYOND_CHANCE = "beyond_chance"
    NOT_CALIBRATED = "not_calibrated"
    NO_POSITIVE_CONTROLS = "no_positive_controls"
    NO_NEGATIVE_CONTROLS = "no_negative_controls"
    LOW_RECALL = "low_recall"
    UNTESTED = "untested"
    NONE_FOUND = "none_found"
    LOW_LOCAL_RECALL = "low_local_recall"


@dataclasses.dataclass(frozen=True)
class Reason:
    """A cause with its numbers, as far as it has any.

    `count` is of images of the first of `roles`; `share` a rate or recall; `expected` the number of calls
    that chance gives and `p_value` the probability of as many as there were; `detail` a part of a sentence.
    """

    cause: Cause
    roles: tuple[Role, ...] = ()
    count: int = 0
    share: Proportion | None = None
    expected: float | None = None
    p_value: float | None = None
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class Searched:
    """A side: images that were read, that could not be, and of the former those that hold too little
    structure to be compared, and those that are copies of another one.
    """

    read: int
    unreadable: int = 0
    not_comparable: int = 0
    duplicated: int = 0

    @property
    def untested(self) -> bool:
        """Whether more of it than `MAX_UNTESTED` takes no part in the search."""
        lost = self.unreadable + self.not_comparable
        return lost > MAX_UNTESTED * (self.read + self.unreadable)


@dataclasses.dataclass(frozen=True)
class EditRecall:
    """Share of positive controls under one kind of edit that were found; `local`: it leaves near copies."""

    change: str
    share: Proportion
    local: bool = False


@dataclasses.dataclass(frozen=True)
class Performance:
    """What the detector is worth on these very images, at the thresholds that were used.

    `false_rate` of negative controls (None: there were none), `recall` of positive controls, and
    `local_recall` of those under local edits. `calibrated` is False for the package's own thresholds.
    """

    calibrated: bool
    false_rate: Proportion | None
    recall: Proportion | None
    local_recall: Proportion | None = None
    by_edit: tuple[EditRecall, ...] = ()

    @property
    def sensitive(self) -> bool:
        """Whether so many controls are found that finding nothing means something."""
        return self.recall is not None and self.recall.low >= MIN_RECALL


@dataclasses.dataclass(frozen=True)
class Chance:
    """The `share` of images without a copy that are called one, by `of` of them; None where it is known."""

    share: float
    of: float | None = None

    def p_value(self, rate: Proportion) -> float:
        """The probability of as many calls or more. A share that few images tell is itself unsure, by a
        beta law (Gelman et al., Bayesian Data Analysis, 2013, section 2.4).
        """
        called, total = rate.count - 1, rate.total
        if self.of is None:
            return float(stats.binom.sf(called, total, self.share))
        false, true = self.of * self.share, self.of * (1 - self.share)
        return float(stats.betabinom.sf(called, total, false, true))


@dataclasses.dataclass(frozen=True)
class Subjects:
    """How many patients of the real side are copied, of how many."""

    exposed: int
    total: int


@dataclasses.dataclass(frozen=True)
class Assessment:
    """Everything that a search for copies says in one number or word.

    `copy_rate` is the share of the compared images that are copies; `subjects` is None where nobody is
    exposed by a copy, as in a set searched against itself.
    """

    verdict: Verdict
    reasons: tuple[Reason, ...]
    copy_rate: Proportion
    subjects: Subjects | None = None
    recall_by_edit: tuple[EditRecall, ...] = ()


def assess(
    copy_rate: Proportion,
    *,
    sides: Mapping[Role, Searched],
    performance: Performance | None,
    chance: Chance | None = None,
    subjects: Subjects | None = None,
) -> Assessment:
    """Draws the verdict.

    Args:
      copy_rate: share of the compared images that are called copies.
      sides: what took part.
      performance: what controls came to; None for a search that states only what it found.
      chance: how often an image without a copy is called one; None where a call cannot be chance.
      subjects: who is exposed.
    """
    if copy_rate.count:
        verdict, reasons = _found(copy_rate, chance)
    elif performance is None:
        verdict, reasons = Verdict.NONE_FOUND_WITHIN_LIMITS, ()
    else:
        verdict, reasons = _none_found(copy_rate, sides, performance)
    return Assessment(
        verdict=verdict,
        reasons=(*_limits(sides), *_few(subjects), *_alike(performance), *reasons),
        copy_rate=copy_rate,
        subjects=subjects,
        recall_by_edit=() if performance is None else performance.by_edit,
    )


def _limits(sides: Mapping[Role, Searched]) -> Iterator[Reason]:
    """What no copy could be found of."""
    for role, side in sides.items():
        if side.unreadable:
            yield Reason(Cause.UNREADABLE, (role,), side.unreadable)
        if side.not_comparable:
            yield Reason(Cause.NOT_COMPARABLE, (role,), side.not_comparable)
    for role, side in sides.items():
        if side.duplicated:
            yield Reason(Cause.DUPLICATED, (role,), side.duplicated)


def _few(subjects: Subjects | None) -> Iterator[Reason]:
    """Whether there are too few patients to tell a patient's own images from others'."""
    if subjects is not None and subjects.total < MIN_PATIENTS:
        yield Reason(Cause.FEW_PATIENTS, (Role.REAL,), subjects.total)


def _alike(of: Performance | None) -> Iterator[Reason]:
    """Whether more of the unrelated real images are called copies than the thresholds allow."""
    if of is not None and of.false_rate is not None and of.false_rate.low > MANY_FALSE:
        yield Reason(Cause.MANY_ALIKE, (Role.REAL,), of.false_rate.count)


def _found(rate: Proportion, chance: Chance | None) -> tuple[Verdict, tuple[Reason, ...]]:
    if chance is None:
        return Verdict.COPIES_FOUND, ()
    p_value = chance.p_value(rate)
    within = p_value > MOST_BY_CHANCE
    cause = Cause.WITHIN_CHANCE if within else Cause.BEYOND_CHANCE
    reason = Reason(cause, share=rate, expected=chance.share * rate.total, p_value=p_value)
    return Verdict.INCONCLUSIVE if within else Verdict.COPIES_FOUND, (reason,)


def _none_found(
    rate: Proportion, sides: Mapping[Role, Searched], of: Performance
) -> tuple[Verdict, tuple[Reason, ...]]:
    untested = tuple(role for role, side in sides.items() if side.untested)
    missing = None
    if not of.calibrated:
        missing = Reason(Cause.NOT_CALIBRATED)
    elif of.recall is None:
        missing = Reason(Cause.NO_POSITIVE_CONTROLS)
    elif of.false_rate is None:
        missing = Reason(Cause.NO_NEGATIVE_CONTROLS)
    elif not of.sensitive:
        missing = Reason(Cause.LOW_RECALL, share=of.recall)
    elif untested:
        missing = Reason(Cause.UNTESTED, untested)
    if missing:
        return Verdict.INCONCLUSIVE, (missing,)
    reasons = [Reason(Cause.NONE_FOUND, share=rate)]
    if of.local_recall is not None and of.local_recall.low < MIN_RECALL:
        reasons.append(Reason(Cause.LOW_LOCAL_RECALL, share=of.local_recall))
    return Verdict.NONE_FOUND_WITHIN_LIMITS, tuple(reasons)
