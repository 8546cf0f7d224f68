"""What a result says first, for the top of its report and for a notebook.

Contract: plain text; whoever shows it escapes it. `tone` is a class of `report.css`.
"""

import dataclasses

from deepssim_jax.audit import sentences
from deepssim_jax.audit.disclosure import Edition
from deepssim_jax.detection.assessment import Assessment, Verdict


@dataclasses.dataclass(frozen=True)
class Answer:
    """A verdict in words, the sentences below it, and a few numbers as (number, what it counts)."""

    tone: str
    title: str
    sentences: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]


# The tone outside of a few copies, whatever the verdict is.
FEW_FOUND = "few_found"


def tone_of(assessment: Assessment, edition: Edition) -> str:
    """The verdict for who reads it, or `FEW_FOUND`.

    Whether a few copies are more than chance gives depends on how many they are, and would tell it: outside
    a few look like copies, whatever chance gives. Where few of many do, or do not, look like one real image,
    the verdict is that of as many copies that do not.
    """
    if not edition.shows(assessment.copy_rate.count):
        return FEW_FOUND
    if sentences.withheld(assessment.reasons, edition):
        return Verdict.COPIES_FOUND.value
    return assessment.verdict.value
