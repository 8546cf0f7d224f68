"""Which files make up a set of images, and whose they are.

A source is a folder (walked recursively), a manifest (`.csv` or `.tsv`), a BIDS root, or the
layout of the reference implementation (`<uid>/training.png`, `<uid>/gen-<i>.png`, or in NIfTI). Whatever it
is, the answer is a `Manifest`: records in the order of their ids, and what was refused with the
reason. A bad file is listed, never fatal; a source that cannot be meant raises `InputError`.
Identifiers are carried verbatim, whatever they hold; escaping them is the writer's duty.
"""

import csv
import dataclasses
import enum
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".nii", ".nii.gz", ".dcm", ".npy", ".npz",
)  # fmt: skip
_BIDS_NAME = re.compile(r"^sub-([^_]+)(?:_ses-([^_]+))?_(?:.*_)?(T1w|T2w|PDw|FLAIR)\.nii(?:\.gz)?$")
_REFERENCE_NAME = re.compile(r"^(?:training|gen-\d+)\.(?:png|jpg|jpeg|npy|nii|nii\.gz)$")
_MISSING = {"", "n/a", "na", "nan"}


class InputError(ValueError):
    """The input as a whole cannot be used; the message says what to do."""


class Role(enum.Enum):
    """What a set of images is for."""

    REAL = "real"
    SYNTHETIC = "synthetic"
    HOLDOUT = "holdout"


@dataclasses.dataclass(frozen=True)
class Record:
    """One image: a file, or the files of a DICOM series in `parts`."""

    image_id: str
    path: Path
    subject_id: str | None = None
    session_id: str | None = None
    site: str | None = None
    parts: tuple[Path, ...] = ()


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A file that was not taken, and why."""

    image_id: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The images of one source, sorted by id. `source` is what the user named."""

    source: Path
    role: Role
    kind: str  # "folder", "manifest", "bids" or "reference"
    records: tuple[Record, ...]
    rejected: tuple[Rejected, ...]


def read_manifest(source: str | Path, *, role: Role, subject_regex: str | None = None) -> Manifest:
    """Lists the images of a source.

    Args:
      source: folder, `.csv`/`.tsv` file, BIDS root, or root of the reference layout.
      role: which files of the reference layout are meant.
      subject_regex: searched in a file's name; its first group (or the one named `subject`) is
        the patient. Overrides what the layout says.

    Raises:
      InputError: the source is missing or empty, or the expression is wrong.
    """
    source, pattern = Path(source), _pattern(subject_regex)
    if not source.exists():
        raise InputError(f"--{role.value}: there is no such folder or file; check the path")
    if source.is_file():
        kind, (records, rejected) = "manifest", _from_table(source)
    else:
        files, rejected = _walk(source)
        if not files and not rejected:
            raise InputError(
                f"--{role.value}: the folder holds no image; known are {', '.join(SUFFIXES)}"
            )
        kind, records, more = _from_folder(source, files, role)
        rejected += more
    if pattern is not None:
        records = [_with_subject(record, pattern) for record in records]
    records, doubles = _without_doubles(records)
    if not records:
        reason = (rejected + doubles)[0].reason if rejected or doubles else "none has the role"
        raise InputError(f"--{role.value}: no image can be used; the first reason: {reason}")
    return Manifest(
        source=source,
        role=role,
        kind=kind,
        records=tuple(records),
        rejected=tuple(sorted(rejected + doubles, key=lambda r: (r.image_id, r.reason))),
    )


def _pattern(subject_regex: str | None) -> re.Pattern[str] | None:
    if subject_regex is None:
        return None
    try:
        pattern = re.compile(subject_regex)
    except (re.error, TypeError) as error:
        raise InputError(
            f"--subject_regex={subject_regex!r} is no regular expression: {error}"
        ) from error
    if not pattern.groups:
        raise InputError(
            f"--subject_regex={subject_regex!r} has no group; put the patient's part in brackets, "
            "for example '^([0-9]+)_'"
        )
    return pattern


def check_subject_regex(subject_regex: str | None) -> None:
    """Raises InputError for what is no regular expression with a group."""
    _pattern(subject_regex)


def _with_subject(record: Record, pattern: re.Pattern[str]) -> Record:
    found = pattern.search(record.path.name)
    if found is None:
        return dataclasses.replace(record, subject_id=None)
    name = "subject" if "subject" in pattern.groupindex else 1
    return dataclasses.replace(record, subject_id=found.group(name))


