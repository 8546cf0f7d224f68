"""What a search for copies means as a whole: the verdict, its reasons as data, rates and recalls.

Contract: knows neither pixels nor words. Whoever searches images, volumes or a set against itself states
what was searched, what was found and what the controls came to; `assess` is the one place that draws a
verdict. A reason is a cause with its numbers, and `audit.sentences` writes it out for who reads it.
"""

import dataclasses
import enum
from collections.abc import Iterator, Mapping

from deepssim_jax.data.manifest import Role
from deepssim_jax.detection.calls import Calls, Chance, Chances
from deepssim_jax.scoring.decide import Proportion

# Where more of a side than this share could not be read or compared, finding nothing proves little.
MAX_UNTESTED = 0.01
# Below this lower bound on the recall of positive controls, finding nothing means nothing.
MIN_RECALL = 0.8
# So large a share of unrelated images, of which half a percent may be called copies, needs a word.
MANY_FALSE = 0.02
MIN_PATIENTS = 20


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
    UNKNOWN_DOUBLES = "unknown_doubles"
    UNREADABLE = "unreadable"
    NOT_COMPARABLE = "not_comparable"
    DUPLICATED = "duplicated"
    ONE_ORIGINAL = "one_original"
    WITHIN_CHANCE = "within_chance"
    BEYOND_CHANCE = "beyond_chance"
    CONFIRMED = "confirmed"
    EXACT = "exact"
    CHANCE_NOT_KNOWN = "chance_not_known"
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

    `count` is of images of the first of `roles`, or of calls; `originals` of the images that they point
    at; `share` a rate or recall; `expected` the number of calls that chance gives, `p_value` the probability
    of as many as there were and `limit` the one up to which it is evidence; `detail` a part of a sentence.
    """

    cause: Cause
    roles: tuple[Role, ...] = ()
    count: int = 0
    originals: int = 0
    share: Proportion | None = None
    expected: float | None = None
    p_value: float | None = None
    limit: float | None = None
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
    `unknown_doubles` are negative controls that all evidence calls copies; they are not in `false_rate`.
    """

    calibrated: bool
    false_rate: Proportion | None
    recall: Proportion | None
    local_recall: Proportion | None = None
    by_edit: tuple[EditRecall, ...] = ()
    unknown_doubles: int = 0

    @property
    def sensitive(self) -> bool:
        """Whether so many controls are found that finding nothing means something."""
        return self.recall is not None and self.recall.low >= MIN_RECALL


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
    calls: Calls | None = None,
    chance: Chances | None = None,
    subjects: Subjects | None = None,
) -> Assessment:
    """Draws the verdict.

    Args:
      copy_rate: share of the compared images that are called copies.
      sides: what took part.
      performance: what controls came to; None for a search that states only what it found.
      calls: what those rest on; None where all that is found is a copy.
      chance: how often an image without a copy is called one; None where nothing tells.
      subjects: who is exposed.
    """
    if copy_rate.count:
        calls = calls or Calls(copy_rate.count)
        verdict, reasons = _found(copy_rate, calls, chance)
        if performance is not None and chance is None and calls.count:
            reasons = (*reasons, Reason(Cause.CHANCE_NOT_KNOWN, count=calls.count))
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
    if of is not None and of.unknown_doubles:
        yield Reason(Cause.UNKNOWN_DOUBLES, (Role.REAL,), of.unknown_doubles)
    if of is not None and of.false_rate is not None and of.false_rate.low > MANY_FALSE:
        yield Reason(Cause.MANY_ALIKE, (Role.REAL,), of.false_rate.count)


def _found(
    rate: Proportion, calls: Calls, chances: Chances | None
) -> tuple[Verdict, tuple[Reason, ...]]:
    reasons = []
    if calls.alike:
        reasons.append(
            Reason(Cause.ONE_ORIGINAL, (), calls.alike, originals=calls.originals, share=rate)
        )
    if chances is None:
        found = calls.count > 0
        return Verdict.COPIES_FOUND if found else Verdict.INCONCLUSIVE, tuple(reasons)
    # What looks like one original is not asked.
    total = rate.total - calls.alike
    tests = [
        _tested(rate, (count, total), chance, cause, chances.limit)
        for cause, count, chance in (
            (Cause.BEYOND_CHANCE, calls.count, chances.called),
            (Cause.CONFIRMED, calls.confirmed, chances.confirmed),
        )
        if count and chance is not None
    ]
    beyond = [test for test in tests if (test.p_value or 0.0) <= chances.limit]
    if beyond:
        return Verdict.COPIES_FOUND, (*reasons, *beyond)
    if calls.exact:
        return Verdict.COPIES_FOUND, (*reasons, Reason(Cause.EXACT, count=calls.exact))
    within = {Cause.BEYOND_CHANCE: Cause.WITHIN_CHANCE}
    tests = [dataclasses.replace(t, cause=within.get(t.cause, t.cause)) for t in tests]
    return Verdict.INCONCLUSIVE, (*reasons, *tests)


def _tested(
    rate: Proportion, called: tuple[int, int], chance: Chance, cause: Cause, limit: float
) -> Reason:
    """So many calls of so many images against what chance gives."""
    count, total = called
    return Reason(
        cause,
        count=count,
        share=rate,
        expected=chance.share * total,
        p_value=chance.p_value(count, total),
        limit=limit,
        detail=chance.law,
    )


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
