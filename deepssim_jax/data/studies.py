"""Where the scans of two public studies lie: IXI (tar files or folders) and CoRR (BIDS by site).

Contract: a `Scan` names one volume and gives a local path to it when asked. Nothing is fetched from
the network. Ages and sexes are taken from IXI's table; nothing else of it leaves this module, for
it holds dates of birth.
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
from pathlib import Path

from deepssim_jax.data.manifest import InputError
from deepssim_jax.workspace import scratch_copy

_IXI = re.compile(r"IXI(\d{3,})-(Guys|HH|IOP)-(\d+)-(T1|T2|PD|MRA)\.nii(?:\.gz)?$")
_CORR = re.compile(r"sub-(\d+)(?:_ses-([^_]+))?(?:_run-([^_]+))?_(T1w|T2w)\.nii(?:\.gz)?$")
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
    open_path: Callable[[], contextlib.AbstractContextManager[Path]]


@dataclasses.dataclass(frozen=True)
class Person:
    """What is known of a participant; None where it is not known."""

    age: float | None
    sex: str | None


def ixi(source: Path, *, sequences: Sequence[str] = ("T1", "T2")) -> list[Scan]:
    """Scans of a folder (searched through) or of a tar file such as `IXI-T1.tar`.

    Raises:
      InputError: there is none.
    """
    scans = []
    if source.is_file():
        if not tarfile.is_tarfile(source):
            raise InputError(f"{source.name} is no tar file; give IXI-T1.tar or a folder")
        with tarfile.open(source) as archive:
            members = [m for m in archive.getmembers() if m.isfile()]
        for member in members:
            if found := _IXI.match(Path(member.name).name):
                scans.append(_ixi_scan(found, _member(source, member.name, member.size)))
    else:
        for path in sorted(source.rglob("IXI*.nii*")):
            if found := _IXI.match(path.name):
                scans.append(_ixi_scan(found, _plain(path)))
    return _chosen(scans, source, sequences, "IXI*-*-*-T1.nii.gz")


def corr(source: Path, *, sequences: Sequence[str] = ("T1w", "T2w")) -> list[Scan]:
    """Scans of a folder that holds one BIDS data set for each site, or is one itself.

    Identifiers keep their leading zeros. The site is the folder above `sub-...`.

    Raises:
      InputError: there is none.
    """
    scans = []
    for path in sorted(source.rglob("sub-*_T?w.nii*")):
        if found := _CORR.match(path.name):
            subject, session, run, sequence = found.groups()
            parents = path.relative_to(source.parent).parts
            place = next((i for i, part in enumerate(parents) if part.startswith("sub-")), 1)
            site = parents[max(place - 1, 0)]
            stem = path.name.split(".nii")[0]
            scans.append(
                Scan(f"{site}_{stem}", subject, session or run or "1", site, sequence, _plain(path))
            )
    return _chosen(scans, source, sequences, "sub-*_ses-*_run-*_T1w.nii.gz")


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


def _ixi_scan(
    found: re.Match[str], opened: Callable[[], contextlib.AbstractContextManager[Path]]
) -> Scan:
    number, site, visit, sequence = found.groups()
    uid = f"IXI{number}-{site}-{visit}-{sequence}"
    return Scan(uid, f"IXI{number}", visit, site, sequence, opened)


def _plain(path: Path) -> Callable[[], contextlib.AbstractContextManager[Path]]:
    return lambda: contextlib.nullcontext(path)


def _member(
    archive: Path, name: str, size: int
) -> Callable[[], contextlib.AbstractContextManager[Path]]:
    """A member is copied to a file of our own naming, so no name in the archive reaches the disk."""

    @contextlib.contextmanager
    def opened() -> Iterator[Path]:
        if size > _MAX_MEMBER:
            raise InputError(f"a member of {archive.name} declares {size:,} bytes")
        with tarfile.open(archive) as tar:
            source = tar.extractfile(name)
            if source is None:
                raise InputError(f"{archive.name} changed while it was read; run again")
            named = "scan.nii.gz" if name.endswith(".gz") else "scan.nii"
            with scratch_copy(source, named) as path:
                yield path

    return opened


def _chosen(scans: list[Scan], source: Path, sequences: Sequence[str], example: str) -> list[Scan]:
    kept = [scan for scan in scans if scan.sequence in sequences]
    if not kept:
        raise InputError(
            f"{source.name} holds no scan with a name such as {example} of {', '.join(sequences)}"
        )
    return sorted(kept, key=lambda scan: scan.uid)
