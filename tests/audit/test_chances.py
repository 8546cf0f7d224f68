"""How many calls are more than chance, and which of them count."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from deepssim_jax.audit import sentences
from deepssim_jax.audit.answer import FEW_FOUND, tone_of
from deepssim_jax.audit.chances import calls_of, chances_of
from deepssim_jax.audit.disclosure import Edition
from deepssim_jax.detection.assessment import Cause, Verdict, assess
from deepssim_jax.detection.calls import Call, Calls, Chance, FalseCalls
from deepssim_jax.scoring.decide import clopper_pearson
from tests.audit.judged import thresholds, weighed


@pytest.mark.parametrize(("called_", "of"), [(0, 26), (6, 30), (13, 37)])
def test_a_chance_that_few_controls_tell_is_unsure(called_: int, of: int) -> None:
    """Beside draws of the share itself; with many controls it is the binomial law."""
    rng = np.random.default_rng(1)
    shares = rng.beta(called_ + 1, of - called_ + 1, 200_000)
    chance = chances_of(FalseCalls((called_, 0), 0, of), None)
    assert chance is not None
    drawn = (rng.binomial(40, shares) >= 15).mean()
    assert chance.called.p_value(15, 40) == pytest.approx(drawn, abs=0.005)
    sure = Chance(0.2, 1e9).p_value(15, 40)
    assert sure == pytest.approx(Chance(0.2).p_value(15, 40), rel=1e-3)


def test_true_copies_that_both_kinds_confirm_are_no_chance() -> None:
    """8 of 63, 7 by both kinds, beside 25 controls of which none is called: 8 by one kind would be chance."""
    found = weighed(Calls(8, confirmed=7), 63)
    assert found.verdict is Verdict.COPIES_FOUND
    (reason,) = found.reasons
    assert reason.cause is Cause.CONFIRMED and reason.expected == pytest.approx(63 / 27**2)
    # Beside draws of the two shares.
    rng = np.random.default_rng(0)
    shares = rng.beta(1, 26, (2, 400_000)).prod(0)
    chance = chances_of(FalseCalls((0, 0), 0, 25), None)
    assert chance is not None and chance.confirmed is not None
    for count in (1, 2, 3):
        drawn = stats.binom.sf(count - 1, 63, shares).mean()
        assert chance.confirmed.p_value(count, 63) == pytest.approx(drawn, rel=0.15)
    alone = weighed(Calls(8), 63)
    assert alone.verdict is Verdict.INCONCLUSIVE
    (sentence,) = sentences.reasons(alone.reasons)
    assert sentence.startswith("8 images reached the threshold, which is no more than")
    assert "about 2.3" in sentence and "is 0.055, and evidence is 0.025 or less" in sentence


def test_one_exact_copy_that_nothing_confirms_does_not_decide() -> None:
    near, exact = Call("r1", confirmed=False), Call("r2", confirmed=False, exact=True)
    assert weighed(Calls.of([near, exact]), 63).verdict is Verdict.INCONCLUSIVE
    sure = dataclasses.replace(exact, confirmed=True)
    found = weighed(Calls.of([near, sure]), 200)
    assert found.verdict is Verdict.COPIES_FOUND
    assert sentences.reasons(found.reasons) == (
        "1 image is called a copy by both kinds of evidence, and exact by the copy score. This decides, "
        "even of one image.",
    )
    assert sentences.reasons(found.reasons, edition=Edition.SHARED) == ()


def test_doubles_that_nobody_knows_of_hide_no_copy() -> None:
    """Seven of 29 real images have one; without them no control is called."""
    null = FalseCalls((0, 0), 7, 22)
    found = weighed(Calls(8, confirmed=7), 63, null=null)
    assert found.verdict is Verdict.COPIES_FOUND
    performance = dataclasses.replace(thresholds(), false_calls=null).performance
    named = assess(clopper_pearson(0, 9), sides={}, performance=performance).reasons[0]
    assert (named.cause, named.count) == (Cause.UNKNOWN_DOUBLES, 7)
    assert "7 real images are called copies of another patient's" in sentences.reasons([named])[0]


def test_many_held_out_images_that_both_kinds_call_are_no_doubles() -> None:
    calls = Calls(8, confirmed=8)
    assert weighed(calls, 63, held_out=FalseCalls((0, 0), 4, 66)).verdict is Verdict.COPIES_FOUND
    found = weighed(calls, 63, held_out=FalseCalls((0, 0), 12, 58))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert [r.cause for r in found.reasons] == [Cause.WITHIN_CHANCE, Cause.CONFIRMED]


def test_look_alikes_of_one_real_image_are_no_evidence() -> None:
    """Masks on unrelated knees, one of which is a real image, and its double; 2 of 6 by both kinds."""
    rows = [(f"r{i % 2}", i < 2, "near_duplicate") for i in range(6)]
    rows += [("r9", False, "unrelated")] * 50
    calls = calls_of(rows, [("1", "r0"), ("1", "r1")])
    assert calls == Calls(alike=6, originals=1)
    found = weighed(calls, 56)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert sentences.reasons(found.reasons) == (
        "6 images called copies all point at 1 real image. A mark, a frame or a scanner's text that they "
        "share would look the same. Look at these pairs; they do not count towards the verdict.",
    )
    (shared,) = sentences.reasons(found.reasons, edition=Edition.SHARED)
    assert shared.startswith("Some images called copies all point at the same real images.")
    # Without a word where the number could be computed, and then as if it were not known.
    few = weighed(Calls(2, alike=4, originals=1), 56)
    assert sentences.reasons(few.reasons, edition=Edition.SHARED) == ()
    assert tone_of(few, Edition.SHARED) == "copies_found"
    assert tone_of(few, Edition.INTERNAL) == "inconclusive"
    assert tone_of(weighed(Calls(2), 56), Edition.SHARED) == FEW_FOUND
    # Copies of one image that a generator made many times are mostly confirmed, and true copies beside
    # look-alikes are still found.
    many = Calls.of([Call("r1", i < 3) for i in range(6)])
    assert many == Calls(6, confirmed=3)
    beside = [Call("r1", False)] * 5 + [Call(f"q{i}", True) for i in range(4)]
    found = weighed(Calls.of(beside), 56)
    assert found.verdict is Verdict.COPIES_FOUND
    assert [r.cause for r in found.reasons] == [Cause.ONE_ORIGINAL, Cause.CONFIRMED]
    assert Calls.of([Call("r1", False)] * 2).alike == 0


@pytest.mark.parametrize("total", range(1, 7))
def test_chance_of_few_images_is_a_probability(total: int) -> None:
    """Also where fewer images tell than a count that is shown outside has to have."""
    for count in range(total + 1):
        chances = chances_of(FalseCalls((count, total - count), 0, total), None)
        assert chances is not None
        for chance in (chances.called, chances.confirmed):
            assert chance is None or 0 < chance.p_value(1, 7) <= 1
