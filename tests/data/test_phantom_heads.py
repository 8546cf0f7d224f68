"""Cheap heads: one key one person, and what is drawn is what the labels say."""

import jax
import numpy as np
import pytest

from deepssim_jax.data.phantom_heads import CT_LABELS, Heads, angiograms, ct_heads
from deepssim_jax.ops.head_labels import ct_labels, vessel_labels

SIZE = (48, 48, 48)


@pytest.fixture(scope="module")
def heads() -> dict[str, Heads]:
    return {
        "ct": ct_heads(jax.random.key(0), 4, size=SIZE),
        "angiography": angiograms(jax.random.key(0), 4, size=SIZE),
    }


@pytest.mark.parametrize("kind", ["ct", "angiography"])
def test_people_differ_and_keep_their_heads(heads: dict[str, Heads], kind: str) -> None:
    volumes = np.asarray(heads[kind].volumes)
    make = ct_heads if kind == "ct" else angiograms
    again = np.asarray(make(jax.random.key(0), 4, size=SIZE).volumes)
    np.testing.assert_array_equal(volumes, again)
    window = (-100, 200) if kind == "ct" else (0, 2)
    rows = np.clip(volumes, *window).reshape(4, -1)
    alike = np.corrcoef(rows)[~np.eye(4, dtype=bool)]
    assert 0.5 < alike.min() <= alike.max() < 0.95


def test_ct_is_in_hounsfield_units(heads: dict[str, Heads]) -> None:
    volumes, labels = np.asarray(heads["ct"].volumes), np.asarray(heads["ct"].labels)
    usual = {name: np.median(volumes[labels == i]) for i, name in enumerate(CT_LABELS)}
    assert 20 < usual["brain"] < 45 < usual["haemorrhage"] < 80 < 400 < usual["bone"]
    assert volumes[:, 0, 0, 0].max() < -900


def test_thresholds_find_what_was_drawn(heads: dict[str, Heads]) -> None:
    """Brain and bone at the rim of a voxel are anybody's; blood is whole or, where tiny, missed."""
    truth, found = np.asarray(heads["ct"].labels), ct_labels(np.asarray(heads["ct"].volumes))
    both = 2 * ((truth == 1) & (found == 1)).sum()
    assert both / ((truth == 1).sum() + (found == 1).sum()) > 0.85
    assert (found[truth == 3] == 3).mean() > 0.95
    large = max(range(4), key=lambda i: (truth[i] == 2).sum())
    both = 2 * ((truth[large] == 2) & (found[large] == 2)).sum()
    assert both / ((truth[large] == 2).sum() + (found[large] == 2).sum()) > 0.7
    truth = np.asarray(heads["angiography"].labels)
    found = vessel_labels(np.asarray(heads["angiography"].volumes))
    assert (truth[found == 1] == 1).mean() > 0.6
