"""Volumes: orientation by the affine, and the slice that 2D work looks at.

Contract: after `oriented`, a volume's axes run inferior to superior, anterior to posterior, and
from the patient's right to left on the screen's left to right (radiological display): an axial
slice shows the front on top and the patient's right side at the left.
"""

import dataclasses

import numpy as np

_PLANES = {"axial": 0, "coronal": 1, "sagittal": 2}


class Unreadable(Exception):
    """A file cannot be used; the message is the reason, in one line, without its path."""


class Unavailable(Unreadable):
    """The reason is the machine's state, not the file: another run may read it, so this is kept nowhere."""


# Refusals that another run may not meet.
PASSING = (Unavailable, OSError, MemoryError)


def reason_of(error: Unreadable | OSError | MemoryError) -> str:
    """Why a file was not read, in one line, without its path."""
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or type(error).__name__}"
    return str(error)


@dataclasses.dataclass(frozen=True)
class SliceSpec:
    """Which slice of an oriented volume: `axis`, and a fraction of it (float) or an index (int)."""

    axis: int
    place: float | int

    @classmethod
    def parse(cls, text: str) -> "SliceSpec":
        """Reads "axial:0.5", "coronal:0.4" or "sagittal:12".

        Raises:
          ValueError: with what may stand there.
        """
        plane, _, place = str(text).partition(":")
        wrong = (
            f"slice {text!r} must be PLANE:PLACE, PLANE one of {', '.join(_PLANES)}, PLACE a fraction "
            "from 0 to 1 such as 0.5, or a slice number such as 90"
        )
        if plane not in _PLANES:
            raise ValueError(wrong)
        try:
            if "." in place:
                fraction = float(place)
                if not 0 <= fraction <= 1:
                    raise ValueError(wrong)
                return cls(_PLANES[plane], fraction)
            index = int(place)
        except ValueError:
            raise ValueError(wrong) from None
        if index < 0:
            raise ValueError(wrong)
        return cls(_PLANES[plane], index)

    def take(self, volume: np.ndarray) -> np.ndarray:
        """The slice [a, b] of an oriented volume [d, h, w].

        Raises:
          Unreadable: the index lies outside.
        """
        size = volume.shape[self.axis]
        fractional = isinstance(self.place, float)
        index = int(round(self.place * (size - 1))) if fractional else int(self.place)
        if index >= size:
            raise Unreadable(f"has {size} slices in this plane, and slice {index} was asked for")
        # Coronal and sagittal slices are shown with the head up.
        chosen = np.take(volume, index, axis=self.axis)
        return chosen if self.axis == 0 else chosen[::-1]


def oriented(volume: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Permutes and flips a volume by its affine.

    Args:
      volume: [i, j, k] in the file's order.
      affine: 4 x 4, index to RAS millimetres.

    Returns:
      The volume as the module says and the spacing (mm) of its axes [3].
    """
    linear = np.asarray(affine, float)[:3, :3]
    spacing = np.linalg.norm(linear, axis=0)
    if not np.isfinite(linear).all() or (spacing < 1e-9).any():
        raise Unreadable("its affine is singular, so that its orientation is unknown")
    directions = linear / spacing
    # Greedy assignment of the file's axes to x (right), y (front), z (up), strongest first.
    order, signs = [-1, -1, -1], [1.0, 1.0, 1.0]
    strength = np.abs(directions)
    for _ in range(3):
        world, axis = np.unravel_index(np.argmax(strength), (3, 3))
        order[world], signs[world] = int(axis), float(np.sign(directions[world, axis]))
        strength[world, :], strength[:, axis] = -1, -1
    out = np.transpose(volume, (order[2], order[1], order[0]))
    # Wanted: z upwards, y from front to back, x from right to left.
    for axis, sign in ((0, signs[2]), (1, -signs[1]), (2, -signs[0])):
        if sign < 0:
            out = np.flip(out, axis)
    return np.ascontiguousarray(out), spacing[[order[2], order[1], order[0]]]
