"""Nothing that the shared edition holds back can be computed from what it says.

The attacker knows the code. He makes every world that could have been, renders its shared page, and
keeps the worlds whose page is the one in his hands: a count from 1 to 4 must never be the only one left.
"""

import collections
import dataclasses
import functools
import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from deepssim_jax.audit import disclosure, report
from deepssim_jax.audit.chances import chances_of
from deepssim_jax.audit.disclosure import Edition
from deepssim_jax.audit.result import (
    AuditResult,
    Coverage,
    Label,
    Match,
    Membership,
)
from deepssim_jax.data.manifest import Role
from deepssim_jax.detection.assessment import EditRecall, Searched, Subjects, assess
from deepssim_jax.detection.calls import Calls, FalseCalls
from deepssim_jax.detection.result import Exclusion
from deepssim_jax.scoring import decide
from deepssim_jax.scoring.decide import conformal_p_values, discoveries
from deepssim_jax.scoring.membership import Attack, figures
from deepssim_jax.workspace import Workspace
from tests.audit import made
from tests.kept import within

SYNTHETIC = 40
clopper_pearson = functools.cache(
    decide.clopper_pearson
)  # thousands of worlds ask for a few of them


@dataclasses.dataclass(frozen=True)
class World:
    """What the attacker does not know. Every number of it belongs to people."""

    exact: int = 0
    near: int = 0
    confirmed: int = 0  # of the near ones, those that both kinds of evidence call; exact ones are
    alike: int = 0  # of the other near ones, those that look like one real image
    again: int = 0  # copies of a patient whom another one shows as well
    hidden: int = 0  # negative controls that are doubles that nobody knows of
    unread: int = 0
    doubles: int = 0  # real images that are copies of another one
    empty: int = 0  # synthetic images that hold too little to be compared
    false: tuple[int, int] = (0, 30)
    recall: tuple[int, int] = (30, 30)
    near_recall: tuple[int, int] = (30, 30)
    holdout: tuple[int, int] | None = None
    by_change: tuple[int, int] | None = None
    attacked: tuple[int, int, float] | None = None  # members, held out, and how far they are apart
    real: int = 350
    synthetic: int = SYNTHETIC


