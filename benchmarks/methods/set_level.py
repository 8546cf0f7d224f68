"""What the field says of a whole set: memorization scores that judge no single image.

Contract: `distances` are float [n_synthetic, k] to the k nearest training images, nearest first, or
[n] to the nearest one alone; similarities likewise. None of these figures comes with an error rate:
they stand beside an audit, they do not replace it.
"""

import dataclasses

import numpy as np
from scipy import linalg, stats

from benchmarks.methods.feature_likelihood import generalization_gap
from deepssim_jax.scoring.decide import Proportion, clopper_pearson
from deepssim_jax.scoring.pairs import nearest

# Training images that an image's nearest one is compared with (Carlini et al.), and kept for UMS.
_NEIGHBOURS = 50
# Generated and held-out images that a cell of C_T needs of each.
_FEWEST = 20


def average_memorization(similarity: np.ndarray, *, low: float, high: float) -> float:
    """AMS: share of synthetic images whose best similarity lies in [low, high] (arXiv 2410.02467).

    Args:
      similarity: [n], best similarity of each synthetic image.
      low: of the band.
      high: of the band.
    """
    best = np.asarray(similarity)
    return float(((best >= low) & (best <= high)).mean())


def unique_memorization(
    pairs: np.ndarray, similarity: np.ndarray, *, low: float, high: float, generated: int
) -> float:
    """UMS: distinct training images with a similarity in [low, high], by images generated.

    Grows with the number of generated images: only compare equal ones (arXiv 2410.02467).

    Args:
      pairs: int [p], the training row of each pair.
      similarity: [p].
      low: of the band.
      high: of the band.
      generated: synthetic images.
    """
    inside = (np.asarray(similarity) >= low) & (np.asarray(similarity) <= high)
    return len(np.unique(np.asarray(pairs)[inside])) / generated


def extraction_ratio(distances: np.ndarray, *, alpha: float = 0.5) -> np.ndarray:
    """Nearest distance over alpha times the mean of the n nearest (Carlini et al., arXiv 2301.13188).

    Small values are extracted images: far nearer to one image than to that one's neighbours.

    Args:
      distances: [n_synthetic, n] to the n nearest training images; the paper has n = 50.
      alpha: the paper has 0.5.

    Returns:
      [n_synthetic].
    """
    mean = np.asarray(distances).mean(1)
    return distances[:, 0] / np.maximum(alpha * mean, 1e-12)


def authenticity(nearest_real: np.ndarray, real_spacing: np.ndarray, row: np.ndarray) -> float:
    """Share of authentic images: farther from their nearest real image than that one's own neighbour.

    An image j with nearest real image i is authentic if d(i, nearest other real) < d(i, j) (Alaa et
    al., ICML 2022, section 4). Widely used code indexes the real side with synthetic rows instead.

    Args:
      nearest_real: [n_synthetic] distance to the nearest real image.
      real_spacing: [n_real] distance of each real image to the nearest other real one.
      row: int [n_synthetic], which real image is the nearest.
    """
    return float((np.asarray(real_spacing)[row] < np.asarray(nearest_real)).mean())


def data_copying(
    synthetic: np.ndarray,
    holdout: np.ndarray,
    *,
    synthetic_cells: np.ndarray,
    holdout_cells: np.ndarray,
    fewest: int = _FEWEST,
) -> float:
    """C_T: z-scored Mann-Whitney statistic of distances to training, cell by cell (Meehan et al.,
    AISTATS 2020, section 3). Far below 0: generated images lie nearer than held-out ones.

    Args:
      synthetic: [n] distances to training of generated images.
      holdout: [m] of held-out ones.
      synthetic_cells: int [n], cell of a partition of the space.
      holdout_cells: int [m].
      fewest: cells with fewer of either are left out.

    Raises:
      ValueError: no cell has enough of both.
    """
    total, weight = 0.0, 0
    for cell in np.unique(holdout_cells):
        a, b = synthetic[synthetic_cells == cell], holdout[holdout_cells == cell]
        if min(len(a), len(b)) < fewest:
            continue
        ranks = stats.rankdata(np.concatenate([a, b]))
        u = ranks[: len(a)].sum() - len(a) * (len(a) + 1) / 2
        mean = len(a) * len(b) / 2
        deviation = np.sqrt(mean * (len(a) + len(b) + 1) / 6)
        total += len(b) * (u - mean) / deviation
        weight += len(b)
    if not weight:
        raise ValueError(
            f"no cell holds {fewest} generated and {fewest} held-out images; use fewer cells"
        )
    return float(total / weight)


