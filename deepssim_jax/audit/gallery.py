"""The pictures of flagged pairs: real, synthetic brought onto it, and their difference."""

import numpy as np

from deepssim_jax.audit.result import AuditResult, GalleryItem, Label
from deepssim_jax.data.store import ImageStore
from deepssim_jax.nn.encoder import Encoder
from deepssim_jax.nn.explain import explain_pair
from deepssim_jax.scoring.match import transform_of
from deepssim_jax.scoring.verify import align_for_display, show_from

MAX_PAIRS = 48
_ORANGE = (1.0, 0.45, 0.0)


def build_gallery(
    result: AuditResult,
    pairs: np.ndarray,
    real: ImageStore,
    synthetic: ImageStore,
    *,
    explain_by: Encoder | None = None,
) -> list[GalleryItem]:
    """Pictures of the best flagged pair of each synthetic image, most alike first.

    Args:
      result: the audit; `result.nearest` is in the order of the synthetic store.
      pairs: verified pairs of `scoring.match`.
      real: store of the real images.
      synthetic: store of the synthetic images.
      explain_by: the encoder whose view of each pair is shown as well; none if None.

    Returns:
      At most 48 items.
    """
    best = pairs[np.flatnonzero(np.diff(pairs["query"], prepend=-1))]
    labels = [result.nearest[row].label for row in best["query"]]
    best = best[np.array([label is not Label.UNRELATED for label in labels], bool)]
    best = best[np.lexsort((best["query"], -best["verified"]))][:MAX_PAIRS]
    if not len(best):
        return []
    moving, fixed = synthetic.take(best["query"]), real.take(best["reference"])
    aligned, reference = np.zeros(moving.shape, np.float32), np.zeros(moving.shape, np.float32)
    placed = best["by_points"]
    if not placed.all():
        aligned[~placed], reference[~placed] = align_for_display(moving[~placed], fixed[~placed])
    if placed.any():
        start = transform_of(best[placed])
        found = show_from(moving[placed], fixed[placed], start, best["negative"][placed])
        aligned[placed], reference[placed] = found
    heat = None
    if explain_by is not None:
        heat = explain_pair(reference, aligned, encoder=explain_by).first
    items = []
    for number, (row, moved, fixed) in enumerate(zip(best, aligned, reference, strict=True)):
        still, own, difference = shown(fixed, moved)
        items.append(
            GalleryItem(
                match=result.nearest[int(row["query"])],
                real=grey_bytes(still),
                aligned=grey_bytes(own),
                difference=difference,
                heat=() if heat is None else tuple(_heated(still, h) for h in heat[number]),
            )
        )
    return items


def shown(fixed: np.ndarray, moved: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two aligned images [h, w] in the window of the first, on [0, 1], and their difference in uint8."""
    low, high = np.percentile(fixed, [0.5, 99.5])
    scale = max(float(high - low), 1e-6)
    first, second = (np.clip((x - low) / scale, 0, 1) for x in (fixed, moved))
    difference = np.clip(0.5 + (second - first), 0, 1)
    return first, second, np.round(difference * 255 + 0.25).astype(np.uint8)


def _heated(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A grey image in [0, 1] with orange where the heat in [0, 1] is, uint8 [h, w, 3]."""
    share = 0.7 * heat[..., None]
    return grey_bytes((1 - share) * image[..., None] + share * np.array(_ORANGE))


def grey_bytes(image: np.ndarray) -> np.ndarray:
    """An image on [0, 1] as uint8."""
    return np.round(image * 255).astype(np.uint8)
