"""Manifests: tables that name files, and who is on them.

Contract: `.csv` or `.tsv`, separated by commas, semicolons or tabs, in UTF-8, UTF-16 or, failing
these, Windows-1252; a column `path`, and optionally `image_id`, `subject_id`, `session_id`, `site`,
`split`, in letters of any case. Paths are relative to the table and stay in its folder. `file#3` names the
third image of a file. What a row names is read or listed, never fatal. Only an empty cell says nothing, and
in a `.tsv` BIDS's `n/a`; a patient can be called NA. The apostrophe before what looks like a formula, which
the program's own tables have, is no part of an id; paths are as they are written.
"""

import csv
import dataclasses
import io
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from deepssim_jax.data.contents import Listed, records_of
from deepssim_jax.data.formats import recognise
from deepssim_jax.data.records import ArrayLayout, InputError, Record, Rejected, files_of
from deepssim_jax.data.table_rows import WINDOWS, decoded_text, header_of, plain, whole_rows
from deepssim_jax.data.walk import Entry, printable
from deepssim_jax.workspace.names import slashed

_COLUMNS = ("path", "image_id", "subject_id", "session_id", "site", "split")
_NOTHING = {"n/a", "na", "nan"}  # what programs write where nothing is known
_NUL = "a cell of its row holds a zero byte, which no id and no path has"
_LONGEST_FIELD = 1 << 24
_ITEM = re.compile(r"^(.+)#([1-9][0-9]*)$")


@dataclasses.dataclass(frozen=True)
class Table:
    """What a table of so many `rows` lists; `folders` are those of its files."""

    listed: Listed
    rows: int
    folders: frozenset[Path]


def read_table(source: Path, layout: ArrayLayout) -> Table:
    """The images that a table names.

    Raises:
      InputError: it is no table, or has no column `path`.
    """
    if source.suffix.lower() not in (".csv", ".tsv"):
        raise InputError(
            f"{source.suffix or 'a file without a suffix'} is no manifest; give a folder, or a .csv "
            "or .tsv file with a column `path`"
        )
    out = Listed()
    text, encoding = decoded_text(source, f"the manifest {source.name}")
    if encoding == WINDOWS:
        out.notes.append("the manifest is not in UTF-8; it is read as Windows-1252")
    rows = _rows(source, text)
    root = source.resolve().parent
    out.notes += _taken_as_written(rows)
    for number, row in rows:
        entry = {k: v for k, v in row.items() if v.strip()}
        name = entry.get("path")
        if name is None:
            reason: str | list[Record] = "has no path"
            image_id = f"line {number}"
        else:
            image_id = _cell(entry, "image_id") or slashed(name.strip())
            reason = _NUL if _holds_nul(entry) else _images(out, image_id, name, root, layout)
        if isinstance(reason, str):
            out.rejected.append(Rejected(printable(image_id), reason))
            continue
        out.records += [
            dataclasses.replace(
                record,
                subject_id=_cell(entry, "subject_id") or record.subject_id,
                session_id=_cell(entry, "session_id"),
                site=_cell(entry, "site"),
                split=_cell(entry, "split"),
                row=number,
            )
            for record in reason
        ]
    read = {path for record in out.records for path in files_of(record)}
    folders = {place.parent for path in read for place in (path, path.resolve())}
    return Table(out, len(rows), frozenset(folders))


def _holds_nul(entry: dict[str, str]) -> bool:
    """An id with one is cut by other programs, and two patients could be one."""
    return any("\0" in entry.get(column, "") for column in _COLUMNS)


def _cell(entry: dict[str, str], name: str) -> str | None:
    return plain(entry[name].strip()) if name in entry else None


def _rows(source: Path, text: str) -> list[tuple[int, dict[str, str]]]:
    """Rows with the numbers of their lines; names of columns in small letters without spaces."""
    bids = source.suffix.lower() == ".tsv"
    name = f"the manifest {source.name}"
    delimiter, columns = header_of(text, "path", tabs_first=bids)
    if "path" not in columns:
        # A first line that is no header is a patient's.
        raise InputError(
            f"{name} has {len(columns)} columns, and its first line calls none of them "
            "`path`; begin it with a line of names, such as path,subject_id"
        )
    lines = io.StringIO(text, newline="")
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        _, *rows = whole_rows(lines, name, delimiter=delimiter)
    finally:
        csv.field_size_limit(before)
    nothing = {"n/a"} if bids else set[str]()
    return [
        (line, dict(zip(columns, ("" if x.strip() in nothing else x for x in row), strict=False)))
        for line, row in rows
    ]


def _taken_as_written(rows: list[tuple[int, dict[str, str]]]) -> Iterator[str]:
    """A note for each column where NA can mean that nothing is known."""
    for name in _COLUMNS[1:]:
        cells = [row.get(name, "").strip() for _, row in rows]
        if found := sorted({cell for cell in cells if cell.lower() in _NOTHING}):
            rows_with = sum(cell in found for cell in cells)
            yield (
                f"the manifest has {' or '.join(found)} in the column {name} (rows: {rows_with:,}), taken as "
                "it is written; leave the cell empty if nothing is known"
            )


def _images(
    out: Listed, image_id: str, name: str, root: Path, layout: ArrayLayout
) -> str | list[Record]:
    """The records of a file, or why there are none; what else it holds goes to `out`."""
    path, item = _found(root, name)
    if path is None:
        return "there is no such file"
    if not path.resolve().is_relative_to(root):
        return "leaves the manifest's folder; move the manifest upwards"
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            return "is a folder" if stat.S_ISDIR(mode) else "is no regular file"
        recognised = recognise(path)
    except OSError as error:
        return f"cannot be opened: {error.strerror}"
    if recognised is None:
        return "is of no known image format"
    listed = records_of([Entry(printable(image_id), path, recognised)], layout)
    out.unused += [dataclasses.replace(unused, files=0) for unused in listed.unused]
    out.notes += [note for note in listed.notes if note not in out.notes]
    if not listed.records:
        return [*listed.rejected, *listed.unused][0].reason
    if item is None:
        return listed.records
    if item > len(listed.records):
        return f"holds {len(listed.records)} images, and number {item} was asked for"
    return [dataclasses.replace(listed.records[item - 1], image_id=printable(image_id))]


def _found(root: Path, name: str) -> tuple[Path | None, int | None]:
    """The file that is meant, and which of its images.

    As it is written first; then without spaces around it, with `~` for the home folder, and with
    slashes for backslashes.
    """
    plain = name.strip()
    for text in (name, plain, os.path.expanduser(plain), plain.replace("\\", "/")):
        found = _ITEM.match(text)
        for candidate, item in ((text, None), *([(found[1], int(found[2]))] if found else [])):
            try:
                path = Path(os.path.normpath(root / candidate))
                if os.path.lexists(path):
                    return path, item
            except (OSError, ValueError):  # too long, or with a NUL
                continue
    return None, None
