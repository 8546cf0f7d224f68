"""Which files make up a set of images, and whose they are.

A source is a folder (walked recursively), a manifest (`.csv` or `.tsv`), a BIDS root, or the
layout of the reference implementation (`<uid>/training.png`, `<uid>/gen-<i>.png`, or in NIfTI). Whatever it
is, the answer is a `Manifest`: records in the order of their ids, what was refused with the reason,
and what is no image. A bad file is listed, never fatal; a source that cannot be meant raises
`InputError`. Identifiers are carried as they are, whatever they hold (bytes that are not UTF-8 are
spelled out); escaping them is the writer's duty.
"""

import dataclasses
import os
import re
from collections.abc import Collection
from pathlib import Path

from deepssim_jax.data.contents import Listed, records_of
from deepssim_jax.data.forgetting import Forget
from deepssim_jax.data.formats import SUFFIXES
from deepssim_jax.data.manifest_table import read_table
from deepssim_jax.data.patients import ALIAS
from deepssim_jax.data.records import FORGET as FORGET
from deepssim_jax.data.records import (
    OTHER_SIDE,
    ArrayLayout,
    FileCounts,
    InputError,
    Links,
    Manifest,
    Record,
    Rejected,
    Role,
    Unused,
    passed_over,
)
from deepssim_jax.data.records import files_of as files_of
from deepssim_jax.data.walk import Entry, Walked, named, printable, walk

_BIDS_SUBJECT = re.compile(r"(?:^|/)sub-([A-Za-z0-9]+)(?=[_/])")
_BIDS_SESSION = re.compile(r"[_/]ses-([A-Za-z0-9]+)(?=[_/])")
# Suffixes of files of labels and probabilities, which are no images of a patient.
_BIDS_LABELS = re.compile(r"_(?:mask|dseg|probseg)\.[^/]+$")
_REFERENCE_NAME = re.compile(
    r"^(training|gen-\d+)\.(?:png|jpg|jpeg|tif|tiff|npy|nii|nii\.gz)$", re.IGNORECASE
)
FORGOTTEN = "(not named)"  # stands for what was left out, whose names are written nowhere
_FEW = 20  # so many files are as a rule not of one patient
_NUMBERED = re.compile(r"^(.*)#(\d+)$", re.DOTALL)


def read_manifest(
    source: str | Path,
    *,
    role: Role,
    subject_regex: str | None = None,
    links: Links = Links.INSIDE,
    arrays: ArrayLayout = ArrayLayout.IMAGES,
    forget: Forget = Forget(),
) -> Manifest:
    """Lists the images of a source.

    Args:
      source: folder, `.csv`/`.tsv` file, BIDS root, or root of the reference layout; `~` is the
        home folder.
      role: which files of the reference layout are meant.
      subject_regex: searched in a file's name; its first group (or the one named `subject`) is
        the patient. Overrides a manifest's `subject_id`, which overrides what the layout says (BIDS,
        the reference layout), and that the PatientID of DICOM, which becomes `patients.alias`.
      links: whether links that leave a folder are followed.
      arrays: what NumPy arrays of three axes are.
      forget: whose images are left out, and named nowhere.

    Raises:
      InputError: the source is missing or empty, or the expression is wrong, finds no patient, or one
        patient alone in 20 real files or more.
    """
    source, pattern = _existing(Path(source), role), _pattern(subject_regex)
    if source.is_file():
        try:
            table = read_table(source, arrays)
        except InputError as error:  # which knows no flags
            raise InputError(f"--{role.value}: {error}") from error
        kind, listed = "manifest", table.listed
        found, others = table.rows, 0
        elsewhere = table.folders
    else:
        walked = walk(source, links)
        if not walked.files and not walked.rejected:
            hint = f"; {passed_over(walked.unused)}" if any(u.images for u in walked.unused) else ""
            raise InputError(
                f"--{role.value}: the folder holds no image among {walked.found:,} files; known "
                f"are {', '.join(SUFFIXES)}, and DICOM by its content{hint}"
            )
        kind, listed = _from_folder(source, walked, role, arrays)
        names = {named(path, source) for r in listed.records for path in files_of(r)}
        listed.unused = [unused for unused in listed.unused if unused.name not in names]
        others = sum(unused.files for unused in listed.unused)
        found = walked.found
        elsewhere = frozenset(walked.elsewhere)
    if pattern is not None:
        listed.records = [_with_subject(record, pattern) for record in listed.records]
        if role is not Role.SYNTHETIC:  # generated images need not name a patient
            _check_patients(listed.records, pattern, role)
    _take_headers_patients(listed)
    left = _forget(listed, forget) if forget else _Left()
    records, doubles = _without_doubles(listed.records)
    rejected = listed.rejected + doubles
    if not records:
        reason = rejected[0].reason if rejected else "none has the role"
        raise InputError(f"--{role.value}: no image can be used; the first reason: {reason}")
    used = len(_counted(records))
    return Manifest(
        source=source,
        role=role,
        kind=kind,
        records=tuple(records),
        rejected=tuple(sorted(rejected, key=lambda r: (r.image_id, r.reason))),
        unused=tuple(sorted(listed.unused, key=lambda u: u.name)),
        counts=FileCounts(found, used, found - used - others - left.files, others, left.files),
        notes=(*listed.notes, *([_left_out(left.images)] if left.images else [])),
        images_left_out=left.images,
        left_out_before=left.before,
        unmatched=left.unmatched,
        gone=left.gone,
        elsewhere=elsewhere,
    )


