"""Flags of every command that reads folders of images."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from absl import flags

from deepssim_jax.cli import usage

if TYPE_CHECKING:
    from deepssim_jax.data.records import ArrayLayout, Links

flags.disclaim_key_flags()  # they belong to the command that has them defined


@dataclasses.dataclass(frozen=True)
class ReadingFlags:
    """`--follow_links`, `--arrays`, and `--forget` where a command has it."""

    follow_links: flags.FlagHolder
    arrays: flags.FlagHolder
    forget: flags.FlagHolder | None = None

    @classmethod
    def define(cls, arrays: str, *, forget: bool = False) -> ReadingFlags:
        """Defines the flags; `arrays` is the default of `--arrays`, `forget` whether there is `--forget`."""
        return cls(
            flags.DEFINE_bool(
                "follow_links",
                False,
                "follow links that leave a folder, as DataLad and git-annex make them",
            ),
            flags.DEFINE_enum(
                "arrays",
                arrays,
                ["images", "zyx", "xyz"],
                "what the axes of a NumPy array of three are: [n, h, w] of n images, or a volume: "
                "[z, y, x] as SimpleITK gives it or [x, y, z] as nibabel does",
            ),
            flags.DEFINE_multi_string(
                "forget",
                [],
                "id of a patient or an image to leave out, or @FILE of ids, one a line; may be repeated. "
                "Nothing that an earlier run kept of them in --out stays; later runs there leave them out",
            )
            if forget
            else None,
        )

    def forgotten(self) -> tuple[str, ...]:
        """The ids to leave out.

        Raises:
          UsageError: a file of ids cannot be read.
        """
        return usage.listed(self.forget) if self.forget is not None else ()

    def links(self) -> Links:
        """How links are read."""
        from deepssim_jax.data.records import Links

        return Links.FOLLOW if self.follow_links.value else Links.INSIDE

    def layout(self) -> ArrayLayout:
        """How NumPy arrays are read."""
        from deepssim_jax.data.records import ArrayLayout

        return ArrayLayout(self.arrays.value)
