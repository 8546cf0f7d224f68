"""What a search for duplicates found, as plain data.

The tables, the report and `summary.json` are all written from one `DuplicatesResult`. Scores are as in
`audit.result`: similarities in [-1, 1]; shifts are pixels of the declared image size.
"""

import dataclasses
import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING

from deepssim_jax.detection.result import Detection
from deepssim_jax.jobs.how import How
from deepssim_jax.scoring.decide import Proportion
from deepssim_jax.scoring.match import Moved
from deepssim_jax.scoring.points import TOO_LITTLE

if TYPE_CHECKING:
    import pandas


# Why an image is no more than held against equal files and pixels.
NOT_COMPARABLE = f"{TOO_LITTLE}; equal files and pixels are found"


class Compared(enum.StrEnum):
    """What a search for duplicates looked at; an image means a volume where these were compared."""

    IMAGES = "images"
    VOLUMES = "volumes"


@dataclasses.dataclass(frozen=True)
class DuplicateImage:
    """An image that has duplicates; of each group one is `kept`, and what is no copy of a kept one."""

    group: int  # from 1
    image_id: str
    subject_id: str | None
    split: str | None
    kept: bool
    weakest_link: (
        float | None
    )  # evidence of the weakest pair that holds the group; None: all are equal


@dataclasses.dataclass(frozen=True)
class DuplicatePair(Moved):
    """Two images, the second of which was moved to give the first."""

    first_id: str
    second_id: str
    first_subject: str | None
    second_subject: str | None
    first_split: str | None
    second_split: str | None
    how: How
    verified_score: float | None = 1.0  # None: not verified, with too little in common
    points: float | None = None  # None of equal images, which are not searched
    evidence: float | None = None  # likewise
    exact: float | None = None  # likewise: how exactly matches lie, in [0, 1]
    p_value: float | None = None  # likewise: of as much evidence without a copy


@dataclasses.dataclass(frozen=True)
class VolumePair(DuplicatePair):
    """Two volumes; `flip` is "mirrored" or "none", `verified_score` how well their structure agrees."""

    shift_mm: float | None = None  # of the middle; None without a spacing
    covered: float = 1.0  # share of the second that the first holds


@dataclasses.dataclass(frozen=True)
class Crossing:
    """What two splits share: groups of duplicates with a file in each, and patients in both."""

    first: str
    second: str
    groups: int
    image_ids: tuple[str, ...]  # of those groups, in either split
    subjects: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class SubjectSuspicion:
    """Two patient ids under one image: one person with two ids, or a file under a wrong one."""

    first_subject: str
    second_subject: str
    first_id: str
    second_id: str
    pairs: int


@dataclasses.dataclass(frozen=True)
class DuplicatesResult(Detection):
    """Everything that was found.

    `counts` has the keys images, unreadable, not_images and left_out (files), not_comparable, groups,
    in_groups, surplus (images that `clean` leaves out) and, of pairs, same_file, same_pixels, copies and
    similar. `duplicate_rate` is the share of surplus images among those read. `thresholds` says from which
    `evidence` and `points` a pair is a copy, of images that are similar also from which verified score
    and points (`sure_score`, `sure_points`), from which evidence a pair is `similar`, at which `chance`
    unrelated images reach that of a copy, and by how many images that was learned (`unrelated_count`).
    Pairs of volumes are `VolumePair`; of these `points_share` of the points that the poorer volume has with
    itself make a copy, which of a typical one are `points`. `exclusions` name what could not be read,
    and what is not comparable.

    Examples:
      >>> import tempfile
      >>> import deepssim_jax as ds
      >>> from deepssim_jax import testing
      >>> phantoms = testing.phantom_images(6)
      >>> with tempfile.TemporaryDirectory() as work:
      ...     _ = testing.write_images(work, phantoms[[0, 1, 2, 3, 2]])
      ...     result = ds.duplicates(work, settings=ds.DuplicateSettings(size=64))
      >>> result.duplicate_rate.count, result.duplicate_rate.total, result.pairs[0].how.value
      (1, 5, 'same_file')
      >>> result.clean
      ('p0000.png', 'p0001.png', 'p0002.png', 'p0003.png')
    """

    groups: tuple[DuplicateImage, ...]
    pairs: tuple[DuplicatePair, ...]  # duplicates, most certain first
    similar: tuple[DuplicatePair, ...]
    splits: tuple[str, ...]
    crossings: tuple[Crossing, ...]
    suspicions: tuple[SubjectSuspicion, ...]
    clean: tuple[str, ...]  # image ids: what is kept of each group, and all without duplicates
    thresholds: Mapping[str, float]
    compared: Compared = Compared.IMAGES

    @property
    def duplicate_rate(self) -> Proportion:
        """Share of surplus images: those without which none is a copy of another."""
        return self.copy_rate

    def to_pandas(self) -> "pandas.DataFrame":
        """The pairs, similar ones last, as a DataFrame, in the columns of `pairs.csv`.

        Raises:
          ImportError: pandas is not installed.
        """
        from deepssim_jax.jobs import duplicates_outputs  # which writes this result's files

        return duplicates_outputs.pair_table(self).data_frame()

    def _repr_html_(self) -> str:
        """The verdict, its numbers and the first pairs, without pictures: what a notebook shows.

        Names of files and patients are in it: the notebook is the institution's own. Clear its outputs
        before it is given away.
        """
        from deepssim_jax.audit import notebook
        from deepssim_jax.jobs import duplicates_outputs

        return notebook.html(
            duplicates_outputs.answer(self),
            duplicates_outputs.pair_table(self),
            columns=("rank", "how", "first_id", "second_id", "verified_score", "local_evidence"),
        )
