"""What a listing of images is made of.

Contract: a `Record` is one image, whatever its file holds beside it. A `Manifest` accounts for every
file of its source: the files of its records, those refused, and those that are no image add up to
the files found.
"""

import collections
import dataclasses
import enum
from collections.abc import Iterable, Iterator
from pathlib import Path

from deepssim_jax.data.sheets import Box

FORGET = "(--forget)"  # stands in the note of what was left out
OTHER_SIDE = "of the other side of the reference layout"
EARLIER = "output of an earlier run"
PASSED_OVER = "passed over"  # stands in the sentence of what was not looked at
OF_SEVERAL = "of several pictures"  # stands in the note of sheets


class InputError(ValueError):
    """The input as a whole cannot be used; the message says what to do.

    Examples:
      >>> import deepssim_jax as ds
      >>> try:
      ...     ds.audit("no_such_folder/", "generated/")
      ... except ds.InputError as error:
      ...     print(error)
      --real: there is no such folder or file; check the path
    """


class Role(enum.Enum):
    """What a set of images is for.

    Examples:
      >>> import deepssim_jax as ds
      >>> [role.value for role in ds.Role]
      ['real', 'synthetic', 'holdout']
    """

    REAL = "real"
    SYNTHETIC = "synthetic"
    HOLDOUT = "holdout"


class Links(enum.Enum):
    """Which links in a folder are followed: those that stay inside of it, or all.

    DataLad and git-annex folders are made of links that leave the folder.
    """

    INSIDE = "inside"
    FOLLOW = "follow"


class ArrayLayout(enum.StrEnum):
    """What the axes of a NumPy array of three are, for the file does not say.

    IMAGES: [n, h, w] is n images (and [n, h, w, c] or [n, c, h, w] n pictures of 1, 3 or 4
    channels). ZYX: it is one volume, inferior to superior, front to back, right to left, as
    `SimpleITK.GetArrayFromImage` gives an axial scan in LPS. XYZ: it is one volume in the order of
    nibabel's `get_fdata`, of a file in LPS. In both, [n, ...] of four axes is n volumes.
    """

    IMAGES = "images"
    ZYX = "zyx"
    XYZ = "xyz"


@dataclasses.dataclass(frozen=True)
class Record:
    """One image.

    `parts` are all files it is made of, where these are more than `path`: the slices of a DICOM
    series in order, or a header beside its data. `items` are its places, from 0, among the images
    that `path` holds: one place, or the frames of a volume in order; empty if the file is the image.
    `layout` tells how an array without geometry is to be read. `split` is the part of a data set that
    the image belongs to, such as train or test. `row` is the line of the table that names it, 0 without one.
    `box` is the part of the image that is meant, a field of a sheet of several.
    `any_issuer` is `patients.under_any_issuer` of a PatientID of DICOM.
    """

    image_id: str
    path: Path
    subject_id: str | None = None
    session_id: str | None = None
    site: str | None = None
    split: str | None = None
    parts: tuple[Path, ...] = ()
    items: tuple[int, ...] = ()
    layout: ArrayLayout = ArrayLayout.ZYX
    row: int = 0
    box: Box | None = None
    any_issuer: str | None = None


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A file or an image that was not taken, and why."""

    image_id: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Unused:
    """What is no image of this source, and why: a file, a folder of `files` files that was not
    searched, or an array inside a file (which counts as no file).

    `reason` begins with the kind, up to the first comma; `images` of the files are of an image format.
    """

    name: str
    reason: str
    files: int = 1
    images: int = 0


@dataclasses.dataclass(frozen=True)
class FileCounts:
    """Files of a source, or rows of a table: `found` is the sum of all others.

    Of a used one an image is among the records; of one `left_out` every image was to be forgotten.
    """

    found: int = 0
    used: int = 0
    refused: int = 0
    not_images: int = 0
    left_out: int = 0


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The images of one source, sorted by id. `source` is what the user named.

    `notes` say what a reader of the report must know of how the files were taken. `elsewhere` are the
    folders that files were read from because a table names them or a link leads there.
    """

    source: Path
    role: Role
    kind: str  # "folder", "manifest", "bids" or "reference"
    records: tuple[Record, ...]
    rejected: tuple[Rejected, ...]
    unused: tuple[Unused, ...] = ()
    counts: FileCounts = FileCounts()
    notes: tuple[str, ...] = ()
    images_left_out: int = 0  # as asked; a file that has others, too, is used
    left_out_before: int = 0  # those of them that only an earlier run was asked to leave out
    # Ids that were to be left out and that nothing here has, and image ids that are; for no file or message.
    unmatched: frozenset[str] = dataclasses.field(default=frozenset(), repr=False)
    gone: frozenset[str] = dataclasses.field(default=frozenset(), repr=False)
    elsewhere: frozenset[Path] = frozenset()

    @property
    def said(self) -> tuple[str, ...]:
        """The notes, and how many files were not looked at, in sentences without full stops."""
        left = passed_over(self.unused)
        return self.notes if left is None else (*self.notes, left)

    def reading(self, what: str) -> str:
        """What is read, for its progress: with how many patients, where a name or a table tells any.

        An expression that finds too few of them is seen at once, and not after hours.
        """
        known = len({record.subject_id for record in self.records} - {None})
        return f"{what} ({known:,} {'patient' if known == 1 else 'patients'})" if known else what


def on_screen(notes: Iterable[str]) -> tuple[str, ...]:
    """Of a result's notes those that a command prints, too: what was left out, passed over or taken apart."""
    said = (FORGET, PASSED_OVER, OF_SEVERAL)
    return tuple(note for note in notes if any(words in note for words in said))


def passed_over(unused: Iterable[Unused]) -> str | None:
    """Says how many files of a source were not looked at, by kind; None if there are none.

    What belongs to the other side, or was left out as asked, is not among them.
    """
    files, images = collections.Counter[str](), 0
    for item in unused:
        if item.files and item.reason != OTHER_SIDE and FORGET not in item.reason:
            files[item.reason.partition(",")[0]] += item.files
            images += item.images
    if not files:
        return None
    kinds = ", ".join(f"{kind} ({count:,})" for kind, count in sorted(files.items()))
    said = f"{_files(files.total())} {PASSED_OVER}: {kinds}"
    if not images:
        return said
    them = "1 of them is" if images == 1 else f"{images:,} of them are"
    return (
        f"{said}; {them} of an image format in {EARLIER}: to include such a folder, give it itself"
    )


def _files(count: int) -> str:
    return "1 file was" if count == 1 else f"{count:,} files were"


def files_of(record: Record) -> Iterator[Path]:
    """The file, or all files, of a record."""
    yield from record.parts or (record.path,)