def audit_of(world: World) -> AuditResult:
    labels = [Label.EXACT] * world.exact + [Label.NEAR] * world.near
    labels += [Label.UNRELATED] * (world.synthetic - len(labels))
    nearest = tuple(
        Match(f"s{i}", f"r{i}", f"p{i}", 0.9, 0.99, label, None, None)
        for i, label in enumerate(labels)
    )
    copies = world.exact + world.near
    counts = {
        "real": world.real,
        "synthetic": world.synthetic + world.empty,
        "holdout": world.holdout[1] if world.holdout else 0,
        "unreadable_real": world.unread,
        "unreadable_synthetic": 0,
        "real_with_doubles": world.doubles and world.doubles + 1,
        "not_comparable_synthetic": world.empty,
    }
    thresholds = made.thresholds(
        false_rate=clopper_pearson(*world.false),
        planted_recall=clopper_pearson(*world.recall),
        planted_near_recall=clopper_pearson(*world.near_recall),
    )
    false_calls = FalseCalls((world.false[0], 0), world.hidden, world.false[1])
    thresholds = dataclasses.replace(thresholds, false_calls=false_calls)
    sure = world.exact + world.confirmed
    calls = Calls(
        copies - world.alike, sure, world.exact, alike=world.alike, originals=int(world.alike > 0)
    )
    classes = {label.value: labels.count(label) for label in Label}
    # As many are compared in every world: the page may not tell how many there were beside them.
    rate = clopper_pearson(copies, world.synthetic)
    holdout = clopper_pearson(*world.holdout) if world.holdout else None
    assessment = assess(
        rate,
        sides={
            Role.REAL: Searched(world.real, world.unread, duplicated=counts["real_with_doubles"]),
            Role.SYNTHETIC: Searched(counts["synthetic"], not_comparable=world.empty),
        },
        performance=thresholds.performance,
        calls=calls,
        chance=chances_of(
            false_calls, FalseCalls((world.holdout[0], 0), 0, world.holdout[1]) if holdout else None
        ),
        subjects=Subjects(calls.count + calls.originals - world.again, world.real - world.doubles),
    )
    found = None
    if world.holdout:
        null = np.linspace(0, 0.9, world.holdout[1])
        scores = np.array([0.99 if x is not Label.UNRELATED else 0.3 for x in labels])
        found = discoveries(conformal_p_values(scores, null), holdout=len(null))
    membership = None
    if world.attacked:
        rng = np.random.default_rng(0)
        *sides, apart = world.attacked
        scores = [rng.standard_normal(n) + at for n, at in zip(sides, (apart, 0), strict=True)]
        membership = Membership({Attack.PIA: figures(*scores)}, *sides, 0.95, Coverage.ALL, "hash")
    return AuditResult(
        assessment=assessment,
        counts=counts,
        # What the audit itself used depends on the number of copies.
        thresholds=dataclasses.replace(thresholds, near=0.95 + 0.001 * copies),
        thresholds_to_share=thresholds,
        classes=classes,
        holdout_rate=holdout,
        synthetic_to_holdout_rate=None,
        subjects_known=True,
        nearest=nearest,
        pairs=nearest[:copies],
        distributions={"synthetic_to_real": np.linspace(0.3, 0.99, world.synthetic)},
        exclusions=tuple(Exclusion("real", f"x{i}", "bad") for i in range(world.unread)),
        notes=("A note.", f"{world.unread} images were left out as asked (--forget)."),
        notes_to_share=("A note.",),
        settings={"size": 128},
        versions={"jax": "1"},
        discoveries=found,
        recall_to_share=(EditRecall("blur", clopper_pearson(*world.by_change), False),)
        if world.by_change
        else (),
        membership=membership,
    )


def shared_page(world: World) -> str:
    return report._render(audit_of(world), (), edition=Edition.SHARED, salt=b"salt")


def small(total: int) -> list[tuple[int, int]]:
    return [(count, total) for count in (0, 1, 2, 3, 4, 9)]