def refuse_unmatched(ids: Collection[str]) -> None:
    """Raises InputError where ids that were to be left out match nothing in any folder: one misspelt leaves
    its patient in.
    """
    if ids:
        raise InputError(
            f"--forget: {len(ids):,} of its ids {'matches' if len(ids) == 1 else 'match'} no image and no "
            "patient of any folder; write them as the tables do, and leave out those that are gone"
        )


def for_flag(error: InputError, flag: str) -> InputError:
    """An error of `read_manifest` with the flag or argument that a command has for its source."""
    begin, text = f"--{Role.REAL.value}:", str(error)
    return InputError(f"{flag}: {text.removeprefix(begin).lstrip()}")


def _take_headers_patients(listed: Listed) -> None:
    """Says that patients are those of DICOM headers; of a folder whose files all name one, none is."""
    found = {r.subject_id for r in listed.records if (r.subject_id or "").startswith(ALIAS)}
    if not found:
        return
    everyone = {r.subject_id for r in listed.records}
    if len(everyone) == 1 and len({r.path for r in listed.records}) >= _FEW:
        listed.records = [dataclasses.replace(r, subject_id=None) for r in listed.records]
        listed.notes.append(
            "all DICOM files name one patient, which is taken for a placeholder; name the patients by a "
            "manifest or --subject_regex"
        )
        return
    listed.notes.append(
        f"{len(found):,} patients are those of DICOM headers (PatientID and its issuer), by a hash"
    )


@dataclasses.dataclass(frozen=True)
class _Left:
    """What was left out: images, those of them that only an earlier run was asked for, and their files or
    rows of a table; typed ids that nothing has, and the ids of the images.
    """

    images: int = 0
    before: int = 0
    files: int = 0
    unmatched: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()


def _counted(records: Collection[Record]) -> set[Path | int]:
    """What counts of these images: the rows of a table that name them, or their files."""
    return {x for r in records for x in ((r.row,) if r.row else files_of(r))}


def _left_out(count: int) -> str:
    """What a report says of `forget`."""
    images = "1 image was" if count == 1 else f"{count:,} images were"
    return f"{images} left out as asked {FORGET}"


def _forget(listed: Listed, forget: Forget) -> _Left:
    """Takes images of these ids and patients out of what was listed; ids of theirs stay in memory alone."""
    kept, gone, before, there = [], [], 0, set[str]()
    for record in listed.records:
        names = forget.names(record.image_id, record)
        asked = not names.isdisjoint(forget.asked)
        if not asked and not forget.known(names):
            kept.append(record)
            continue
        gone.append(record)
        before += not asked
        there |= names
    rejected = []
    for item in listed.rejected:
        names = forget.names(item.image_id)
        if names.isdisjoint(forget.asked) and not forget.known(names):
            rejected.append(item)
        there |= names
    files = len(_counted(gone) - _counted(kept)) + len(listed.rejected) - len(rejected)
    listed.records, listed.rejected = kept, rejected
    if files:
        listed.unused.append(Unused(FORGOTTEN, f"left out as asked {FORGET}", files))
    ids = frozenset(record.image_id for record in gone)
    return _Left(len(gone), before, files, forget.unmatched(there), ids)


def _existing(source: Path, role: Role) -> Path:
    if not source.exists():
        source = Path(os.path.expanduser(source))
    if not source.exists():
        raise InputError(f"--{role.value}: there is no such folder or file; check the path")
    if not source.is_file() and not source.is_dir():
        raise InputError(f"--{role.value}: is a pipe or device; give a folder or a manifest")
    return source


def _pattern(subject_regex: str | None) -> re.Pattern[str] | None:
    if subject_regex is None:
        return None
    try:
        pattern = re.compile(subject_regex)
    except (re.error, TypeError) as error:
        raise InputError(
            f"{typed_regex(subject_regex)} is no regular expression: {error}"
        ) from error
    if not pattern.groups:
        raise InputError(
            f"{typed_regex(subject_regex)} has no group; put the patient's part in brackets, "
            "for example '^([0-9]+)_'"
        )
    return pattern


def typed_regex(subject_regex: str) -> str:
    """An expression as it was typed: `repr` would double its backslashes."""
    return f"--subject_regex='{subject_regex}'"


def check_subject_regex(subject_regex: str | None) -> None:
    """Raises InputError for what is no regular expression with a group."""
    _pattern(subject_regex)


