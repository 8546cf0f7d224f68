"""Two kinds of image on one side: each is judged by what its own unrelated images show."""

import numpy as np
import pytest

from deepssim_jax.audit.calibration import Laws, Trial, learned
from deepssim_jax.scoring.evidence import MOST_FALSE
from deepssim_jax.scoring.kinds import Kinds
from deepssim_jax.scoring.match import NO_EVIDENCE, PAIR

FEW, MANY = 40, 80


def embeddings(rng: np.random.Generator, sizes: tuple[int, ...]) -> np.ndarray:
    """As many kinds, each about a direction of its own."""
    middles = np.repeat(np.eye(len(sizes), 16), sizes, axis=0)
    rows = middles + 0.15 * rng.standard_normal(middles.shape)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def null(rng: np.random.Generator, sizes: tuple[int, ...], scales: tuple[float, ...]) -> np.ndarray:
    """The best of eight unrelated pairs of each image, [n, 3] partial correlations."""
    scale = np.repeat(scales, sizes)[:, None]
    return scale * rng.normal(0, 1, (sum(sizes), 8, 3)).max(1)


def pairs_of(partial: np.ndarray) -> np.ndarray:
    """One pair of each image with itself, found by points that say little."""
    pairs = np.zeros(len(partial), PAIR)
    pairs["query"] = pairs["reference"] = np.arange(len(partial))
    pairs["verified"], pairs["partial"] = 0.5, partial
    return pairs


def made(seed: int, sizes: tuple[int, ...], scales: tuple[float, ...]) -> tuple[Kinds, np.ndarray]:
    rng = np.random.default_rng(seed)
    where, partial = embeddings(rng, sizes), null(rng, sizes, scales)
    points = rng.gumbel(0.2, 0.08, len(partial))
    return Kinds.of(where, points, partial, np.arange(len(partial))), where


def called(kinds: Kinds, where: np.ndarray, partial: np.ndarray, laws: Laws) -> np.ndarray:
    trial = Trial.of(kinds.levelled(pairs_of(partial), where), len(where))
    return laws.p_values(trial) < MOST_FALSE


def test_of_one_kind_nothing_changes() -> None:
    kinds, where = made(0, (90,), (0.2,))
    assert len(kinds) == 1 and kinds.sizes == (90,)
    pairs = pairs_of(np.ones((90, 3)))
    assert kinds.levelled(pairs, where) is pairs


@pytest.mark.parametrize("scales", [(0.1, 0.4), (0.4, 0.1)])
def test_neither_kind_is_judged_by_the_law_of_the_other(scales: tuple[float, float]) -> None:
    """Before, unrelated images of the kind that agrees more are called copies by dozens."""
    sizes = (MANY, FEW)
    kinds, where = made(1, sizes, scales)
    assert kinds.sizes == sizes
    rng = np.random.default_rng(2)
    seen, owners = null(rng, sizes, scales), np.arange(sum(sizes))
    together, _ = learned(Trial.of(pairs_of(seen), len(seen)), owners)
    trial = Trial.of(kinds.levelled(pairs_of(seen), where), len(seen))
    apart, _ = learned(trial, owners, kinds=2)
    single = Kinds.of(where[:1], np.zeros(1), seen[:1], owners[:1])
    strangers = [null(rng, sizes, scales) for _ in range(20)]
    before = np.mean([called(single, where, x, together) for x in strangers], 0)
    now = np.mean([called(kinds, where, x, apart) for x in strangers], 0)
    wide = np.repeat(np.array(scales) == max(scales), sizes)
    assert now[wide].mean() < 0.01 and now[~wide].mean() < 0.01
    if scales[1] > scales[0]:  # the law of both is that of the larger one
        assert before[wide].mean() > 0.05
    # What a copy shows beyond its own kind is seen in both.
    copies = 8 * np.repeat(scales, sizes)[:, None] * np.ones(3)
    assert called(kinds, where, copies, apart).all()


def test_neither_order_nor_a_pair_without_evidence_matters() -> None:
    kinds, where = made(3, (MANY, FEW), (0.1, 0.4))
    rng = np.random.default_rng(3)
    again, partial = embeddings(rng, (MANY, FEW)), null(rng, (MANY, FEW), (0.1, 0.4))
    points = rng.gumbel(0.2, 0.08, len(partial))
    order = np.random.default_rng(5).permutation(len(partial))
    turned = Kinds.of(again[order], points[order], partial[order], order)
    assert turned.sizes == kinds.sizes
    np.testing.assert_allclose(turned.centres, kinds.centres, atol=1e-5)
    pairs = pairs_of(partial)
    pairs["partial"][5], pairs["evidence"][6] = NO_EVIDENCE, 0.7
    found = kinds.levelled(pairs, where)
    assert (found["partial"][5] == NO_EVIDENCE).all() and found["evidence"][6] == np.float32(0.7)
    np.testing.assert_allclose(
        found["partial"], turned.levelled(pairs, where)["partial"], rtol=1e-5, atol=1e-6
    )


def test_a_few_people_are_no_kind() -> None:
    kinds, _ = made(4, (60, 5), (0.1, 0.4))
    assert len(kinds) == 1
