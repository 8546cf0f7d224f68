"""Where the scans of two public studies lie: IXI (tar files or folders) and CoRR (BIDS by site).

Contract: a `Scan` names one volume and gives a local path to it when asked; a `Study` accounts for
every file of its source. Nothing is fetched from the network. Ages and sexes are taken from IXI's
table; nothing else of it leaves this module, for it holds dates of birth.
"""

import collections
import contextlib
import csv
import dataclasses
import importlib
import importlib.util
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from deepssim_jax.data.records import InputError, Links, Rejected, Unused
from deepssim_jax.data.walk import printable, walk
from deepssim_jax.workspace import scratch_copy

_IXI = re.compile(r"IXI(\d{3,})-(Guys|HH|IOP)-(\d+)-(T1|T2|PD|MRA)\.nii(?:\.gz)?$")
_CORR = re.compile(r"sub-(\d+)(?:_ses-([^_]+))?(?:_run-([^_]+))?_(T1w|T2w)\.nii(?:\.gz)?$")
_Opener = Callable[[], contextlib.AbstractContextManager[Path]]
_MAX_MEMBER = 2_000_000_000
# Columns of IXI.xls; a 0 in the coded one means that it was not asked.
_ID, _SEX, _AGE = "IXI_ID", "SEX_ID (1=m, 2=f)", "AGE"


@dataclasses.dataclass(frozen=True)
class Scan:
    """One volume: `uid` names it in files, `subject` is the same in all scans of a person.

    `open_path()` is a context manager that gives a path for as long as it is open.
    """

    uid: str
    subject: str
    session: str
    site: str
    sequence: str
    open_path: _Opener


@dataclasses.dataclass(frozen=True)
class Person:
    """What is known of a participant; None where it is not known."""

    age: float | None
    sex: str | None


@dataclasses.dataclass(frozen=True)
class Study:
    """The scans of a source by `uid`, no two alike, and why the other files of `found` are none.

    `elsewhere` are folders that links lead to.
    """

    scans: tuple[Scan, ...]
    found: int
    rejected: tuple[Rejected, ...]
    unused: tuple[Unused, ...]
    elsewhere: frozenset[Path] = frozenset()


def ixi(source: Path, *, sequences: Sequence[str] = ("T1", "T2")) -> Study:
    """The study of a folder (searched through) or of a tar file such as `IXI-T1.tar`.

    Raises:
      InputError: there is no scan.
    """

    def scan_of(name: str, opened: _Opener) -> Scan | None:
        found = _IXI.match(PurePosixPath(name).name)
        if found is None:
            return None
        number, site, visit, sequence = found.groups()
        uid = f"IXI{number}-{site}-{visit}-{sequence}"
        return Scan(uid, f"IXI{number}", visit, site, sequence, opened)

    listed = _archive(source) if source.is_file() else _folder(source)
    return _study(listed, scan_of, source, sequences, "IXI*-*-*-T1.nii.gz")


def corr(source: Path, *, sequences: Sequence[str] = ("T1w", "T2w")) -> Study:
    """The study of a folder that holds one BIDS data set for each site, or is one itself.

    Identifiers keep their leading zeros. The site is the folder above `sub-...`.

    Raises:
      InputError: there is no scan.
    """
    top = source.absolute().name

    def scan_of(name: str, opened: _Opener) -> Scan | None:
        *parents, file = top, *name.split("/")
        found = _CORR.match(file)
        if found is None:
            return None
        subject, session, run, sequence = found.groups()
        places = (i for i, part in enumerate(parents) if part.startswith("sub-"))
        site = parents[max(next(places, 1) - 1, 0)]
        uid = f"{site}_{file.split('.nii')[0]}"
        return Scan(uid, subject, session or run or "1", site, sequence, opened)

    return _study(_folder(source), scan_of, source, sequences, "sub-*_ses-*_run-*_T1w.nii.gz")


def ixi_people(table: Path) -> dict[str, Person]:
    """Age and sex by IXI number, from `IXI.xls` (needs the package xlrd) or a CSV file of it.

    Rows of one number that are the same but for zeros count as one; where they contradict each
    other, the value is unknown. 0 and empty mean unknown.

    Raises:
      InputError: a column is missing, or xlrd is.
    """
    rows = _table_rows(table)
    if rows and (missing := [c for c in (_ID, _SEX, _AGE) if c not in rows[0]]):
        raise InputError(f"{table.name} has no column {', '.join(missing)}")
    ages: dict[str, set[float]] = collections.defaultdict(set)
    sexes: dict[str, set[str]] = collections.defaultdict(set)
    for row in rows:
        number = _number(row[_ID])
        if number is None:
            continue
        name = f"{int(number):03d}"
        if age := _number(row[_AGE]):
            ages[name].add(round(age, 2))
        if sex := {1: "m", 2: "f"}.get(int(_number(row[_SEX]) or 0)):
            sexes[name].add(sex)
        ages.setdefault(name, set())
    return {
        name: Person(
            age=next(iter(found)) if len(found) == 1 else None,
            sex=next(iter(sexes[name])) if len(sexes[name]) == 1 else None,
        )
        for name, found in ages.items()
    }


