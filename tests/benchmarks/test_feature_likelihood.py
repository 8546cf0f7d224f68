"""The mixture around generated images against SciPy's densities and optimiser, and what it tells."""

import numpy as np
import pytest
from scipy import optimize, stats

from benchmarks.methods import feature_likelihood
from benchmarks.methods.feature_likelihood import generalization_gap, log_density, widths


def test_density_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    x, centres, variances = rng.normal(size=(9, 3)), rng.normal(size=(4, 3)), np.arange(1, 5) / 3
    wanted = np.mean(
        [stats.multivariate_normal(c, v).pdf(x) for c, v in zip(centres, variances, strict=True)], 0
    )
    np.testing.assert_allclose(log_density(x, centres, variances), np.log(wanted), rtol=1e-10)


def test_no_other_widths_make_the_rows_likelier(monkeypatch: pytest.MonkeyPatch) -> None:
    """SciPy's optimiser, which knows the objective alone, ends at the same widths."""
    rng = np.random.default_rng(1)
    x, centres = rng.normal(size=(60, 2)), rng.normal(size=(3, 2))
    monkeypatch.setattr(feature_likelihood, "_ROWS", 16)  # several blocks, the last one shorter
    found = widths(x, centres, steps=2000)

    def nll(logs: np.ndarray) -> float:
        away = 0.9 * np.linalg.norm(x - x.mean(0), axis=1)
        background = np.exp(-(away**2) / 2 / np.exp(logs[-1])) / (2 * np.pi * np.exp(logs[-1]))
        each = [
            stats.multivariate_normal(c, np.exp(v)).pdf(x) / 3
            for c, v in zip(centres, logs[:-1], strict=True)
        ]
        return -np.log(np.sum([*each, background], 0)).mean()

    start = np.append(np.log(found) + 0.4, 0.0)  # not at the answer
    best = optimize.minimize(nll, start, method="Nelder-Mead", options={"maxiter": 4000})
    np.testing.assert_allclose(np.exp(best.x[:-1]), found, rtol=0.02)


def test_copies_show_in_the_gap_and_new_images_do_not() -> None:
    rng = np.random.default_rng(2)
    training, holdout, new = (rng.normal(size=(300, 8)) for _ in range(3))
    copied = training[:150] + 0.01 * rng.normal(size=(150, 8))
    assert abs(generalization_gap(training, holdout, new)) < 5
    half = generalization_gap(training, holdout, np.concatenate([copied, new[:150]]))
    whole = generalization_gap(training, holdout, training + 0.01 * rng.normal(size=(300, 8)))
    assert whole < half < -50
    # Units of the features do not matter, nor does the order of rows.
    assert generalization_gap(
        7 * training[::-1] + 3, 7 * holdout + 3, 7 * new + 3
    ) == pytest.approx(generalization_gap(training, holdout, new), rel=1e-6)
