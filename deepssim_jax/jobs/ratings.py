"""What readers exported from the review page, one file a reader.

Contract: a file has the columns `page,reader,pair,rating` and one row a pair; a rating is `copy`, `near` or
`no`, in letters of any case. Copies and near copies are copies, as they are in the program's own rate.
"""

import dataclasses
import enum
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deepssim_jax.data.table_rows import decoded_text, header_of, whole_rows

_COLUMNS = ["page", "reader", "pair", "rating"]


class Rating(enum.StrEnum):
    """What a reader says of a pair."""

    COPY = "copy"
    NEAR = "near"
    NO = "no"

    @property
    def number(self) -> int:
        """Its place, from 0."""
        return list(Rating).index(self)

    @property
    def is_copy(self) -> bool:
        """Whether it counts as a copy."""
        return self is not Rating.NO


@dataclasses.dataclass(frozen=True)
class ReaderRatings:
    """Of one `reader`, the ratings by pair, of the `page` with this key."""

    page: str
    reader: str
    ratings: dict[str, Rating]

    @classmethod
    def read(cls, path: Path, *, flag: str) -> "ReaderRatings":
        """Reads a file.

        Raises:
          ValueError: it is missing, empty or no export of a review page, or holds several readers.
        """
        where = f"{flag}={path.name!r}"
        if path.is_dir():
            raise ValueError(f"{where} is a folder; give the file that a reader exported")
        if not path.is_file():
            raise ValueError(f"{where}: there is no such file; check the path")
        rows = _rows(path, where)
        if not rows:
            raise ValueError(f"{where} holds no rating; rate some pairs and export again")
        ratings: dict[str, Rating] = {}
        for line, row in rows:
            if not all(row[2:]):
                raise ValueError(f"{where}, line {line}: it lacks its pair or its rating")
            rating = row[3].lower()
            if rating not in list(Rating):
                raise ValueError(f"{where}, line {line}: its rating must be copy, near or no")
            if row[2] in ratings:
                raise ValueError(f"{where}, line {line}: this pair was rated before; keep one row")
            ratings[row[2]] = Rating(rating)
        for place, what in ((0, "pages"), (1, "readers")):
            if len({row[place] for _, row in rows}) > 1:
                raise ValueError(f"{where} is of several {what}; give each a file of its own")
        page, reader = rows[0][1][:2]
        if not reader:
            raise ValueError(f"{where} names no reader; fill in the column reader")
        return cls(page, reader, ratings)


def _rows(path: Path, where: str) -> list[tuple[int, list[str]]]:
    """The cells of `_COLUMNS` by line, without spaces around them.

    Spreadsheets save other separators and letters, and columns of nothing; they are read as manifests are.
    """
    text = decoded_text(path, where)[0]
    delimiter, columns = header_of(text, _COLUMNS[0])
    if sorted(filter(None, columns)) != sorted(_COLUMNS):
        raise ValueError(
            f"{where} must have the columns {','.join(_COLUMNS)}, as the review page exports them, "
            "separated by commas, semicolons or tabs"
        )
    places = [columns.index(name) for name in _COLUMNS]
    _, *rows = whole_rows(io.StringIO(text, newline=""), where, delimiter=delimiter)
    cells = [(line, [*row, *[""] * len(columns)]) for line, row in rows if any(map(str.strip, row))]
    return [(line, [row[place].strip() for place in places]) for line, row in cells]


def read_all(paths: Sequence[Path], *, flag: str) -> list[ReaderRatings]:
    """Reads the files of several readers of one page.

    Raises:
      ValueError: as `ReaderRatings.read`, or they are of one reader or of several pages.
    """
    found = [ReaderRatings.read(path, flag=flag) for path in paths]
    names = [x.reader for x in found]
    if twice := [n for n, name in enumerate(names, start=1) if name in names[: n - 1]]:
        raise ValueError(
            f"{flag}: file {twice[0]} is of the same reader as one before; give one file a reader"
        )
    if len({x.page for x in found}) > 1:
        raise ValueError(f"{flag}: the files are of different pages; give those of one page")
    return found


def table(readers: Sequence[ReaderRatings], pairs: Sequence[str]) -> np.ndarray:
    """int [pairs, readers]: the number of each rating, -1 where there is none."""
    return np.array(
        [[x.ratings[p].number if p in x.ratings else -1 for x in readers] for p in pairs], int
    ).reshape(len(pairs), len(readers))
