"""From numbers to a verdict."""

import pytest

from deepssim_jax.audit import conclusion
from deepssim_jax.audit.calibration import Evidence
from deepssim_jax.audit.disclosure import Edition
from deepssim_jax.audit.result import Thresholds, Verdict
from deepssim_jax.scoring.decide import clopper_pearson
from deepssim_jax.scoring.match import Retrieval

COUNTS = {
    "real": 500,
    "synthetic": 400,
    "holdout": 0,
    "unreadable_real": 0,
    "unreadable_synthetic": 0,
}


def evidence(found: int = 50, near: int = 50, calibrated: bool = True) -> Evidence:
    thresholds = Thresholds(
        0.95,
        0.97,
        "somewhere",
        100,
        0.9,
        clopper_pearson(0, 50),
        clopper_pearson(found, 50),
        clopper_pearson(near, 50),
    )
    return Evidence(thresholds, null_scores=None, separated=True, calibrated=calibrated)


def judge(exact: int, near: int, *, counts=COUNTS, holdout=None, of=evidence()):
    classes = {"exact_duplicate": exact, "near_duplicate": near, "unrelated": 400 - exact - near}
    rate = clopper_pearson(exact + near, 400)
    return conclusion.verdict(counts, classes, rate, holdout, of)


def test_one_exact_copy_is_enough() -> None:
    assert judge(1, 0) == (Verdict.COPIES_FOUND, ())


def test_nothing_found_holds_within_its_interval() -> None:
    verdict, reasons = judge(0, 0)
    assert verdict is Verdict.NONE_FOUND_WITHIN_LIMITS
    assert "below 0.92% at 95% confidence" in reasons[-1]


def test_what_would_have_been_missed_is_said() -> None:
    verdict, reasons = judge(0, 0, of=evidence(near=7))
    assert verdict is Verdict.NONE_FOUND_WITHIN_LIMITS
    assert "7 of 50 were found: most such copies would have been missed" in reasons[-1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"of": evidence(calibrated=False)}, "could not be calibrated"),
        ({"of": evidence(found=40)}, "copies could have been missed"),
        ({"counts": {**COUNTS, "unreadable_real": 20}}, "untested"),
    ],
)
def test_nothing_found_proves_nothing_where_little_was_tested(change: dict, words: str) -> None:
    verdict, reasons = judge(0, 0, **change)
    assert verdict is Verdict.INCONCLUSIVE
    assert any(words in reason for reason in reasons)


def test_a_few_near_copies_may_be_chance_and_many_are_not() -> None:
    control = clopper_pearson(2, 100)
    verdict, reasons = judge(0, 5, holdout=control)
    assert verdict is Verdict.INCONCLUSIVE and "by chance" in reasons[-1]
    assert judge(0, 60, holdout=control)[0] is Verdict.COPIES_FOUND


def test_counts_to_share_are_never_small() -> None:
    few = {**COUNTS, "unreadable_real": 3}
    classes = {"exact_duplicate": 1, "near_duplicate": 0, "unrelated": 399}
    _, reasons = conclusion.verdict(
        few, classes, clopper_pearson(1, 400), None, evidence(), edition=Edition.SHARED
    )
    assert reasons == ("Some real images could not be read; copies of them cannot be detected.",)


def test_notes_name_what_was_left_out() -> None:
    assert len(conclusion.notes(128, "axial:0.5", Retrieval.BOTH, left_out=0)) + 1 == len(
        conclusion.notes(128, "axial:0.5", Retrieval.BOTH, left_out=2)
    )
