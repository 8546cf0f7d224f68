"""The search that moves nothing, and verification that stops where enough is known."""

import dataclasses

import numpy as np
import pytest

from deepssim_jax.scoring import in_place
from deepssim_jax.scoring.aligned import AlignedIndex
from deepssim_jax.scoring.in_place import nearest_in_place
from deepssim_jax.scoring.match import best_matches, verified
from deepssim_jax.scoring.retrieval import Proposals, Retrieval
from deepssim_jax.scoring.side import Side
from tests.scoring.test_aligned import SIZE, blobs, low, side


def inverted(images: np.ndarray) -> np.ndarray:
    """A quarter of the area with its contrast turned round, and stronger: it rules a correlation."""
    y, x = np.mgrid[:SIZE, :SIZE]
    return np.where((y - 30) ** 2 + (x - 34) ** 2 < 18**2, -1.5 * images, images)


def by_hand(a: np.ndarray, b: np.ndarray) -> float:
    """Mean of NumPy's correlations of 16 tiles, the best of four mirrorings."""
    best = -2.0
    corners = [(y, x) for y in range(0, 32, 8) for x in range(0, 32, 8)]
    for part in (a, a[::-1], a[:, ::-1], a[::-1, ::-1]):
        tiles = [[c[y : y + 8, x : x + 8].ravel() for c in (part, b)] for y, x in corners]
        best = max(best, np.mean([np.corrcoef(*pair)[0, 1] for pair in tiles]))
    return float(best)


def test_it_is_the_mean_correlation_of_tiles() -> None:
    """But for what a stabiliser of a hundredth takes from weak tiles."""
    a, b = low(blobs(5)), low(blobs(40, 1))
    found = nearest_in_place(a, b, k=40)
    table = np.array([[by_hand(q, r) for r in b] for q in a])
    in_place = np.take_along_axis(table, found.indices, 1)
    np.testing.assert_allclose(found.scores, in_place, atol=0.01)
    assert (np.diff(found.scores, axis=1) <= 0).all() and np.abs(found.scores).max() <= 1


def test_what_is_left_of_a_copy_finds_its_original_among_many() -> None:
    real = blobs(400)
    copies = inverted(real[:40])[:, :, ::-1]
    found = nearest_in_place(low(copies), low(real), k=1)
    np.testing.assert_array_equal(found.indices[:, 0], np.arange(40))
    everywhere = AlignedIndex.build(low(real)).search(low(copies), k=1).indices[:, 0]
    assert (everywhere != np.arange(40)).sum() > 4  # what it is there for


def test_tiles_of_references_and_groups_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = low(blobs(70)), low(blobs(100, 1))
    groups = np.arange(70) % 9, np.arange(100) % 9
    whole, apart = nearest_in_place(a, b, k=7), nearest_in_place(a, b, k=7, groups=groups)
    monkeypatch.setattr(in_place, "_REFERENCES", 32)
    for before, again in (
        (whole, nearest_in_place(a, b, k=7)),
        (apart, nearest_in_place(a, b, k=7, groups=groups)),
    ):
        np.testing.assert_array_equal(before.indices, again.indices)
        np.testing.assert_allclose(before.scores, again.scores, atol=1e-6)
    assert not (groups[1][apart.indices] == groups[0][:, None]).any()
    few = nearest_in_place(a[:9], b[:9], k=9, groups=(groups[0][:9], groups[1][:9]))
    assert (few.scores[:, -1] == -2).all() and (few.scores[:, :-1] > -1.01).all()


def test_enough_is_asked_no_further_and_changes_no_decision() -> None:
    real = blobs(30)
    queries = np.concatenate([real[:6], np.roll(real[6:9], 5, axis=1), blobs(4, 9)])
    references, part = side(real), side(queries)
    common = {"index": AlignedIndex.build(references.low), "proposals": Retrieval.BOTH.proposals}
    pairs = verified(part, references, **common)
    short = verified(part, references, **common, enough=0.9)
    counts = np.bincount(short["query"], minlength=len(queries))
    assert (counts[:6] == 1).all() and (counts[6:9] < np.bincount(pairs["query"])[6:9]).all()
    np.testing.assert_array_equal(short[short["query"] >= 9], pairs[pairs["query"] >= 9])
    best, now = (best_matches(p, len(queries)) for p in (pairs, short))
    np.testing.assert_array_equal(best["verified"] >= 0.9, now["verified"] >= 0.9)
    assert (now["verified"][:9] >= 0.9).all()
    # All of them are copies in their places: there is nothing left to search for.
    same = verified(part.rows(np.arange(6)), references, **common, enough=0.9)
    assert len(same) == 6 and len(verified(part.rows(np.arange(0)), references, **common)) == 0


def test_a_way_can_be_left_out() -> None:
    real, own = blobs(10), np.arange(10)
    references = Side(real.__getitem__, low(real), np.eye(10, dtype=np.float32))
    # Embeddings that name the next one: each way gives itself away.
    queries = dataclasses.replace(
        references, embeddings=np.eye(10, dtype=np.float32)[(own + 1) % 10]
    )
    nothing = Proposals(aligned=0, likely=0, in_place=0, encoder=0)
    for way, expected in (("in_place", own), ("encoder", (own + 1) % 10)):
        proposals = dataclasses.replace(nothing, **{way: 1})
        pairs = verified(queries, references, index=None, proposals=proposals)
        np.testing.assert_array_equal(pairs["reference"], expected, err_msg=way)
