"""A result in a notebook: its verdict, its numbers and its first rows, as HTML without pictures.

Contract: everything is escaped, and nothing but the result is read. Rows name files and patients, as
the internal edition of a report does: a notebook is the institution's own, and whoever gives one away
clears its outputs first.
"""

import math
from collections.abc import Sequence

from deepssim_jax.audit import page
from deepssim_jax.audit.answer import Answer
from deepssim_jax.audit.tables import Table, cell

_MOST_ROWS = 10


def html(answer: Answer, table: Table, *, columns: Sequence[str]) -> str:
    """An answer and the first rows of its table.

    Args:
      answer: what is said first.
      table: the rows that the result's CSV file has.
      columns: those of its columns that are shown.
    """
    places = [table.columns.index(name) for name in columns]
    rows = [[_short(row[place]) for place in places] for row in table.rows[:_MOST_ROWS]]
    return page.render(
        "notebook",
        answer=answer,
        columns=columns,
        rows=rows,
        more=f"{len(table.rows) - len(rows):,}" if len(table.rows) > len(rows) else "",
    )


def _short(value: object) -> str:
    """A value with the digits that are read."""
    if not isinstance(value, float) or math.isnan(value):
        return cell(value)
    return f"{value:.1e}" if 0 < abs(value) < 0.001 else f"{value:.3f}"
