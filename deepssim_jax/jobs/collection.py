"""Several folders as one collection: each image with its patient and the split that it belongs to.

Contract: of one folder the image ids are its own; of several, each is preceded by its split's name and
a slash. The split is a manifest's column `split`, and otherwise, where there are several folders, the
name of the image's folder.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from deepssim_jax.data.forgetting import Forget
from deepssim_jax.data.manifest import (
    InputError,
    Manifest,
    Role,
    for_flag,
    read_manifest,
    refuse_unmatched,
)
from deepssim_jax.data.records import ArrayLayout, FileCounts, Links, Record, files_of

_TWICE = (
    "--against: names a folder or the same files twice, or FOLDER itself; every image would be a copy of "
    "itself"
)


@dataclasses.dataclass(frozen=True)
class Collection:
    """`manifest` of all images, and `split` of each by image id, None where there are no splits."""

    manifest: Manifest
    split: dict[str, str | None]

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits' names, those of folders in the order given, then by name."""
        return tuple(dict.fromkeys(name for name in self.split.values() if name is not None))


def read_collection(
    folders: Sequence[Path],
    *,
    subject_regex: str | None,
    links: Links,
    arrays: ArrayLayout,
    forget: Forget = Forget(),
) -> Collection:
    """Lists the images of all folders.

    Args:
      folders: folders, manifests or BIDS roots; the first is the one that is asked about.
      subject_regex: its first group, found in a file's name, is the patient.
      links: which links are followed.
      arrays: what NumPy arrays of three axes are.
      forget: whose images are left out; ids may have a split's name and a slash before them.

    Raises:
      InputError: one is missing, or holds no image; an id of `forget` matches nothing in any of them.
    """
    names = _names(folders)
    parts, unmatched = [], forget.ids
    for number, folder in enumerate(folders):
        try:
            part = read_manifest(
                folder,
                role=Role.REAL,
                subject_regex=subject_regex,
                links=links,
                arrays=arrays,
                forget=forget.within(folder),
            )
        except InputError as error:
            flag = "--against" if number else "FOLDER"
            if number and len(folders) > 2:
                flag += f"={folder.name!r}"
            raise for_flag(error, flag) from error
        unmatched &= part.unmatched
        parts.append(part)
    refuse_unmatched(unmatched)
    files = {frozenset(x.resolve() for r in p.records for x in files_of(r)) for p in parts}
    if len(files) < len(parts):  # two tables can name the same files
        raise InputError(_TWICE)
    if len(parts) == 1:
        return Collection(parts[0], {r.image_id: r.split for r in parts[0].records})
    return _joined(names, parts)


def _joined(names: Sequence[str], parts: Sequence[Manifest]) -> Collection:
    """One collection of several folders; ids begin with their names."""
    split: dict[str, str | None] = {}
    records: list[Record] = []
    for name, part in zip(names, parts, strict=True):
        for record in part.records:
            named = dataclasses.replace(
                record, image_id=f"{name}/{record.image_id}", split=record.split or name
            )
            split[named.image_id] = named.split
            records.append(named)
    rejected = [
        dataclasses.replace(item, image_id=f"{name}/{item.image_id}")
        for name, part in zip(names, parts, strict=True)
        for item in part.rejected
    ]
    unused = [
        dataclasses.replace(item, name=f"{name}/{item.name}")
        for name, part in zip(names, parts, strict=True)
        for item in part.unused
    ]
    counts = [part.counts for part in parts]
    manifest = Manifest(
        source=parts[0].source,
        role=Role.REAL,
        kind="collection",
        records=tuple(records),
        rejected=tuple(rejected),
        unused=tuple(unused),
        counts=FileCounts(
            *(sum(getattr(c, f.name) for c in counts) for f in dataclasses.fields(FileCounts))
        ),
        notes=tuple(
            f"{name}: {note}" for name, p in zip(names, parts, strict=True) for note in p.notes
        ),
        images_left_out=sum(part.images_left_out for part in parts),
        left_out_before=sum(part.left_out_before for part in parts),
        gone=frozenset(
            f"{name}/{image}" for name, p in zip(names, parts, strict=True) for image in p.gone
        ),
        elsewhere=frozenset().union(*(part.elsewhere for part in parts)),
    )
    return Collection(manifest, split)


def _names(folders: Sequence[Path]) -> list[str]:
    """A name for each folder: its own, with as many of those above it as tell all apart."""
    paths = [Path(folder).expanduser().resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise InputError(_TWICE)
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]).strip("/") for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]
