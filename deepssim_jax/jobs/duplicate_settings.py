"""What a user may choose of a search for duplicates."""

import dataclasses
from pathlib import Path

from deepssim_jax.audit.audit_settings import check_regex
from deepssim_jax.data.records import ArrayLayout, Links
from deepssim_jax.data.store import NO_SLICE, InputSettings
from deepssim_jax.data.volume import SliceSpec
from deepssim_jax.data.whole_volume import VolumeSettings
from deepssim_jax.ops import arguments
from deepssim_jax.scoring import points
from deepssim_jax.scoring.embed import check_size
from deepssim_jax.workspace.names import refused_by_windows

_IMAGE_SIDE, _VOLUME_SIDE = 128, 64
# Case is ignored on some systems.
_OWN_TABLES = ("groups.", "pairs.", "review")
WHOLE_VOLUMES = "whole volumes"  # in place of the slice


@dataclasses.dataclass(frozen=True)
class DuplicateSettings:
    """What a user may choose; every field but `forget` is echoed in the report.

    `size` is the side in pixels at which pairs of images are verified, 128 if None, or in voxels of the
    cube that volumes are brought to, 64 if None (a multiple of 32). `slice_spec` is the slice that stands
    for a volume; without one whole volumes are compared. `false_discoveries` is the share of false ones
    among the images that are called duplicates, in expectation; of volumes, among those called similar.
    `level` is the coverage of the interval.
    `write_manifest` names a table of what is kept, inside of `out`. `forget` are ids of patients or
    images that are left out of every folder.

    Examples:
      >>> import deepssim_jax as ds
      >>> ds.DuplicateSettings(write_manifest="clean.csv").false_discoveries
      0.05
    """

    size: int | None = None
    slice_spec: str | None = None
    subject_regex: str | None = None
    false_discoveries: float = 0.05
    level: float = 0.95
    links: Links = Links.INSIDE
    arrays: ArrayLayout = ArrayLayout.IMAGES
    write_manifest: str | None = None
    forget: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError for values that cannot work."""
        if self.size is not None:
            check_size(self.size)
        if self.slice_spec is not None:
            SliceSpec.parse(self.slice_spec)
        check_regex(self.subject_regex)
        for name in ("false_discoveries", "level"):
            low = 0.5 if name == "level" else 0.0
            arguments.number(
                getattr(self, name), name, low=low, high=1, open_high=True, example=0.95
            )
        arguments.member(self.links, "links", Links)
        arguments.member(self.arrays, "arrays", ArrayLayout)
        arguments.names(self.forget, "forget")
        if self.write_manifest is not None:
            _check_manifest(self.write_manifest)

    @property
    def image_settings(self) -> InputSettings:
        """How images are read."""
        side = self.size or _IMAGE_SIDE
        return InputSettings((side, side), self.slice_spec or NO_SLICE, points.SIDE)

    @property
    def volume_settings(self) -> VolumeSettings:
        """How volumes are read.

        Raises:
          ValueError: the cube would be too large.
        """
        side = arguments.whole(self.size or _VOLUME_SIDE, "size", least=32, most=256)
        return VolumeSettings((side,) * 3)


def _check_manifest(name: str) -> None:
    """Refuses what is no plain name of a table beside those of the job."""
    if not isinstance(name, str) or Path(name).name != name or not name.endswith(".csv"):
        raise ValueError(
            f"write_manifest {name!r} must be a file name that ends in .csv; it is written into "
            "the output folder, for example clean.csv"
        )
    if name.casefold().startswith(_OWN_TABLES):
        raise ValueError(
            f"write_manifest {name!r} is a table of this job; take another name, for example clean.csv"
        )
    if reason := refused_by_windows(name):
        raise ValueError(f"write_manifest {name!r}: {reason}; take another name")