def _table_rows(table: Path) -> list[dict[str, object]]:
    if table.suffix.lower() == ".csv":
        with table.open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))
    if importlib.util.find_spec("xlrd") is None:
        raise InputError(
            f"{table.name} is an old Excel file: pip install xlrd, or save its sheet as CSV"
        )
    xlrd = importlib.import_module("xlrd")
    sheet = xlrd.open_workbook(table).sheet_by_index(0)
    header = [str(value) for value in sheet.row_values(0)]
    return [dict(zip(header, sheet.row_values(i), strict=True)) for i in range(1, sheet.nrows)]


def _number(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None


@dataclasses.dataclass
class _Listed:
    """All files of a source: those that may be scans with how to open them, in the order of their names."""

    found: int = 0
    files: list[tuple[str, _Opener]] = dataclasses.field(default_factory=list)
    rejected: list[Rejected] = dataclasses.field(default_factory=list)
    unused: list[Unused] = dataclasses.field(default_factory=list)
    elsewhere: frozenset[Path] = frozenset()


def _folder(source: Path) -> _Listed:
    """Links are followed: DataLad's folders are made of them."""
    walked = walk(source, Links.FOLLOW)
    files = [(entry.name, _plain(entry.path)) for entry in walked.files]
    elsewhere = frozenset(walked.elsewhere)
    return _Listed(walked.found, files, walked.rejected, walked.unused, elsewhere)


def _plain(path: Path) -> _Opener:
    return lambda: contextlib.nullcontext(path)


def _archive(source: Path) -> _Listed:
    if not tarfile.is_tarfile(source):
        raise InputError(f"{source.name} is no tar file; give IXI-T1.tar or a folder")
    out = _Listed()
    with tarfile.open(source) as archive:
        members = [member for member in archive.getmembers() if not member.isdir()]
    out.found = len(members)
    for member in members:
        name = printable(member.name)
        if not member.isfile():
            out.rejected.append(Rejected(name, "is no regular file but a link or device"))
        elif ".nii" in name:
            out.files.append((name, _member(source, member)))
        else:
            out.unused.append(Unused(name, "no volume, by name"))
    return out


def _member(archive: Path, member: tarfile.TarInfo) -> _Opener:
    """A member is copied to a file of our own naming, so no name in the archive reaches the disk."""

    @contextlib.contextmanager
    def opened() -> Iterator[Path]:
        if member.size > _MAX_MEMBER:
            raise InputError(f"a member of {archive.name} declares {member.size:,} bytes")
        with tarfile.open(archive) as tar:
            source = tar.extractfile(member)
            if source is None:
                raise InputError(f"{archive.name} changed while it was read; run again")
            named = "scan.nii.gz" if member.name.endswith(".gz") else "scan.nii"
            with scratch_copy(source, named) as path:
                yield path

    return opened


def _study(
    listed: _Listed,
    scan_of: Callable[[str, _Opener], Scan | None],
    source: Path,
    sequences: Sequence[str],
    example: str,
) -> Study:
    scans: dict[str, Scan] = {}
    rejected, unused = listed.rejected, listed.unused
    for name, opened in sorted(listed.files, key=lambda file: file[0]):
        scan = scan_of(name, opened)
        if scan is None:
            rejected.append(Rejected(name, f"its name is not like {example}"))
        elif scan.sequence not in sequences:
            unused.append(Unused(name, f"of sequence {scan.sequence}, which is not asked for"))
        elif scan.uid in scans:
            rejected.append(
                Rejected(name, "a second file of this name; the first by its path was taken")
            )
        else:
            scans[scan.uid] = scan
    if not scans:
        raise InputError(
            f"{source.name} holds no scan with a name such as {example} of {', '.join(sequences)}"
        )
    ordered = tuple(scans[uid] for uid in sorted(scans))
    return Study(ordered, listed.found, tuple(rejected), tuple(unused), listed.elsewhere)
