"""What a command prints: results on stdout, everything else on stderr."""

import os
import sys
from collections.abc import Iterable, Sequence

_CONTROL = {i: f"\\x{i:02x}" for i in (*range(32), 127, *range(128, 160))}


def printable(text: object) -> str:
    """Returns the text on one line, control characters spelled out.

    Image ids come from files of other people: a newline in one must not look like a second message,
    nor an escape sequence reach the terminal.
    """
    return str(text).translate(_CONTROL)


def error(text: str) -> None:
    """Prints one line on stderr."""
    print(printable(text), file=sys.stderr, flush=True)


_WIDEST = 56


def table(rows: Iterable[Sequence[object]]) -> str:
    """Returns rows of cells as aligned columns, two blanks apart, the first one left-aligned.

    Columns that hold only numbers are aligned at the right. A long first cell, such as a reason, stands out
    of its column and does not widen it.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    if not cells:
        return ""
    columns = max(len(row) for row in cells)
    cells = [row + [""] * (columns - len(row)) for row in cells]
    widths = [max(len(row[i]) for row in cells) for i in range(columns)]
    widths[0] = max((len(row[0]) for row in cells if len(row[0]) <= _WIDEST), default=0)
    right = [i > 0 and all(_is_number(row[i]) for row in cells) for i in range(columns)]
    lines = []
    for row in cells:
        parts = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right)]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def _is_number(cell: str) -> bool:
    return cell == "" or cell.lstrip("-+").replace(",", "").replace(".", "").rstrip("%").isdigit()


def finish(rows: Iterable[Sequence[object]], *, written: Iterable[str | os.PathLike[str]]) -> None:
    """Prints the last thing a command says: a short table and the paths it wrote.

    Args:
        rows: Rows of cells, the first cell saying what the row is.
        written: The files written, the one to open first at the front.
    """
    print(table(rows))
    paths = [printable(os.fspath(path)) for path in written]
    if paths:
        print("\nwritten:")
        print("\n".join(f"  {path}" for path in paths), flush=True)
