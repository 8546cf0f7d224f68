"""Are training images likelier than held-out ones under what was generated?

Contract: features are float rows [n, d]. Each generated image becomes a normal distribution around
it, as wide as makes the training images likeliest: it is narrow where one of them was copied.
Jiralerspong et al., NeurIPS 2023 (Feature Likelihood Divergence), section 3.
"""

import numpy as np

from deepssim_jax.scoring.distances import squared_distances

# Of the distance to the mean of the training images, for the background, as published.
_BACKGROUND = 0.9
_SMALLEST, _LARGEST = np.exp(-40.0), np.exp(20.0)
_ROWS = 2048


def generalization_gap(
    training: np.ndarray, holdout: np.ndarray, made: np.ndarray, *, steps: int = 50
) -> float:
    """100 x (mean NLL of training - mean NLL of held-out images) / d; far below 0 is memorized.

    NLL is the negative logarithm of the density; features are z-scored by the held-out ones, and
    widths fitted by `widths`.

    Args:
      training: [n, d].
      holdout: [m, d], at least 2.
      made: [g, d] of generated images; the publication takes up to 10,000.
      steps: of the fit.
    """
    mean, deviation = holdout.mean(0), np.maximum(holdout.std(0, ddof=1), 1e-12)
    x, y, centres = ((f.astype(np.float64) - mean) / deviation for f in (training, holdout, made))
    variances = widths(x, centres, steps=steps)
    likelier = [log_density(f, centres, variances).mean() for f in (x, y)]
    return float(100 * (likelier[1] - likelier[0]) / x.shape[1])


def log_density(x: np.ndarray, centres: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Natural logarithm [n] of the density of rows [n, d] in an even mixture of normal distributions.

    Args:
      x: [n, d].
      centres: [g, d].
      variances: [g], the same along every axis.
    """
    parts = [
        np.logaddexp.reduce(_logs(squared_distances(block, centres), variances, x.shape[1]), axis=1)
        for block in _blocks(x)
    ]
    return np.concatenate(parts) - np.log(len(centres))


def widths(x: np.ndarray, centres: np.ndarray, *, steps: int = 50) -> np.ndarray:
    """Variances [g] under which rows are likeliest, centres and even weights given.

    A broad background, which leaves again, keeps rows that nothing generated resembles from widening
    all. Fitted by expectation-maximisation, whose every step makes the rows likelier; the authors
    take Adam, whose rate would be one more choice.

    Args:
      x: [n, d].
      centres: [g, d].
      steps: of the fit.
    """
    d = x.shape[1]
    nearest = np.full(len(centres), np.inf)
    for block in _blocks(x):
        nearest = np.minimum(nearest, squared_distances(block, centres).min(0))
    # One more distribution, the background, is the last; only it has the full weight.
    variances = np.append(np.clip((nearest + 1e-3) / d, _SMALLEST, _LARGEST), 1.0)
    weights = np.append(np.full(len(centres), -np.log(len(centres))), 0.0)
    far = _BACKGROUND**2 * squared_distances(x, x.mean(0, keepdims=True))
    for _ in range(steps):
        mass, spread = np.zeros(len(variances)), np.zeros(len(variances))
        for block, background in zip(_blocks(x), _blocks(far), strict=True):
            squares = np.concatenate([squared_distances(block, centres), background], axis=1)
            logs = _logs(squares, variances, d) + weights
            share = np.exp(logs - np.logaddexp.reduce(logs, axis=1, keepdims=True))
            mass += share.sum(0)
            spread += (share * squares).sum(0)
        fitted = spread / np.maximum(d * mass, np.finfo(float).tiny)
        variances = np.where(mass > 0, np.clip(fitted, _SMALLEST, _LARGEST), variances)
    return variances[:-1]


def _blocks(x: np.ndarray) -> list[np.ndarray]:
    return [x[start : start + _ROWS] for start in range(0, len(x), _ROWS)]


def _logs(squares: np.ndarray, variances: np.ndarray, d: int) -> np.ndarray:
    """Logarithms [n, g] of normal densities at these squared distances from their centres."""
    return -0.5 * (squares / variances + d * np.log(2 * np.pi * variances))
