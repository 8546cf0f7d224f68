"""The figure of `explain/how_found.md`: a copy by each group of edits, and the points that give it away.

    python docs/_ext/found_figure.py     writes docs/explain/how_found.png

The real images are chest phantoms. Of each group of edits the middle one makes a copy; the copy is looked for
among them, and a line joins the points that agree under the transformation that was found.
"""

from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

from deepssim_jax.data.edits import EDITS, Edit, Group
from deepssim_jax.data.phantom_chests import chests
from deepssim_jax.data.preprocess import fit_to_canvas
from deepssim_jax.jobs.review_pictures import Fields, PairView, views
from deepssim_jax.ops.transform import FLIP_NAMES, FLIP_SIGNS
from deepssim_jax.scoring.match import Moved
from deepssim_jax.scoring.points import SIDE, LocalIndex

OUT = Path(__file__).resolve().parents[1] / "explain" / "how_found.png"
_REAL, _COPIED, _COLUMNS = 40, 3, 4


def fields(images: list[np.ndarray]) -> Fields:
    """As a review reads images, each on a square canvas."""
    fitted = [fit_to_canvas(image.astype(np.float32), side=SIDE) for image in images]
    canvases = np.round(np.stack([canvas for canvas, _ in fitted]) * 65535).astype(np.uint16)
    return Fields(canvases, canvases, np.array([content for _, content in fitted]))


def chosen() -> list[Edit]:
    """The middle edit of each group."""
    groups = [[edit for edit in EDITS if edit.group is group] for group in Group]
    return [edits[(len(edits) - 1) // 2] for edits in groups if edits]


def main() -> None:
    """Makes the copies, looks for them and draws what was found."""
    drawn = np.asarray(chests(jax.random.key(4), _REAL + 1, size=(SIDE, SIDE)), np.float64)
    real, donor = list(drawn[:_REAL]), drawn[_REAL]
    edits = chosen()
    copies = [
        edit.make(real[_COPIED], donor=donor, rng=np.random.default_rng(i)).image
        for i, edit in enumerate(edits)
    ]
    moving, fixed = fields(copies), fields(real)
    found = LocalIndex.build(fixed.points(), np.arange(_REAL)).search(moving.points())
    placed = [
        Moved(
            flip=FLIP_NAMES[int(found.flip[i, 0])],
            matrix=tuple(float(x) for x in found.matrix[i, 0].ravel()),
            shift_y=float(found.shift[i, 0, 0] * SIDE),
            shift_x=float(found.shift[i, 0, 1] * SIDE),
            negative=bool(found.negative[i, 0]),
        )
        for i in range(len(edits))
    ]
    rows = found.reference[:, 0]
    beside = Fields(fixed.pixels[rows], fixed.canvases[rows], fixed.content[rows])
    shown = views(moving, beside, placed, declared=SIDE)
    height = -(-len(edits) // _COLUMNS)
    figure, axes = plt.subplots(height, _COLUMNS, figsize=(4 * _COLUMNS, 2.35 * height), dpi=90)
    for axis in axes.flat:
        axis.axis("off")
    for i, (axis, edit, copy, row, view) in enumerate(
        zip(axes.flat, edits, moving.pixels, rows, shown, strict=False)
    ):
        axis.imshow(np.concatenate([copy, fixed.pixels[row]], 1), cmap="gray")
        # Where a point of the real image went, drawn in the copy itself.
        for there, here in zip(view.fixed_points * SIDE, in_copy(view, placed[i])):
            axis.plot([here[1], there[1] + SIDE], [here[0], there[0]], color="#4ad", lw=0.6)
            axis.plot([here[1], there[1] + SIDE], [here[0], there[0]], "o", color="#fb3", ms=2)
        right = "" if row == _COPIED else " (another image)"
        axis.set_title(f"{edit.name}{right}", fontsize=9)
    figure.tight_layout()
    figure.savefig(OUT)


def in_copy(view: PairView, how: Moved) -> np.ndarray:
    """Points of a view, which are brought onto the real image, back in the copy: pixels [n, 2]."""
    sign = FLIP_SIGNS[FLIP_NAMES.index(how.flip)]
    matrix = np.array(how.matrix).reshape(2, 2)
    shift = np.array([how.shift_y, how.shift_x])
    return ((view.moving_points - 0.5) * SIDE @ matrix.T + shift) * sign + SIDE / 2


if __name__ == "__main__":
    main()
