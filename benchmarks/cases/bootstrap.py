"""Percentile intervals of a bootstrap (Efron, 1979), 95 %, of 1,000 draws."""

from collections.abc import Callable

import numpy as np


def draws(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Indices of all `count` items, and of a thousand samples of as many with replacement."""
    return [np.arange(count), *rng.integers(0, count, (1000, count))]


def bootstrapped(statistic: Callable[[np.ndarray], float], drawn: list[np.ndarray]) -> list[float]:
    """The statistic of all items and its interval, to four digits; `drawn` as `draws` gives them."""
    value, *spread = [statistic(rows) for rows in drawn]
    return [round(float(x), 4) for x in (value, *np.percentile(spread, (2.5, 97.5)))]
