"""What became of every file of a source: read, not read and why, or no image.

Contract: `rows` and `figures` name no file, for names can be those of patients; `listed` does.
`Growth` says how the images of a run differ from those of the run before it in the same folder.
"""

import collections
import dataclasses
import json
from collections.abc import Hashable, Iterable

from deepssim_jax.data.records import FileCounts, InputError, Manifest, Rejected, Unused

INPUTS = "inputs.json"
_FEW = 5  # reasons that a table on the screen shows


@dataclasses.dataclass(frozen=True)
class Account:
    """The files of a source as they were listed, and the images that could be read of them.

    `images_left_out` were left out as asked; `notes` are the listing's.
    """

    files: FileCounts = FileCounts()
    images: int = 0
    not_read: tuple[Rejected, ...] = ()
    unused: tuple[Unused, ...] = ()
    images_left_out: int = 0
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, manifest: Manifest, *, images: int, not_read: tuple[Rejected, ...]) -> "Account":
        """That of a listing, of which so many images were read; `not_read` are all others."""
        counts, unused = manifest.counts, manifest.unused
        return cls(counts, images, not_read, unused, manifest.images_left_out, manifest.said)

    @property
    def reasons(self) -> dict[str, int]:
        """How many were not read, by reason, the most frequent first."""
        return _counted(item.reason for item in self.not_read)

    def rows(self, side: str = "") -> list[tuple[str, object]]:
        """For the end of a command, each beginning with the side's name."""
        of = f"{side}, " if side else ""
        return [
            (f"{of}files found", self.files.found),
            (f"{of}images read", self.images),
            (f"{of}not read", len(self.not_read)),
            *reason_rows(item.reason for item in self.not_read),
            (f"{of}files that are no image", self.files.not_images),
        ]

    @property
    def file(self) -> bytes:
        """`inputs.json`: every file that was not read, for the institution alone."""
        return (json.dumps(self.listed(), indent=2) + "\n").encode()

    def figures(self) -> dict[str, object]:
        """The numbers as plain JSON."""
        return {
            "files_found": self.files.found,
            "images_read": self.images,
            "not_read": len(self.not_read),
            "reasons": self.reasons,
            "not_images": self.files.not_images,
        }

    def listed(self) -> dict[str, object]:
        """The same with every file that was not read."""
        files = [
            *([item.image_id, item.reason] for item in self.not_read),
            *([item.name, item.reason] for item in self.unused),
        ]
        more = {
            "left_out": self.files.left_out,
            "images_left_out": self.images_left_out,
            "notes": list(self.notes),
        }
        return {**self.figures(), **more, "files": files}


def reason_rows(reasons: Iterable[str]) -> list[tuple[str, int]]:
    """How often each reason is given, the most frequent first: for a table on the screen."""
    found = list(_counted(reasons).items())
    shown = found[:_FEW] if len(found) > _FEW + 1 else found
    rest = sum(count for _, count in found[len(shown) :])
    rows = [(f"  {reason}", count) for reason, count in shown]
    return [*rows, *([("  other reasons", rest)] if rest else [])]


def _counted(reasons: Iterable[str]) -> dict[str, int]:
    found = collections.Counter(reasons)
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))


@dataclasses.dataclass(frozen=True)
class Growth:
    """Images that were `added` to those of an earlier run in the same folder, and those that are `gone`;
    `left_out_before` are left out now because only an earlier run was asked to.
    """

    added: int = 0
    gone: int = 0
    left_out_before: int = 0

    @classmethod
    def of(cls, before: Iterable[Hashable], now: Iterable[Hashable], *, out: str) -> "Growth":
        """Compares images by their content: `before` those of the earlier run, none if it is the first.

        Raises:
          InputError: no image is the same: the folder `out` was made of another set.
        """
        old, new = collections.Counter(before), collections.Counter(now)
        if old and not (old & new):
            raise InputError(
                f"--out={out!r} is of {old.total():,} other images, none of which is among those given now; "
                "give another folder, or the images that it was made of"
            )
        return cls((new - old).total(), (old - new).total()) if old else cls()

    def rows(self) -> list[tuple[str, object]]:
        """For the end of a command; none where nothing changed."""
        if not (self.added or self.gone):
            return []
        return [("images added", self.added), ("images gone since the last run", self.gone)]
