"""Which pairs of a finished job a review shows, and how large."""

import numpy as np
import pytest

from deepssim_jax.data.store import InputSettings
from deepssim_jax.jobs.review import sample
from deepssim_jax.jobs.review_images import picture_side
from deepssim_jax.jobs.review_source import Job, ReviewPair, ReviewSource
from deepssim_jax.scoring.match import Moved


def source(**strata: int) -> ReviewSource:
    pairs = [
        ReviewPair(stratum, f"{stratum}{i}", "r", Moved(), 0.0, ())
        for stratum, count in strata.items()
        for i in range(count)
    ]
    return ReviewSource(
        job=Job.AUDIT,
        names=("synthetic", "real"),
        pairs=tuple(pairs),
        moving={},
        fixed={},
        form=InputSettings(),
        rate={},
        copies=frozenset({"exact_duplicate", "near_duplicate"}),
    )


@pytest.mark.parametrize(
    ("strata", "wanted"),
    [
        ({"exact_duplicate": 30, "unrelated": 70}, {"exact_duplicate": 30, "unrelated": 70}),
        ({"exact_duplicate": 500, "unrelated": 500}, {"exact_duplicate": 100, "unrelated": 100}),
        ({"exact_duplicate": 10, "unrelated": 990}, {"exact_duplicate": 10, "unrelated": 190}),
        ({"exact_duplicate": 990, "unrelated": 10}, {"exact_duplicate": 190, "unrelated": 10}),
        (
            {"exact_duplicate": 300, "near_duplicate": 100, "unrelated": 600},
            {"exact_duplicate": 75, "near_duplicate": 25, "unrelated": 100},
        ),
        ({"unrelated": 600}, {"unrelated": 200}),
    ],
)
def test_the_sample_is_of_every_label(strata: dict[str, int], wanted: dict[str, int]) -> None:
    found = [
        pair.stratum for pair in sample(source(**strata), count=200, rng=np.random.default_rng(0))
    ]
    assert {name: found.count(name) for name in set(found)} == wanted


def test_each_pair_of_a_stratum_is_equally_likely() -> None:
    counts = np.zeros(20)
    for seed in range(400):
        rng = np.random.default_rng(seed)
        for pair in sample(source(unrelated=20), count=5, rng=rng):
            counts[int(pair.moving.removeprefix("unrelated"))] += 1
    # Binomial of 400 draws at 1/4: standard deviation 8.7.
    assert abs(counts - 100).max() < 4 * 8.7


@pytest.mark.parametrize(
    ("pairs", "side"), [(1, 256), (288, 256), (289, 192), (500, 192), (1000, 128)]
)
def test_pictures_are_as_large_as_the_page_may_be(pairs: int, side: int) -> None:
    assert picture_side(pairs) == side
    assert pairs * 2 * side**2 * 4 / 3 <= 48 * 2**20
