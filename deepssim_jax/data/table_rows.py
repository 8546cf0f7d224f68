"""Rows of tables that people wrote: none is lost inside of another, and no cell is repeated.

Contract: a row is one line. A quote that was never closed takes the rows after it into one cell, so a
row that goes on over its line is refused by number. Messages hold no cell: it can be a patient's id.
"""

import csv
import itertools
from collections.abc import Iterable, Iterator

from deepssim_jax.data.records import InputError


def whole_rows(
    lines: Iterable[str], name: str, *, delimiter: str = ","
) -> Iterator[tuple[int, list[str]]]:
    """The rows that hold something, each with the number of its line, from 1.

    `lines` keep their ends, as those of a file opened with `newline=""`; `name` is the table's.

    Raises:
      InputError: the quotes of a row do not pair, or a cell holds a line break or is too long.
    """
    reader, line = csv.reader(lines, delimiter=delimiter, strict=True), 0
    try:
        for row in reader:
            if reader.line_num > line + 1:
                raise csv.Error(f"the row goes on to line {reader.line_num}")
            line = reader.line_num
            if row:
                yield line, row
    except csv.Error as error:
        raise InputError(
            f'{name}, line {line + 1}: its quotes (") do not pair, or a cell holds a line break or is too '
            f"long ({error}), so rows after it would be lost; close each quote at the end of its cell, "
            "write a quote inside of a quoted cell twice, and take line breaks out"
        ) from error


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
