"""Local changes that training pairs are made by: they stay in place, and reach from small to gross."""

import jax
import numpy as np
import pytest

import deepssim_jax as ds
from deepssim_jax.data.phantom_chests import chests
from deepssim_jax.ops.intensity import zscore
from deepssim_jax.training import pairs

N = 64
altered, bent, mixed = map(jax.jit, (pairs.altered, pairs.bent, pairs.mixed))


@pytest.fixture(scope="module")
def films() -> np.ndarray:
    return np.asarray(zscore(chests(jax.random.key(5), N, size=(64, 64))))


@pytest.fixture(scope="module")
def changed(films: np.ndarray) -> np.ndarray:
    return np.asarray(altered(jax.random.key(6), films))


def test_alterations_are_local(films: np.ndarray, changed: np.ndarray) -> None:
    untouched = (np.abs(changed - films) < 0.02).mean((1, 2))
    assert changed.shape == films.shape and np.isfinite(changed).all()
    assert (untouched > 0.9).sum() > N // 10 and (untouched < 0.5).sum() > N // 10


def test_every_kind_of_alteration_occurs(films: np.ndarray, changed: np.ndarray) -> None:
    """Where a region is strongest: another sign of contrast, less detail, another level."""
    difference = changed - films
    moved = np.abs(difference).max((1, 2)) > 0.3
    slopes = np.array([np.polyfit(x.ravel(), y.ravel(), 1)[0] for x, y in zip(films, changed)])
    detail = np.array(
        [np.abs(np.diff(y)).sum() / np.abs(np.diff(x)).sum() for x, y in zip(films, changed)]
    )
    shift = difference.mean((1, 2))
    assert (slopes[moved] < 0.5).any()  # turned round
    assert (detail[moved & (slopes > 0.6)] < 0.9).any()  # smooth
    assert (shift[moved] > 0.2).any() and (shift[moved] < -0.2).any()  # lighter, darker


@pytest.mark.parametrize("way", ["altered", "mixed", "bent"])
def test_similarity_takes_every_value(films: np.ndarray, way: str) -> None:
    key = jax.random.key(7)
    ways = {
        "altered": lambda: altered(key, films),
        "mixed": lambda: mixed(key, films, np.roll(films, 1, axis=0)),
        "bent": lambda: bent(key, films),
    }
    found = np.asarray(ds.ssim(films, zscore(ways[way]()), data_range="first", reduction="none"))
    assert found.max() > 0.95 and found.min() < 0.7
    assert len(np.unique(np.floor(10 * np.clip(found, 0, 0.99)))) >= 4
