"""Which pairs are looked at: what each way of searching proposes for every query."""

import numpy as np

from deepssim_jax import parallel
from deepssim_jax.scoring.aligned import AlignedIndex, most_likely
from deepssim_jax.scoring.in_place import nearest_in_place
from deepssim_jax.scoring.pairs import nearest
from deepssim_jax.scoring.retrieval import Proposals
from deepssim_jax.scoring.side import Side

# So many of the aligned search are compared tile by tile, which for one of them costs a
# three-hundredth of a verification.
_COMPARED = 64


def candidates(
    part: Side,
    references: Side,
    *,
    index: AlignedIndex | None,
    proposals: Proposals,
    apart: bool = False,
) -> dict[tuple[int, int], int]:
    """(query, reference) of every pair that `verified`, with these arguments, looks at.

    The value is its place among the proposals of a way of searching, 0 for the first of one.
    """
    groups = groups_of(part, references, apart)
    near = _encoder_proposals(part, references, proposals.encoder, groups)
    ways = [(near, near >= 0)]
    if index is not None:
        found = index.search(part.low, k=_COMPARED, groups=groups and groups[0])
        likely = most_likely(
            found, part.low, references.low, keep=proposals.likely, grid=index.grid
        )
        for some, count in ((found, proposals.aligned), (likely, proposals.likely)):
            ways.append((some.indices[:, :count], some.scores[:, :count] > -2.0))
    if proposals.in_place:
        there = nearest_in_place(part.low, references.low, k=proposals.in_place, groups=groups)
        ways.append((there.indices, there.scores > -2.0))
    pairs: dict[tuple[int, int], int] = {}
    for rows, present in ways:
        for query, place in np.argwhere(present).tolist():
            key = (query, int(rows[query, place]))
            pairs[key] = min(place, pairs.get(key, place))
    return pairs


def _encoder_proposals(
    part: Side, references: Side, count: int, groups: tuple[np.ndarray, np.ndarray] | None
) -> np.ndarray:
    """int [n, count]: references with the nearest embeddings, own group left out where there are any.

    -1 stands where there are fewer.
    """
    out = np.full((len(part), count), -1, np.int32)
    k = min(count, len(references))
    if k:
        mesh = parallel.own_mesh()  # each process looks up queries of its own
        near = nearest(part.embeddings, references.embeddings, k=k, groups=groups, mesh=mesh)
        out[:, :k] = near.indices
    return out


def groups_of(queries: Side, references: Side, apart: bool) -> tuple[np.ndarray, np.ndarray] | None:
    """Those of both sides where they shall be kept apart."""
    if not apart:
        return None
    if queries.groups is None or references.groups is None:
        raise ValueError("apart=True needs the groups (patients) of both sides")
    return queries.groups, references.groups
