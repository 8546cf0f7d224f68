"""The fields of sheets as images of their own: field k of `sheet.png` has the id `sheet.png#k`."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from deepssim_jax.data.readers import read_image
from deepssim_jax.data.records import OF_SEVERAL, Manifest, Record
from deepssim_jax.data.sheets import Box, fields
from deepssim_jax.data.volume import SliceSpec


def with_fields(manifest: Manifest, boxes: Mapping[str, Sequence[Box]]) -> Manifest:
    """A listing in which the fields of sheets follow the sheets themselves.

    Args:
      manifest: of files.
      boxes: the fields of every image that is a sheet, by its id.

    Returns:
      The same listing with these fields and a note of them.
    """
    sheets = [record for record in manifest.records if record.image_id in boxes]
    found = [_field(x, k, box) for x in sheets for k, box in enumerate(boxes[x.image_id], start=1)]
    known = {record.image_id for record in manifest.records}
    found = [record for record in found if record.image_id not in known]
    alone = f"beside the whole, {len(found):,} fields are compared as images of their own"
    return dataclasses.replace(
        manifest,
        records=tuple(sorted((*manifest.records, *found), key=lambda record: record.image_id)),
        notes=(*manifest.notes, f"{_look(len(sheets))}: {alone}"),
    )


def with_sheets_noted(manifest: Manifest, count: int) -> Manifest:
    """A listing with a note of `count` sheets that are compared as a whole only."""
    note = (
        f"{_look(count)}, compared as a whole only: copies of one of the pictures can be missed; give "
        "these as files of their own"
    )
    return dataclasses.replace(manifest, notes=(*manifest.notes, note))


def _look(count: int) -> str:
    look = "image looks like a sheet" if count == 1 else "images look like sheets"
    return f"{count:,} {look} {OF_SEVERAL}"


def named_fields(
    records: Mapping[str, Record], image_ids: Iterable[str], spec: SliceSpec
) -> dict[str, Record]:
    """Those of some images that are fields of sheets among `records`, by id.

    Args:
      records: by id.
      image_ids: of fields and others.
      spec: the slice of volumes.

    Raises:
      Unreadable: a sheet cannot be read any more.
    """
    out: dict[str, Record] = {}
    boxes: dict[str, list[Box]] = {}
    for image_id in image_ids:
        name, _, number = image_id.rpartition("#")
        if image_id in records or name not in records or not number.isdecimal():
            continue
        if name not in boxes:
            boxes[name] = fields(read_image(records[name], spec=spec))
        if 0 < int(number) <= len(boxes[name]):
            out[image_id] = _field(records[name], int(number), boxes[name][int(number) - 1])
    return out


def _field(sheet: Record, number: int, box: Box) -> Record:
    return dataclasses.replace(sheet, image_id=f"{sheet.image_id}#{number}", box=box)