def _with_subject(record: Record, pattern: re.Pattern[str]) -> Record:
    found = pattern.search(printable(record.path.name))
    if found is None:
        return dataclasses.replace(record, subject_id=None)
    name = "subject" if "subject" in pattern.groupindex else 1
    return dataclasses.replace(record, subject_id=found.group(name))


def _check_patients(records: list[Record], pattern: re.Pattern[str], role: Role) -> None:
    """Refuses an expression that tells no patients apart."""
    patients = {record.subject_id for record in records}
    files = len({record.path for record in records})
    if not records or (len(patients) > 1 or (patients != {None} and files < _FEW)):
        return
    side = " of --holdout" if role is Role.HOLDOUT else ""
    what = (
        f"is found in none of {files:,} file names{side}"
        if patients == {None}
        else f"makes one patient of all {files:,} files{side}"
    )
    raise InputError(
        f"{typed_regex(pattern.pattern)} {what}; its first group must find what tells the "
        "patients apart, for example '^([0-9]+)_'"
    )


def _from_folder(root: Path, walked: Walked, role: Role, arrays: ArrayLayout) -> tuple[str, Listed]:
    names = [entry.name for entry in walked.files]
    if _is_reference(names):
        kind, listed = "reference", _reference(walked.files, role, arrays)
    elif (root / "dataset_description.json").exists() or any(n.startswith("sub-") for n in names):
        kind, listed = "bids", _bids(walked.files, arrays)
    else:
        kind, listed = "folder", records_of(walked.files, arrays)
    # Files that belong to another's image, such as the data beside a header.
    owned = {path for record in listed.records for path in record.parts[1:]}
    listed.records = [r for r in listed.records if r.parts or r.path not in owned]
    listed.rejected += walked.rejected
    listed.unused += walked.unused
    return kind, listed


def _is_reference(names: list[str]) -> bool:
    """Whether all files have names of the layout, or one folder holds an image and its samples."""
    found = [(n, m) for n in names if n.count("/") == 1 and (m := _reference_name(n))]
    if not found:
        return False
    stems: dict[str, set[bool]] = {}
    for name, match in found:
        stems.setdefault(name.split("/")[0], set()).add(match[1].lower() == "training")
    return len(found) == len(names) or any(len(kinds) == 2 for kinds in stems.values())


def _reference_name(name: str) -> re.Match[str] | None:
    return _REFERENCE_NAME.match(name.rpartition("/")[2])


def _reference(entries: list[Entry], role: Role, arrays: ArrayLayout) -> Listed:
    wanted, strays, others = [], [], []
    for entry in entries:
        match = _reference_name(entry.name) if entry.name.count("/") == 1 else None
        if match is None:
            strays.append(Rejected(entry.name, "is neither <uid>/training.* nor <uid>/gen-<i>.*"))
        elif (match[1].lower() == "training") == (role is not Role.SYNTHETIC):
            uid = entry.name.split("/")[0]
            wanted.append(dataclasses.replace(entry, name=f"{uid}___{match[1]}"))
        else:
            others.append(Unused(entry.name, OTHER_SIDE))
    if not wanted:
        raise InputError(f"--{role.value}: the reference layout holds no image of this role")
    listed = records_of(wanted, arrays)
    listed.records = [
        dataclasses.replace(r, subject_id=printable(r.path.parent.name)) for r in listed.records
    ]
    listed.rejected += strays
    listed.unused += others
    return listed


def _bids(entries: list[Entry], arrays: ArrayLayout) -> Listed:
    labels = [entry for entry in entries if _BIDS_LABELS.search(entry.name)]
    listed = records_of([e for e in entries if not _BIDS_LABELS.search(e.name)], arrays)
    for number, record in enumerate(listed.records):
        subject = _BIDS_SUBJECT.findall(record.image_id)
        session = _BIDS_SESSION.findall(record.image_id)
        listed.records[number] = dataclasses.replace(
            record,
            subject_id=subject[-1] if subject else record.subject_id,
            session_id=session[-1] if session else None,
        )
    listed.unused += [Unused(e.name, "a map of labels, by its BIDS suffix") for e in labels]
    return listed


def _without_doubles(records: list[Record]) -> tuple[list[Record], list[Rejected]]:
    kept: dict[str, Record] = {}
    rejected = []
    for record in sorted(records, key=in_order):
        if record.image_id in kept:
            row = kept[record.image_id].row  # no name: a reason is said on the screen, too
            other = f"that of line {row}" if row else "the first by its name"
            rejected.append(
                Rejected(record.image_id, f"a second file of this id; {other} was taken")
            )
        else:
            kept[record.image_id] = record
    return list(kept.values()), rejected


def in_order(record: Record) -> tuple[str, int, bytes]:
    """The order of records: by id, and `file#2` before `file#10`."""
    found = _NUMBERED.match(record.image_id)
    name, number = (found[1], int(found[2])) if found else (record.image_id, 0)
    return name, number, os.fsencode(record.path)
