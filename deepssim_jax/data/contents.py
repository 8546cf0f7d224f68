"""From files to records: one for every image that a file holds.

Contract: an image alone in its file has the file's id; image k of several has `id#k`, counted from 1.
A file that cannot be looked into becomes one record, so that reading it says why.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from deepssim_jax.data import (
    array_reader,
    dicom,
    dicom_workers,
    metaimage_reader,
    nifti_reader,
    nrrd_reader,
    picture_reader,
    tiff_reader,
)
from deepssim_jax.data.decoded import Contents
from deepssim_jax.data.formats import Format
from deepssim_jax.data.guards import Limits, check_file
from deepssim_jax.data.quiet import quiet
from deepssim_jax.data.records import ArrayLayout, Record, Rejected, Unused
from deepssim_jax.data.walk import Entry, header_of


@dataclasses.dataclass
class Listed:
    """The images of some files; `notes` say how they were taken."""

    records: list[Record] = dataclasses.field(default_factory=list)
    rejected: list[Rejected] = dataclasses.field(default_factory=list)
    unused: list[Unused] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


def records_of(entries: Iterable[Entry], layout: ArrayLayout) -> Listed:
    """The records of files; DICOM files of one series in one folder make volumes."""
    out = Listed()
    series, arrays, analyze = [], 0, 0
    with quiet():
        for entry in entries:
            if entry.recognised.format is Format.DICOM:
                series.append(entry)
                continue
            inside = _inside(entry, layout)
            if inside.images == 0:
                out.rejected.append(Rejected(entry.name, "holds no image"))
            several = inside.images > 1
            for item in range(inside.images):
                out.records.append(
                    Record(
                        f"{entry.name}#{item + 1}" if several else entry.name,
                        entry.path,
                        parts=inside.parts,
                        items=(item,) if several or inside.others else (),
                        layout=layout,
                    )
                )
            for name, reason in inside.others:
                out.unused.append(Unused(f"{entry.name}:{name}", f"no image: {reason}", files=0))
            arrays += entry.recognised.format is Format.NUMPY and (
                several or layout is not ArrayLayout.IMAGES
            )
            analyze += entry.recognised.format is Format.ANALYZE
        _add_series(out, series)
    if arrays:
        taken = {
            ArrayLayout.IMAGES: "stacks of images; --arrays=zyx or --arrays=xyz reads volumes",
            ArrayLayout.ZYX: "volumes with slices first (--arrays=zyx)",
            ArrayLayout.XYZ: "volumes with slices last (--arrays=xyz)",
        }
        out.notes.append(
            "NumPy files of three or more axes do not say what these are, nor which side is left; "
            f"they are taken as {taken[layout]}"
        )
    if analyze:
        out.notes.append("Analyze files do not say for certain which side is left")
    return out


def _inside(entry: Entry, layout: ArrayLayout) -> Contents:
    if not entry.recognised.several:
        return Contents()
    try:
        found = _looked_into(entry, layout)
        # Every image takes a byte at least; a header that declares more would fill the memory.
        return found if found.images <= entry.path.stat().st_size else Contents()
    # Whatever a file holds, reading it will say what is wrong.
    except Exception:
        return Contents()


def _looked_into(entry: Entry, layout: ArrayLayout) -> Contents:
    path, kind = entry.path, entry.recognised.format
    check_file(path, Limits())
    match kind:
        case Format.PICTURE:
            return Contents(picture_reader.count(path))
        case Format.TIFF:
            return tiff_reader.contents(path)
        case Format.NUMPY:
            return array_reader.contents(path, layout)
        case Format.NRRD | Format.METAIMAGE:
            describe = (nrrd_reader if kind is Format.NRRD else metaimage_reader).describe
            volume = describe(path)
            parts = volume.files if len(volume.files) > 1 else ()
            return Contents(volume.images, parts=parts)
        case Format.ANALYZE:
            return Contents(nifti_reader.count(path, kind), parts=(path, header_of(path)))
        case _:
            return Contents(nifti_reader.count(path, kind))


def _add_series(out: Listed, entries: Sequence[Entry]) -> None:
    if not entries:  # pydicom takes long to load
        return
    names = {entry.path: entry.name for entry in entries}
    stacks, without = dicom.stacks(dicom_workers.plain_headers(list(names)))
    out.unused += [Unused(names[path], reason) for path, reason in without.items()]
    of_file: dict[Path, list[dicom.Stack]] = {}
    for stack in stacks:
        if len(stack.files) == 1:
            of_file.setdefault(stack.files[0], []).append(stack)
            continue
        tag = hashlib.sha256(str([path.name for path in stack.files]).encode()).hexdigest()[:8]
        folder = names[stack.files[0]].rpartition("/")[0] or "."
        out.records.append(
            Record(
                f"{folder}/series-{tag}",
                stack.files[0],
                stack.subject,
                parts=stack.files,
                any_issuer=stack.any_issuer,
            )
        )
    for path, parts in of_file.items():
        for number, stack in enumerate(parts, start=1):
            name = f"{names[path]}#{number}" if len(parts) > 1 else names[path]
            out.records.append(
                Record(name, path, stack.subject, items=stack.items, any_issuer=stack.any_issuer)
            )
    together = [len(stack.files) for stack in stacks if len(stack.files) > 1]
    if together:
        volumes = "1 volume" if len(together) == 1 else f"{len(together):,} volumes"
        out.notes.append(
            f"{sum(together):,} DICOM files are taken as {volumes}: those of a volume name one series, "
            "patient and frame of reference, and lie one behind the other; if they are single images, "
            "give a manifest that names the files, and each is read by itself"
        )
    if any(len(stack.items) > 1 for stack in stacks):
        out.notes.append("frames of one DICOM file are taken as one volume, by their positions")
