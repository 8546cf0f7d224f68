"""What a user may choose of the search for replicas of volumes."""

import dataclasses

from deepssim_jax.data.records import ArrayLayout, Links
from deepssim_jax.data.whole_volume import VolumeSettings
from deepssim_jax.scoring.volume_match import Alignment
from deepssim_jax.scoring.volume_sides import Modality


@dataclasses.dataclass(frozen=True)
class ReplicaSettings:
    """What a user may choose; every field is echoed in the report.

    `size` is the side in voxels of the cube that every volume is brought to, `spacing` their size in mm
    (None: each file's whole field of view); `modality` decides how label maps are made where none are
    given; `encoder`, of images by slices or of whole volumes, embeds unless embeddings are given;
    `candidates` of each search are measured. `links` and `arrays` are how folders and NumPy arrays are
    read.
    """

    size: int = 64
    spacing: float | None = None
    modality: Modality = Modality.OTHER
    alignment: Alignment = Alignment.RIGID
    encoder: str = "default"
    candidates: int = 2
    subject_regex: str | None = None
    level: float = 0.95
    seed: int = 0
    allow_same: bool = False
    links: Links = Links.INSIDE
    arrays: ArrayLayout = ArrayLayout.ZYX

    def validate(self) -> None:
        """Raises ValueError for values that cannot work."""
        if not 32 <= self.size <= 256:
            raise ValueError(f"size {self.size} must lie in [32, 256] voxels, for example 64")
        if not 1 <= self.candidates <= 32:
            raise ValueError(f"candidates {self.candidates} must lie in [1, 32], for example 2")
        if not 0.5 <= self.level < 1.0:
            raise ValueError(f"level {self.level} must lie in [0.5, 1), for example 0.95")

    @property
    def grid(self) -> VolumeSettings:
        """How volumes are read."""
        return VolumeSettings((self.size,) * 3, self.spacing, self.modality.window)
