"""What this very audit would have found: copies of its own real images, transformation by transformation.

The copies are made in memory by `data.changes`, which shares no code with what detects them, and go
through the same search, verification and thresholds as the synthetic images.
"""

from collections.abc import Callable

import numpy as np

from deepssim_jax.audit.calibration import balanced_rows, match_planted
from deepssim_jax.audit.result import PlantedRecall
from deepssim_jax.data import changes
from deepssim_jax.data.changes import Change
from deepssim_jax.nn.encoder import Encoder
from deepssim_jax.scoring import decide
from deepssim_jax.scoring.match import Progress, Proposals, Side, best_matches
from deepssim_jax.workspace import Section

_TOGETHER = "two of these together"
# Exact copies first, then locally changed ones; intensity, noise, blur and JPEG are in both lists.
_CHANGES: dict[str, Change] = {
    **changes.MOVES,
    **{k: v for k, v in changes.EXACT.items() if k in ("quantisation", "smoothing")},
}


def _two(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    for name in rng.choice(list(_CHANGES), 2, replace=False):
        image = _CHANGES[str(name)](image, rng)
    return image


CHANGES: dict[str, Change] = {**_CHANGES, _TOGETHER: _two, **changes.NEAR}


def recall_by_change(
    real: Side,
    encoder: Callable[[], Encoder],
    *,
    count: int,
    near: float,
    journal: Section,
    seed: int,
    level: float,
    proposals: Proposals,
    on_progress: Progress,
) -> tuple[PlantedRecall, ...]:
    """Plants `count` copies in all, about equally many of each change, and looks for them.

    Args:
      real: the real side; without groups every image counts as a patient of its own.
      encoder: makes the encoder, called only if copies must be embedded.
      count: copies in all.
      near: threshold of the verified score from which a pair counts as a copy.
      journal: keeps what is found, by the features of the side.
      seed: of the draw and of the strengths.
      level: coverage of the intervals.
      proposals: those of the audit's search.
      on_progress: as for `match`.

    Returns:
      For every change how many copies were called copies of their own patient, in the order of
      `CHANGES`; changes of which none was planted are left out.
    """
    real, groups = real.grouped()
    names = list(CHANGES)
    kinds = np.arange(count) % len(names)
    # One of each patient before a second of any; beyond that many, images come again.
    rows = np.resize(balanced_rows(groups, min(count, len(real)), seed=seed), count)
    planted = journal.section("planted", count, seed)

    def search() -> np.ndarray:
        copies = np.stack(
            [
                _planted(real, int(row), names[kind], [seed, number])
                for number, (row, kind) in enumerate(zip(rows, kinds, strict=True))
            ]
        )
        pairs = match_planted(copies, real, encoder(), planted, proposals, on_progress)
        best = best_matches(pairs, count)
        own = groups[best["reference"]] == groups[rows]
        return np.where(own & (best["reference"] >= 0), best["verified"], -1.0)

    found = (
        planted.step("found", [proposals, rows, groups, real.low, real.embeddings], search) >= near
    )
    out = []
    for number, name in enumerate(names):
        hits = found[kinds == number]
        if len(hits):
            share = decide.clopper_pearson(int(hits.sum()), len(hits), level=level)
            out.append(PlantedRecall(name, share, local=name in changes.NEAR))
    return tuple(out)


def _planted(real: Side, row: int, name: str, seed: list[int]) -> np.ndarray:
    """One copy, float32 [s, s]."""
    image = real.take(np.array([row]))[0].astype(np.float64)
    low, high = image.min(), image.max()
    image = (image - low) / max(high - low, 1e-9)
    return CHANGES[name](image, np.random.default_rng(seed)).astype(np.float32)
