"""What a result says first, for the top of its report and for a notebook.

Contract: plain text; whoever shows it escapes it. `tone` is a class of `report.css`.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Answer:
    """A verdict in words, the sentences below it, and a few numbers as (number, what it counts)."""

    tone: str
    title: str
    sentences: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
