"""Verdicts on numbers of images that were never compared."""

from deepssim_jax.audit import sentences
from deepssim_jax.audit.chances import chances_of
from deepssim_jax.audit.result import Thresholds
from deepssim_jax.data.manifest import Role
from deepssim_jax.detection.assessment import Assessment, Searched, assess
from deepssim_jax.detection.calls import Calls, FalseCalls
from deepssim_jax.scoring.decide import clopper_pearson
from tests.audit import made

COUNTS = {
    "real": 500,
    "synthetic": 400,
    "holdout": 0,
    "unreadable_real": 0,
    "unreadable_synthetic": 0,
}


def thresholds(found: int = 50, near: int = 50, calibrated: bool = True) -> Thresholds:
    return made.thresholds(
        null_count=100,
        false_rate=clopper_pearson(0, 50),
        planted_recall=None if found < 0 else clopper_pearson(found, 50),
        planted_near_recall=clopper_pearson(near, 50),
        calibrated=calibrated,
    )


def judge(exact: int, near: int, *, counts=COUNTS, holdout=None, of=thresholds()):
    """Of exact copies by both kinds of evidence and near ones by one."""
    found = assess(
        clopper_pearson(exact + near, 400),
        sides={role: searched(counts, role) for role in (Role.REAL, Role.SYNTHETIC)},
        performance=of.performance,
        calls=Calls(exact + near, confirmed=exact, exact=exact),
        chance=chances_of(FalseCalls((0, 0), 0, 50), holdout),
    )
    return found.verdict, sentences.reasons(found.reasons)


def weighed(
    calls: Calls, total: int, *, null: FalseCalls = FalseCalls((0, 0), 0, 25), held_out=None
) -> Assessment:
    """So many calls of so many images, beside negative controls."""
    return assess(
        clopper_pearson(calls.count + calls.alike, total),
        sides={},
        performance=None,
        calls=calls,
        chance=chances_of(null, held_out),
    )


def searched(counts: dict[str, int], role: Role) -> Searched:
    return Searched(
        counts[role.value],
        counts[f"unreadable_{role.value}"],
        counts.get(f"not_comparable_{role.value}", 0),
        counts.get(f"{role.value}_with_doubles", 0),
    )
