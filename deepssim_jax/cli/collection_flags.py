"""Flags of the commands that read one collection of images: duplicates and index."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from absl import flags

from deepssim_jax.cli.reading_flags import ReadingFlags

if TYPE_CHECKING:
    from deepssim_jax.jobs.duplicate_settings import DuplicateSettings

flags.disclaim_key_flags()  # they belong to the command that has them defined


@dataclasses.dataclass(frozen=True)
class CollectionFlags:
    """`--subject_regex`, `--size` and `--slice`, and those of `ReadingFlags`."""

    subject_regex: flags.FlagHolder
    size: flags.FlagHolder
    slice: flags.FlagHolder
    reading: ReadingFlags

    @classmethod
    def define(cls, *, size: str, slice_spec: str) -> CollectionFlags:
        """Defines the flags; `size` and `slice_spec` are what help states of these two."""
        return cls(
            flags.DEFINE_string(
                "subject_regex",
                None,
                "regular expression whose first group, found in a file's name, is the patient; e.g. "
                "'^([0-9]+)_'",
            ),
            flags.DEFINE_integer(
                "size",
                None,
                f"side in pixels at which pairs are verified, aspect kept; a multiple of 32, {size}",
            ),
            flags.DEFINE_string(
                "slice",
                None,
                f"slice that is read of a volume: PLANE:FRACTION or PLANE:INDEX; if not given, {slice_spec}",
            ),
            ReadingFlags.define("images", forget=True),
        )

    def settings(self) -> DuplicateSettings:
        """How the collection is read; all else as it is by default."""
        from deepssim_jax.jobs.duplicate_settings import DuplicateSettings

        return DuplicateSettings(
            size=self.size.value,
            slice_spec=self.slice.value,
            subject_regex=self.subject_regex.value,
            links=self.reading.links(),
            arrays=self.reading.layout(),
            forget=self.reading.forgotten(),
        )