@dataclasses.dataclass(frozen=True)
class TrainingShare:
    """Share of synthetic images nearer to training than to held-out images; without copying 0.5.

    Ties count half in `share.value`; its interval is that of the counts without them.
    """

    share: Proportion
    ties: int


def training_share(
    to_training: np.ndarray, to_holdout: np.ndarray, *, level: float = 0.95
) -> TrainingShare:
    """Distances to closest record, training against held-out images of equal number.

    Args:
      to_training: [n] distance of each synthetic image to the nearest training image.
      to_holdout: [n] to the nearest held-out image, of a set of equal size.
      level: coverage of the interval.
    """
    nearer, ties = to_training < to_holdout, to_training == to_holdout
    known = int((~ties).sum())
    share = clopper_pearson(int(nearer.sum()), known, level=level)
    value = float((nearer + 0.5 * ties).mean())
    return TrainingShare(dataclasses.replace(share, value=value), int(ties.sum()))


@dataclasses.dataclass(frozen=True)
class SetFigures:
    """Every figure of this module for one set, of one kind of features.

    AMS and UMS count from `threshold` on: 95 % of held-out images have a lower best similarity. For
    C_T all images are one cell. The lowest extraction ratio is that of the likeliest extracted image.
    """

    threshold: float
    average_memorization: float
    unique_memorization: float
    lowest_extraction_ratio: float
    authenticity: float
    data_copying: float | None
    training_share: Proportion
    generalization_gap: float


def set_figures(training: np.ndarray, holdout: np.ndarray, made: np.ndarray) -> SetFigures:
    """What the field says of a set of generated images.

    Args:
      training: unit rows [n, d], for example embeddings; n >= 2.
      holdout: unit rows [m, d] of images that were not trained on, m >= 2.
      made: unit rows [g, d]. With fewer than 20 of these or of held-out ones `data_copying` is None.
    """
    kept = min(_NEIGHBOURS, len(training))
    found, spacing, control = (
        nearest(rows, training, k=k) for rows, k in ((made, kept), (training, 2), (holdout, 1))
    )
    threshold = float(np.quantile(control.scores[:, 0], 0.95))
    # Sets of equal size, or the larger one would be the nearer one.
    count = min(len(training), len(holdout))
    rng = np.random.default_rng(0)
    equal = [rows[rng.permutation(len(rows))[:count]] for rows in (training, holdout)]
    near = [_distance(nearest(made, rows, k=1).scores[:, 0]) for rows in equal]
    away = _distance(found.scores)
    one_cell = [np.zeros(len(rows), int) for rows in (made, holdout)]
    enough = min(len(made), len(holdout)) >= _FEWEST
    return SetFigures(
        threshold=threshold,
        average_memorization=average_memorization(found.scores[:, 0], low=threshold, high=np.inf),
        unique_memorization=unique_memorization(
            found.indices.ravel(),
            found.scores.ravel(),
            low=threshold,
            high=np.inf,
            generated=len(made),
        ),
        lowest_extraction_ratio=float(extraction_ratio(away).min()),
        authenticity=authenticity(away[:, 0], _distance(spacing.scores[:, 1]), found.indices[:, 0]),
        data_copying=data_copying(
            away[:, 0],
            _distance(control.scores[:, 0]),
            synthetic_cells=one_cell[0],
            holdout_cells=one_cell[1],
        )
        if enough
        else None,
        training_share=training_share(near[0], near[1]).share,
        generalization_gap=generalization_gap(training, holdout, made),
    )


def _distance(cosine: np.ndarray) -> np.ndarray:
    """Euclidean distance of unit vectors."""
    return np.sqrt(np.maximum(2 - 2 * cosine.astype(np.float64), 0.0))


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Distance of two normal distributions fitted to rows of features (Heusel et al., NeurIPS 2017,
    eq. 6).
    """
    mean = ((a.mean(0) - b.mean(0)) ** 2).sum()
    one, other = np.cov(a.T), np.cov(b.T)
    root = linalg.sqrtm(one @ other)
    return float(mean + np.trace(one + other - 2 * np.real(root)))
