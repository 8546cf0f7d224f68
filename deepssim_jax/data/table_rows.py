"""Rows of tables that people wrote: none is lost inside of another, and no cell is repeated.

Contract: a row is one line. A quote that was never closed takes the rows after it into one cell, so a
row that goes on over its line is refused by number. So is a row of more cells than the first, which names the
columns, each once: a name with a comma that was not quoted ends as another patient's. Messages hold no cell:
it can be a patient's id.
"""

import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from deepssim_jax.data.records import InputError

_BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_MOST_BYTES = 1_000_000_000
WINDOWS = "cp1252"
_SEPARATOR = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)


_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def guarded(text: str) -> str:
    """With an apostrophe before what a spreadsheet would take for a formula, or what has one there."""
    return f"'{text}" if text.lstrip("'").startswith(_FORMULA) else text


def plain(text: str) -> str:
    """Undoes `guarded`."""
    return text[1:] if text.startswith("'") and guarded(text) != text else text


def separator_of(line: str) -> str | None:
    """The delimiter, where a line is the one that states it for Excel: `sep=;`, before the names."""
    found = _SEPARATOR.fullmatch(line)
    return None if found is None else found[1]


def decoded_text(source: Path, name: str) -> tuple[str, str]:
    """The text of a table and its encoding: UTF-8, UTF-16, UTF-32 or, failing these, `WINDOWS`.

    Raises:
      InputError: it is too long, not in the encoding that it begins with, or in none of these.
    """
    if source.stat().st_size > _MOST_BYTES:
        raise InputError(f"{name} has more than {_MOST_BYTES:,} bytes")
    data = source.read_bytes()
    encoding = next((code for mark, code in _BYTE_ORDER_MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise InputError(f"{name} is damaged {encoding}; save it as UTF-8") from error
        text, encoding = data.decode(WINDOWS, "backslashreplace"), WINDOWS
    check_text(text.partition("\n")[0], name)
    return text, encoding


def header_of(text: str, column: str, *, tabs_first: bool = False) -> tuple[str, list[str]]:
    """The separator of a table whose first row names `column`, and the names in small letters.

    Where no separator gives that name, those of the separator that gives the most.
    """
    top = io.StringIO(text, newline="")
    first = top.readline()
    known = ("\t", ",", ";") if tabs_first else (",", ";", "\t")
    if (given := separator_of(first)) is not None:
        known, first = (given,), top.readline()
    found = [
        (x, [y.strip().lower() for y in next(csv.reader([first], delimiter=x), [])]) for x in known
    ]
    return next((x for x in found if column in x[1]), max(found, key=lambda x: len(x[1])))


def check_text(line: str, name: str) -> None:
    """Raises InputError where the first line of a table shows an encoding that was not recognised."""
    if "\0" in line:
        raise InputError(
            f"{name} has zero bytes in its first line, as UTF-16 without its mark has; save it as UTF-8"
        )


def whole_rows(
    lines: Iterable[str], name: str, *, delimiter: str = ","
) -> Iterator[tuple[int, list[str]]]:
    """The rows that hold something, each with the number of its line, from 1; the first names the columns.

    `lines` keep their ends, as those of a file opened with `newline=""`; `name` is the table's.

    Raises:
      InputError: the quotes of a row do not pair, or a cell holds a line break or is too long; a row has
        more cells than the first, or that names a column twice.
    """
    lines = iter(lines)
    first, skipped, head = next(lines, ""), 0, None
    check_text(first, name)
    if (given := separator_of(first)) is not None:
        delimiter, skipped = given, 1
    else:
        lines = itertools.chain([first], lines)
    reader, line = csv.reader(lines, delimiter=delimiter, strict=True), skipped
    try:
        for row in reader:
            if reader.line_num + skipped > line + 1:
                raise csv.Error(f"the row goes on to line {reader.line_num + skipped}")
            line = reader.line_num + skipped
            if not row:
                continue
            if head is None:
                head = row
                _check_names(row, name)
            elif any(cell.strip() for cell in row[len(head) :]):
                raise InputError(
                    f"{name}, line {line}: it has {len(row)} cells, and the first row names {len(head)} "
                    f"columns; put a cell that holds a {delimiter!r} in double quotes"
                )
            yield line, row
    except csv.Error as error:
        raise InputError(
            f'{name}, line {line + 1}: its quotes (") do not pair, or a cell holds a line break or is too '
            f"long ({error}), so rows after it would be lost; close each quote at the end of its cell, "
            "write a quote inside of a quoted cell twice, and take line breaks out"
        ) from error


def _check_names(row: list[str], name: str) -> None:
    """Refuses a column that is there twice, by number: one of the two would be lost."""
    places: dict[str, int] = {}
    for number, cell in enumerate(row, start=1):
        column = cell.strip().lower()
        if column and places.setdefault(column, number) != number:
            raise InputError(
                f"{name}: its columns {places[column]} and {number} have one name; give each its own"
            )


def named_rows(
    lines: Iterable[str], name: str, *, delimiter: str = ","
) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """The columns that the first row names, and the other rows by column; what a row lacks is empty.

    Raises:
      InputError: as `whole_rows`, also while the rows are taken.
    """
    rows = whole_rows(lines, name, delimiter=delimiter)
    _, columns = next(rows, (1, list[str]()))
    return columns, (
        (line, dict(itertools.zip_longest(columns, row[: len(columns)], fillvalue="")))
        for line, row in rows
    )
