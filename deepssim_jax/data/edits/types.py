"""What an edit is, and what it gives back.

Contract: an image is float [h, w] on [0, 1], each side from 48 to 1,024 pixels, of any aspect. A
copy is float64 [h', w'] on [0, 1]; crops, aspects and right angles change the shape. Masks are bool.
"""

import dataclasses
import enum
from collections.abc import Callable

import numpy as np

SIDES = (48, 1024)


class Group(enum.StrEnum):
    """What kind of change an edit is."""

    IDENTITY = "identity"
    ROTATION = "rotation"
    D4 = "d4"
    SHIFT = "shift"
    ZOOM = "zoom"
    CROP = "crop"
    ASPECT = "aspect"
    SHEAR = "shear"
    NOISE = "noise"
    BLUR = "blur"
    JPEG = "jpeg"
    DOWNSAMPLE = "downsample"
    GAMMA = "gamma"
    HISTOGRAM = "histogram"
    NEGATIVE = "negative"
    MARKS = "marks"
    OCCLUSION = "occlusion"
    ELASTIC = "elastic"
    BLEND = "blend"
    PART = "part"
    LESION = "lesion"
    COMBINATION = "combination"


class Label(enum.StrEnum):
    """The class of the copy: every structure corresponds, or there are local deviations."""

    EXACT = "exact_duplicate"
    NEAR = "near_duplicate"


class Relation(enum.StrEnum):
    """Whether the copy is of the image, or holds a part of it among something else."""

    SAME = "same"
    PARTIAL_COPY = "partial_copy"


@dataclasses.dataclass(frozen=True)
class Edited:
    """A copy, and where it comes from the real image.

    Attributes:
      image: float64 [h', w'] on [0, 1].
      own: bool [h', w'], the pixels of the copy that come from the real image; None where a donor
        or an opaque box took no part in it.
      source: bool [h, w], the pixels of the real image that are shown in `own`; None with it.
    """

    image: np.ndarray
    own: np.ndarray | None = None
    source: np.ndarray | None = None


Apply = Callable[[np.ndarray, np.ndarray, np.random.Generator], Edited]


@dataclasses.dataclass(frozen=True)
class Edit:
    """One way in which a copy may differ from its original.

    Attributes:
      name: unique in its list, for tables.
      group: what kind of change it is.
      strength: in the unit that the name states; None where there is nothing to vary.
      apply: image, donor and generator to the copy; `make` checks them first.
      label: the class of the copy by construction.
      relation: of the whole image, or of a part.
    """

    name: str
    group: Group
    strength: float | None
    apply: Apply
    label: Label = Label.EXACT
    relation: Relation = Relation.SAME

    def make(self, image: np.ndarray, *, donor: np.ndarray, rng: np.random.Generator) -> Edited:
        """Makes one copy.

        Args:
          image: float [h, w] on [0, 1], each side from 48 to 1,024 pixels.
          donor: the same of another patient, of any such size; blends, patches and parts use it.
          rng: of everything drawn; an equal state gives an equal copy.

        Raises:
          ValueError: an image of another shape, size or range.

        Examples:
          >>> import numpy as np
          >>> from deepssim_jax.data.edits import EDITS
          >>> image, donor = np.random.default_rng(0).random((2, 64, 48))
          >>> negative = next(edit for edit in EDITS if edit.name == "negative")
          >>> copy = negative.make(image, donor=donor, rng=np.random.default_rng(0))
          >>> bool(np.allclose(copy.image, 1 - image))
          True
        """
        edited = self.apply(_checked("image", image), _checked("donor", donor), rng)
        return dataclasses.replace(edited, image=np.clip(edited.image, 0, 1))


def _checked(name: str, image: np.ndarray) -> np.ndarray:
    low, high = SIDES
    if image.ndim != 2 or not (low <= min(image.shape) and max(image.shape) <= high):
        raise ValueError(
            f"{name} has the shape {image.shape}: it must be [h, w], each side from {low} to {high} pixels"
        )
    if not (image.min() >= 0 and image.max() <= 1):  # false for NaN, too
        raise ValueError(
            f"{name} has values from {image.min():g} to {image.max():g}: rescale it to [0, 1]"
        )
    return np.asarray(image, np.float64)
