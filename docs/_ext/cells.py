"""What all tables of results are made of: records, shares, Markdown.

Contract: a share in a table has its n and its 95 % interval.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(str(x).replace('|', chr(92) + '|') for x in line)} |" for line in lines
    )


def share(count: float, total: float, low: float, high: float) -> str:
    """A count with its total and interval, given as shares."""
    return f"{count:.0f} of {total:.0f} ({100 * low:.1f} to {100 * high:.1f} %)"


def records(name: str) -> list[dict]:
    """The records of one measurement, oldest first."""
    text = (RESULTS / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line.strip()]
