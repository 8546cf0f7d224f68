"""What a user may choose of an audit."""

import dataclasses

from deepssim_jax.audit.calibration import PLANTED
from deepssim_jax.data.manifest import check_subject_regex as check_regex
from deepssim_jax.data.records import ArrayLayout, Links
from deepssim_jax.data.volume import SliceSpec
from deepssim_jax.ops import arguments
from deepssim_jax.scoring.embed import check_size
from deepssim_jax.scoring.retrieval import Retrieval

_MOST_PLANTED = 1_000_000


@dataclasses.dataclass(frozen=True)
class AuditSettings:
    """What a user may choose; every field but `forget` is echoed in the report.

    `size` is the side in pixels that every image is brought to (a multiple of 32), `slice_spec`
    the slice taken of volumes, `retrieval` the search for candidates, `level` the coverage of
    intervals, `seed` that of the calibration. `explain` shows what the encoder saw in the gallery.
    `plant` edited copies of the real images are looked for, to say what would have been found. `links`
    and `arrays` are how folders and NumPy arrays are read. `forget` are ids of patients or images that are
    left out of every folder; nothing that an earlier run kept of them stays.

    Examples:
      >>> import deepssim_jax as ds
      >>> ds.AuditSettings(subject_regex="^([0-9]+)_", size=256).size
      256
      >>> ds.AuditSettings(size=100)
      Traceback (most recent call last):
      ValueError: size 100 must be a multiple of 32 in [64, 1024], for example 128
    """

    size: int = 128
    slice_spec: str = "axial:0.5"
    subject_regex: str | None = None
    encoder: str = "default"
    retrieval: Retrieval = Retrieval.AUTO
    level: float = 0.95
    seed: int = 0
    allow_same: bool = False
    explain: bool = False
    plant: int = PLANTED
    links: Links = Links.INSIDE
    arrays: ArrayLayout = ArrayLayout.IMAGES
    forget: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError for values that cannot work."""
        check_size(self.size)
        SliceSpec.parse(self.slice_spec)
        check_regex(self.subject_regex)
        arguments.text(self.encoder, "encoder", remedy="'default' or a path")
        arguments.member(self.retrieval, "retrieval", Retrieval)
        arguments.number(self.level, "level", low=0.5, high=1, open_high=True, example=0.95)
        arguments.seed(self.seed, "seed")
        arguments.switch(self.allow_same, "allow_same")
        arguments.switch(self.explain, "explain")
        arguments.whole(self.plant, "plant", least=0, most=_MOST_PLANTED)
        arguments.member(self.links, "links", Links)
        arguments.member(self.arrays, "arrays", ArrayLayout)
        arguments.names(self.forget, "forget")
