"""What a user may choose of the search for replicas of volumes."""

import dataclasses

from deepssim_jax.data.manifest import check_subject_regex
from deepssim_jax.data.records import ArrayLayout, Links
from deepssim_jax.data.whole_volume import VolumeSettings
from deepssim_jax.ops import arguments
from deepssim_jax.scoring.volume_measure import Alignment
from deepssim_jax.scoring.volume_sides import Modality


@dataclasses.dataclass(frozen=True)
class ReplicaSettings:
    """What a user may choose; every field is echoed in the report.

    `size` is the side in voxels of the cube that every volume is brought to, `spacing` their size in mm
    (None: each file's whole field of view); `modality` decides how label maps are made where none are
    given; `encoder`, of images by slices or of whole volumes, embeds unless embeddings are given;
    `candidates` of each search are measured. `links` and `arrays` are how folders and NumPy arrays are
    read.

    Examples:
      >>> import deepssim_jax as ds
      >>> ds.ReplicaSettings(size=32, spacing=4.0).spacing
      4.0
    """

    size: int = 64
    spacing: float | None = None
    modality: Modality = Modality.OTHER
    alignment: Alignment = Alignment.AFFINE
    encoder: str = "default"
    candidates: int = 2
    subject_regex: str | None = None
    level: float = 0.95
    seed: int = 0
    allow_same: bool = False
    links: Links = Links.INSIDE
    arrays: ArrayLayout = ArrayLayout.ZYX

    def __post_init__(self) -> None:
        """Raises ValueError for values that cannot work."""
        arguments.whole(self.size, "size", least=32, most=256)
        if self.spacing is not None:
            arguments.number(self.spacing, "spacing", low=0.05, high=50, example=3.5)
        arguments.member(self.modality, "modality", Modality)
        arguments.member(self.alignment, "alignment", Alignment)
        arguments.text(self.encoder, "encoder", remedy="'default' or a path")
        arguments.whole(self.candidates, "candidates", least=1, most=32)
        check_subject_regex(self.subject_regex)
        arguments.number(self.level, "level", low=0.5, high=1, open_high=True, example=0.95)
        arguments.seed(self.seed, "seed")
        arguments.switch(self.allow_same, "allow_same")
        arguments.member(self.links, "links", Links)
        arguments.member(self.arrays, "arrays", ArrayLayout)

    @property
    def grid(self) -> VolumeSettings:
        """How volumes are read."""
        return VolumeSettings((self.size,) * 3, self.spacing, self.modality.window)