def _walk(root: Path) -> tuple[list[Path], list[Rejected]]:
    """Every file with a known suffix; links that leave the root or run in a circle are refused."""
    files, rejected = [], []
    top = root.resolve()
    seen = {top}
    stack = [root]
    while stack:
        for entry in sorted(os.scandir(stack.pop()), key=lambda e: e.name, reverse=True):
            path = Path(entry.path)
            name = path.relative_to(root).as_posix()
            if entry.name.startswith("."):
                continue
            try:
                real = path.resolve(strict=True) if entry.is_symlink() else path
                inside = not entry.is_symlink() or real.is_relative_to(top)
            except (OSError, RuntimeError):
                if entry.name.lower().endswith(SUFFIXES) or not path.suffix:
                    rejected.append(Rejected(name, "a link that points nowhere or to itself"))
                continue
            if not inside:
                rejected.append(
                    Rejected(name, "a link that leaves the folder; copy the file instead")
                )
            elif entry.is_dir():
                target = path.resolve()
                if target in seen:
                    rejected.append(Rejected(name, "a link to a folder that was already read"))
                else:
                    seen.add(target)
                    stack.append(path)
            elif entry.name.lower().endswith(SUFFIXES):
                files.append(path)
    return files, rejected


def _from_folder(
    root: Path, files: list[Path], role: Role
) -> tuple[str, list[Record], list[Rejected]]:
    relative = {path: path.relative_to(root) for path in files}
    reference = [
        p for p in files if len(relative[p].parts) == 2 and _REFERENCE_NAME.match(p.name.lower())
    ]
    if reference and len(reference) == len(files):
        # Not `stem`, which leaves `.nii` of `.nii.gz`.
        stems = {p: p.name.partition(".")[0] for p in files}
        wanted = [
            p for p in files if (stems[p].lower() == "training") == (role is not Role.SYNTHETIC)
        ]
        if not wanted:
            raise InputError(f"--{role.value}: the reference layout holds no image of this role")
        return (
            "reference",
            [Record(f"{p.parent.name}___{stems[p]}", p, subject_id=p.parent.name) for p in wanted],
            [],
        )
    if (root / "dataset_description.json").exists() or any(
        part.startswith("sub-") for part in {r.parts[0] for r in relative.values()}
    ):
        records = []
        for path in files:
            found = _BIDS_NAME.match(path.name)
            if found:
                subject, session, _ = found.groups()
                records.append(
                    Record(relative[path].as_posix(), path, subject_id=subject, session_id=session)
                )
        if records:
            return "bids", records, []
    dicom = [p for p in files if p.suffix.lower() == ".dcm"]
    others = [p for p in files if p.suffix.lower() != ".dcm"]
    records = [Record(relative[path].as_posix(), path) for path in others]
    rejected: list[Rejected] = []
    if dicom:
        from deepssim_jax.data import dicom as dicom_files

        for group in dicom_files.series(dicom):
            first = group[0]
            name = relative[first].as_posix()
            if len(group) > 1:
                tag = hashlib.sha256(str([p.name for p in group]).encode()).hexdigest()[:8]
                name = f"{relative[first].parent.as_posix()}/series-{tag}"
            records.append(Record(name, first, parts=tuple(group)))
    return "folder", records, rejected


def _from_table(source: Path) -> tuple[list[Record], list[Rejected]]:
    if source.suffix.lower() not in (".csv", ".tsv"):
        raise InputError(
            f"{source.suffix or 'a file without a suffix'} is no manifest; give a folder, or a .csv "
            "or .tsv file with a column `path`"
        )
    root = source.resolve().parent
    delimiter = "\t" if source.suffix.lower() == ".tsv" else ","
    with source.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file, delimiter=delimiter)
        if "path" not in (rows.fieldnames or []):
            raise InputError(
                f"the manifest has the columns {rows.fieldnames}; one must be called `path`"
            )
        records, rejected = [], []
        for number, row in enumerate(rows, start=2):
            entry = {k: v for k, v in row.items() if k and v and v.strip().lower() not in _MISSING}
            name = entry.get("path")
            if name is None:
                rejected.append(Rejected(f"line {number}", "has no path"))
                continue
            image_id = entry.get("image_id", PurePosixPath(name).as_posix())
            path = Path(os.path.normpath(root / name))
            if not path.resolve().is_relative_to(root):
                rejected.append(
                    Rejected(image_id, "leaves the manifest's folder; move the manifest upwards")
                )
            elif not path.exists():
                rejected.append(Rejected(image_id, "there is no such file"))
            else:
                records.append(
                    Record(
                        image_id,
                        path,
                        subject_id=entry.get("subject_id"),
                        session_id=entry.get("session_id"),
                        site=entry.get("site"),
                    )
                )
    return records, rejected


def _without_doubles(records: list[Record]) -> tuple[list[Record], list[Rejected]]:
    kept: dict[str, Record] = {}
    rejected = []
    for record in sorted(records, key=lambda r: (r.image_id, str(r.path))):
        if record.image_id in kept:
            other = kept[record.image_id].path.name
            rejected.append(
                Rejected(record.image_id, f"a second file of this id; {other} was taken")
            )
        else:
            kept[record.image_id] = record
    return list(kept.values()), rejected


def files_of(record: Record) -> Iterator[Path]:
    """The file, or all files, of a record."""
    yield from record.parts or (record.path,)
