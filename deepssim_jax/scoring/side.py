"""A set of images with what searching needs."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from deepssim_jax.ops.batches import one_of_each
from deepssim_jax.scoring.detail import SAMPLE, Common
from deepssim_jax.scoring.points import LocalIndex, PointSet


@dataclasses.dataclass(frozen=True)
class Side:
    """One set of images: n rows in the order of their ids.

    `take(rows)` gives square images [k, s, s] of any real dtype; `low` float32 [n, g, g] are
    their versions for the global search; `embeddings` float32 [n, d] of unit norm; `groups` int
    [n] holds the patient of each, or is None where pairs of one patient are wanted too; `points` are
    local features, or None where they are not searched; `pictures(rows)` gives float [h, w] images on
    [0, 1] of their own aspect and as fine as they are kept, or is None where only squares are.
    """

    take: Callable[[np.ndarray], np.ndarray]
    low: np.ndarray
    embeddings: np.ndarray
    groups: np.ndarray | None = None
    points: PointSet | None = None
    pictures: Callable[[np.ndarray], list[np.ndarray]] | None = None

    def __len__(self) -> int:
        return len(self.low)

    def grouped(self) -> tuple["Side", np.ndarray]:
        """The side with groups, and these; without any every image is a group of its own."""
        if self.groups is not None:
            return self, self.groups
        groups = np.arange(len(self), dtype=np.int32)
        return dataclasses.replace(self, groups=groups), groups

    @property
    def features(self) -> PointSet:
        """Its local features.

        Raises:
          ValueError: it has none.
        """
        if self.points is None:
            raise ValueError("this side was made without local features, which the search asks for")
        return self.points

    @property
    def comparable(self) -> np.ndarray:
        """Bool [n]: which images hold enough structure to be compared; all where there are no points."""
        return np.ones(len(self), bool) if self.points is None else self.points.comparable

    @functools.cached_property
    def local(self) -> LocalIndex:
        """Its local features, ready to be searched; without patients every image is one."""
        return LocalIndex.build(self.features, self.grouped()[1])

    def sample(self) -> np.ndarray:
        """Images [k, s, s] that say what all of their kind share, one of each patient at most."""
        return self.take(one_of_each(self.grouped()[1], most=SAMPLE))

    @functools.cached_property
    def common(self) -> Common:
        """What its images share, which is no sign of a copy."""
        return Common.of(self.sample())

    def rows(self, chosen: np.ndarray) -> "Side":
        """The side made of some of its rows."""
        chosen, pictures = np.asarray(chosen), self.pictures
        return Side(
            take=lambda rows: self.take(chosen[rows]),
            low=self.low[chosen],
            embeddings=self.embeddings[chosen],
            groups=None if self.groups is None else self.groups[chosen],
            points=None if self.points is None else self.points.rows(chosen),
            pictures=pictures and (lambda rows: pictures(chosen[rows])),
        )
