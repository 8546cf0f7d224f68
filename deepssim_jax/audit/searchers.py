"""Ways of finding the original of an image among real ones, behind one interface.

Contract: a `Searcher` takes the real images, each float [h, w] on [0, 1] of any shape, and their
patients, int [n], and gives a `Search`. That takes images and, where own images must not be found,
their patients, and gives the best real image of each. Scores have no upper bound, because a law is
fitted to their tail; a similarity s up to 1 becomes -log(1 - s).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np

from deepssim_jax.audit.calibration import MAX_NULL, Laws, Trial, learned
from deepssim_jax.data.preprocess import fit_to_size
from deepssim_jax.detection.controls import balanced_rows
from deepssim_jax.nn.encoder import Encoder
from deepssim_jax.scoring.aligned import AlignedIndex
from deepssim_jax.scoring.embed import features, side_of_images
from deepssim_jax.scoring.kinds import Kinds
from deepssim_jax.scoring.match import best_matches, match, verified
from deepssim_jax.scoring.retrieval import Proposals, Retrieval
from deepssim_jax.scoring.side import Side
from deepssim_jax.workspace import Workspace

_LEAST_P, _WORST_P = 1e-300, 15.0  # the second is what `either` makes of the least evidence
_TINY = 1e-6  # of 1 - s: what float32 holds of a cosine


@dataclasses.dataclass(frozen=True)
class Best:
    """Row of the best reference, int [q] (-1 where none is left), and its score, float [q].

    `calibrated` says that the score is -log of the probability of as much without a copy.
    """

    reference: np.ndarray
    score: np.ndarray
    calibrated: bool = False


Search = Callable[[Sequence[np.ndarray], np.ndarray | None], Best]
Searcher = Callable[[Sequence[np.ndarray], np.ndarray], Search]


def unbounded(similarity: np.ndarray) -> np.ndarray:
    """-log(1 - s) of similarities up to 1."""
    return -np.log(np.maximum(1 - np.asarray(similarity, np.float64), _TINY))


def squares(images: Sequence[np.ndarray], size: int) -> np.ndarray:
    """float32 [n, size, size], the aspect kept."""
    fitted = [fit_to_size(np.asarray(x, np.float32), size=(size, size)) for x in images]
    return np.stack(fitted)


def pick(scores: np.ndarray, patients: np.ndarray, own: np.ndarray | None) -> Best:
    """The best of scores [q, n], own patients left out; ties go to the smaller row."""
    allowed = scores
    if own is not None:
        allowed = np.where(own[:, None] == patients[None], -np.inf, scores)
    best = allowed.argmax(1)
    found = allowed[np.arange(len(best)), best]
    nothing = ~np.isfinite(found)
    return Best(np.where(nothing, -1, best), np.where(nothing, scores.min(), found))


def by_embedding(embed: Callable[[np.ndarray], np.ndarray], *, size: int) -> Searcher:
    """The largest cosine of an embedding of squares [n, size, size] -> [n, d]."""

    def units(images: Sequence[np.ndarray]) -> np.ndarray:
        rows = np.asarray(embed(squares(images, size)), np.float32)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)

    def searcher(references: Sequence[np.ndarray], patients: np.ndarray) -> Search:
        known = units(references)
        return lambda queries, own: pick(unbounded(units(queries) @ known.T), patients, own)

    return searcher


def pixels(images: np.ndarray) -> np.ndarray:
    """Pixels less their mean: their cosine is Pearson's correlation (Akbar et al., arXiv 2305.07644)."""
    rows = images.reshape(len(images), -1)
    return rows - rows.mean(1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class ByEvidence:
    """What an audit decides by: laws of unrelated images, learned of the real ones as an audit learns them.

    `proposals` are the candidates that each way of searching gives.
    """

    real: Side
    laws: Laws
    kinds: Kinds
    proposals: Proposals

    @classmethod
    def of(cls, real: Side, *, proposals: Proposals) -> Self:
        """Learns the laws of a side with points, whose groups are its patients."""
        if real.groups is None:
            raise ValueError("real has no groups; give every image its patient")
        rows = balanced_rows(real.groups, MAX_NULL, seed=0)
        rows = rows[real.comparable[rows]]
        found = _matched(real.rows(rows), real, proposals, apart=True)
        owners = real.groups[rows]
        null = Trial.of(found, len(rows))
        kinds = Kinds.of(real.embeddings[rows], null.points, null.partial, owners)
        found = kinds.levelled(found, real.embeddings)
        laws, _ = learned(Trial.of(found, len(rows)), owners, kinds=len(kinds))
        return cls(real, laws, kinds, proposals)

    def search(self, queries: Side) -> Best:
        """The real image of the least probability without a copy; own groups, if any, are left out."""
        pairs = _matched(queries, self.real, self.proposals, apart=queries.groups is not None)
        pairs = self.kinds.levelled(pairs, self.real.embeddings)
        each = pairs.copy()
        each["query"] = np.arange(len(pairs))
        p_values = np.maximum(self.laws.p_values(Trial.of(each, len(pairs))), _LEAST_P)
        best = Best(
            np.full(len(queries), -1), np.full(len(queries), -np.log(_WORST_P)), calibrated=True
        )
        for row in np.argsort(-p_values, kind="stable"):  # the smallest comes last and stays
            query = pairs["query"][row]
            best.reference[query] = pairs["reference"][row]
            best.score[query] = -np.log(p_values[row])
        return best


def _matched(queries: Side, real: Side, proposals: Proposals, *, apart: bool) -> np.ndarray:
    with Workspace.temporary(command="stress") as workspace:
        return match(
            queries, real, journal=workspace.section("stress"), proposals=proposals, apart=apart
        )


def audit(encoder: Encoder, *, size: int) -> Searcher:
    """By the evidence of an audit: -log of the probability of as much without a copy."""

    def side(images: Sequence[np.ndarray], groups: np.ndarray | None) -> Side:
        made = side_of_images(images, encoder, size=size, points=True)
        return dataclasses.replace(made, groups=groups)

    def searcher(references: Sequence[np.ndarray], patients: np.ndarray) -> Search:
        known = ByEvidence.of(side(references, patients), proposals=Retrieval.LOCAL.proposals)
        return lambda queries, own: known.search(side(queries, own))

    return searcher


def detector(encoder: Encoder, *, size: int) -> Searcher:
    """The search over all transformations and its verification, whose score decides."""

    def side(images: Sequence[np.ndarray], patients: np.ndarray | None) -> Side:
        stack = squares(images, size)
        embeddings, low = features(stack, encoder)
        return Side(lambda rows: stack[rows], low, embeddings, patients)

    def searcher(references: Sequence[np.ndarray], patients: np.ndarray) -> Search:
        real = side(references, patients)
        proposals = Retrieval.BOTH.proposals
        indexes: dict[bool, AlignedIndex] = {}

        def search(queries: Sequence[np.ndarray], own: np.ndarray | None) -> Best:
            apart = own is not None
            if apart not in indexes:
                indexes[apart] = AlignedIndex.build(real.low, groups=patients if apart else None)
            pairs = verified(
                side(queries, own), real, index=indexes[apart], proposals=proposals, apart=apart
            )
            best = best_matches(pairs, len(queries))
            return Best(best["reference"], unbounded(best["verified"]))

        return search

    return searcher
