"""Kinds of image on one side, between which the evidence of unrelated images differs.

Contract: hands in one position agree by chance as slides of tissue never do. A law learned of both kinds
together is that of the larger one, and would call the other's images copies. So the images are parted
where two groups of them lie apart for the encoder and have different laws, and each kind's evidence is
brought to the measure of the kind that agrees most by chance. Of one kind nothing changes.
"""

import dataclasses
from typing import Self

import numpy as np
import sklearn.cluster
import sklearn.metrics

from deepssim_jax.scoring.evidence import MIN_NULL, GumbelLaw, LargestLaw
from deepssim_jax.scoring.match import NO_EVIDENCE

# Two kinds: by silhouette coefficient (Rousseeuw, J. Comput. Appl. Math. 20, 1987), by the factor between the
# thresholds of their laws at this probability, and by how many people each has at least. Sets of one kind
# came to 0.39 and 1.7, mixtures to 0.42 and 1.9.
_APART, _FACTOR, _CHANCE, _LEAST = 0.4, 1.5, 1e-3, 8
_Law = GumbelLaw | LargestLaw


@dataclasses.dataclass(frozen=True)
class Kinds:
    """The kinds of a side's images, the largest first.

    `centres` float32 [k, d], their mean embeddings; `laws` of their unrelated images, that of points and
    those of the bands of partial correlations; `sizes`, in how many images each was seen.
    """

    centres: np.ndarray
    laws: tuple[tuple[_Law, ...], ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(
        cls, embeddings: np.ndarray, points: np.ndarray, partial: np.ndarray, owners: np.ndarray
    ) -> Self:
        """From images whose best evidence with other people's images is known.

        Args:
          embeddings: float32 [n, d] of unit norm.
          points: float32 [n], of local features.
          partial: float32 [n, BANDS], partial correlations.
          owners: int [n], whose each is.
        """
        seen = _Seen(embeddings, points, partial, owners)
        parts = sorted(
            seen.parted(np.arange(len(points))), key=lambda rows: (-len(rows), rows[:1].tolist())
        )
        return cls(
            np.stack([embeddings[rows].sum(0) / max(len(rows), 1) for rows in parts]),
            tuple(seen.laws(rows) for rows in parts),
            tuple(len(rows) for rows in parts),
        )

    def __len__(self) -> int:
        return len(self.sizes)

    def levelled(self, pairs: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
        """Pairs of `match` whose evidence is in one measure for all kinds.

        Args:
          pairs: as they were found.
          embeddings: of the references, float32 [n, d].
        """
        if len(self) == 1 or not len(pairs):
            return pairs
        seen, row = np.unique(pairs["reference"], return_inverse=True)
        kind = (embeddings[seen] @ self.centres.T).argmax(1)[row]
        place, width = (
            np.array([[getattr(law, name) for law in laws] for laws in self.laws], np.float32)
            for name in ("location", "scale")
        )
        most = _thresholds(self.laws).argmax(0)
        column = np.arange(len(most))
        found = np.concatenate([pairs["evidence"][:, None], pairs["partial"]], 1)
        ratio = width[most, column] / width[kind]
        levelled = place[most, column] + ratio * (found - place[kind])
        levelled = np.where(found > NO_EVIDENCE, levelled, NO_EVIDENCE)
        out = pairs.copy()
        out["evidence"] = np.where(pairs["by_points"], levelled[:, 0], pairs["evidence"])
        out["partial"] = levelled[:, 1:]
        return out


def _thresholds(laws: tuple[tuple[_Law, ...], ...]) -> np.ndarray:
    """[k, 1 + BANDS]."""
    return np.array([[law.threshold(_CHANCE) for law in row] for row in laws])


@dataclasses.dataclass(frozen=True)
class _Seen:
    """Of n images what `Kinds.of` takes."""

    embeddings: np.ndarray
    points: np.ndarray
    partial: np.ndarray
    owners: np.ndarray

    def people(self, rows: np.ndarray) -> int:
        return len(np.unique(self.owners[rows]))

    def laws(self, rows: np.ndarray) -> tuple[_Law, ...]:
        people = self.people(rows)
        bands = (LargestLaw.of(band, people=people) for band in self.partial[rows].T)
        return (GumbelLaw.of(self.points[rows], people=people), *bands)

    def parted(self, rows: np.ndarray) -> list[np.ndarray]:
        """The rows, in as many parts as there are kinds."""
        if self.people(rows) < 2 * _LEAST:
            return [rows]
        x = self.embeddings[rows]
        side = sklearn.cluster.KMeans(2, n_init=5, random_state=0).fit_predict(x)
        parts = [rows[side == s] for s in (0, 1)]
        fewest = min(map(self.people, parts))
        if fewest < _LEAST or sklearn.metrics.silhouette_score(x, side, metric="cosine") < _APART:
            return [rows]
        # Too few to learn a law from have the usual one.
        thresholds = _thresholds(tuple(map(self.laws, parts)))
        factor = (thresholds.max(0) / thresholds.min(0)).max()
        if fewest >= MIN_NULL and factor < _FACTOR:
            return [rows]
        return [found for part in parts for found in self.parted(part)]
