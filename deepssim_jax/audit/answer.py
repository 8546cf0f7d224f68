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


def several(number: int, what: str) -> str:
    """So many of them: `1 pair`, `1,200 pairs`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def verdict_of(assessment: Assessment, edition: Edition) -> Verdict:
    """The verdict for who reads it.

    Whether a few copies are more than chance gives depends on how many they are, and would tell it: outside
    they are found, whatever chance gives.
    """
    few = not edition.shows(assessment.copy_rate.count)
    few = few or sentences.withheld(assessment.reasons, edition)
    return Verdict.COPIES_FOUND if few else assessment.verdict