# Every way in which up to eight copies are exact and near ones.
SPLITS = [(exact, copies - exact) for copies in range(9) for exact in range(copies + 1)]
ATTACKS = {
    # The binomial p of the reason, the verdict, and the chance that both rest on.
    "copies": [
        World(exact=exact, near=near, false=false)
        for exact, near in SPLITS
        for false in [*small(20), *small(30), *small(60), *((n, 12) for n in range(13))]
    ],
    "chance of held-out images": [
        World(exact=exact, near=near, holdout=holdout)
        for exact, near in SPLITS
        for total in (10, 30, 60)
        for holdout in small(total)
    ],
    # The verdict rests on how many copies are confirmed and how many look like one image.
    "calls": [
        World(
            exact=exact,
            near=near,
            confirmed=confirmed,
            alike=alike,
            again=again,
            false=false,
            hidden=hidden,
        )
        for exact, near in SPLITS
        if exact + near in (5, 8)
        for confirmed in range(near + 1)
        for alike in (0, *range(3, near - confirmed + 1))
        # Two calls that nothing confirms may show one patient; three would look like one image.
        for again in range(max(exact + confirmed, 1) + (near - confirmed - alike) // 2)
        for false, hidden in itertools.product(((0, 30), (2, 30), (3, 30)), (0, 2, 6))
    ],
    # More than 1 % unread changes the verdict: at 350 images that is four.
    "unread": [World(unread=unread) for unread in range(9)],
    "doubles": [World(exact=exact, doubles=doubles) for exact in (0, 6) for doubles in range(9)],
    "not comparable": [World(empty=empty) for empty in range(9)],
    "few images": [
        World(real=real, synthetic=synthetic, exact=exact)
        for real in (*range(1, 9), 350)
        for synthetic in (*range(1, 9), SYNTHETIC)
        for exact in range(min(synthetic, real, 6) + 1)
    ],
    "membership": [
        World(attacked=(members, held_out, apart))
        for members, held_out in itertools.product((1, 2, 3, 4, 9, 40), repeat=2)
        for apart in (0.0, 9.0)
    ],
}


def secrets_of(world: World) -> dict[str, int]:
    """Every count of the world that the page may not tell if it is from 1 to 4.

    Positive controls are the program's own, and point to nobody.
    """
    out = {
        "exact": world.exact,
        "near": world.near,
        "copies": world.exact + world.near,
        "confirmed": world.exact + world.confirmed,
        "alike": world.alike,
        "unknown doubles": world.hidden,
        "unread": world.unread,
        "doubles": world.doubles,
        "empty": world.empty,
        "real": world.real,
        "synthetic": world.synthetic,
    }
    for name, pair in {"false": world.false, "holdout": world.holdout}.items():
        if pair:
            out |= {name: pair[0], f"{name}, others": pair[1] - pair[0]}
    if world.attacked:
        out |= {"members": world.attacked[0], "held out": world.attacked[1]}
    return out


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_small_count_can_be_told_from_the_page(attack: str) -> None:
    worlds = collections.defaultdict(list)
    for world in ATTACKS[attack]:
        worlds[shared_page(world)].append(world)
    for possible in worlds.values():
        for name in secrets_of(possible[0]):
            left = {secrets_of(world)[name] for world in possible}
            assert len(left) > 1 or not left <= {1, 2, 3, 4}, (name, left, possible)


def test_few_copies_have_one_page_whatever_they_are_and_chance_gives() -> None:
    few = [
        World(exact=exact, near=near, false=false, holdout=holdout)
        for exact, near in SPLITS
        if 1 <= exact + near < disclosure.SMALL
        for false in [(0, 20), (2, 12), (3, 20), (4, 20), (0, 60), (9, 400), (2, 2000)]
        for holdout in (None, (0, 40), (4, 40), (30, 40))
    ]
    # The held-out side is counted in words of its own; what is said of them stays away.
    pages = {shared_page(world) for world in few}
    assert len(pages) == 1
    assert re.search(
        r"fewer than 5 look like copies of fewer than 5 of 350 patients\. So few can be", *pages
    )
    assert "A few images look like copies" in min(pages)
    inside = {report.answer(audit_of(world), Edition.INTERNAL).title for world in few}
    assert inside == {"Copies found", "Inconclusive"}


def test_the_attacker_does_find_a_leak(monkeypatch) -> None:
    """The p-value that the reason held, or a share with its interval, told everything."""
    monkeypatch.setattr(disclosure, "is_telling", lambda p: False)
    monkeypatch.setattr(report, "is_telling", lambda p: False)
    with pytest.raises(AssertionError, match="holdout"):
        test_no_small_count_can_be_told_from_the_page("chance of held-out images")


def test_what_was_missed_of_the_controls_is_shown() -> None:
    page = shared_page(World(recall=(26, 30), near_recall=(2, 12), by_change=(2, 12)))
    for share in ("26 of 30 (86.67%", "2 of 12 (16.67%"):
        assert share in page
    assert page.count("2 of 12 (16.67%") == 2


def test_the_salt_is_drawn_once_and_is_private(tmp_path: Path) -> None:
    first, second = (within(tmp_path / name, Workspace.secret) for name in ("a", "b"))
    assert len(first) == 32 and first != second
    assert within(tmp_path / "a", Workspace.secret) == first
    assert (tmp_path / "a" / "work" / "secret").stat().st_mode & 0o077 == 0


def test_aliases_stand_for_people_and_say_nothing() -> None:
    page = shared_page(World(exact=6))
    aliases = re.findall(r"<td><code>([0-9a-f]{10})</code></td></tr>", page)
    assert len(aliases) == 6 and aliases == sorted(aliases)
    assert not re.search(r"\bp[0-5]\b|\br[0-5]\b", page)
