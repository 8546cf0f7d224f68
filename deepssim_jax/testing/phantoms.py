"""Images and volumes of nobody, and copies of them.

Contract: images are float32 [n, h, w] and volumes float32 [n, d, h, w], both in [0, 1], on the host.
Number i depends on the seed and i alone.
"""

import difflib
from collections.abc import Callable

import jax
import numpy as np

from deepssim_jax.data.edits import EDITS
from deepssim_jax.data.phantom_heads import angiograms
from deepssim_jax.data.phantom_textures import textures
from deepssim_jax.ops import arguments
from deepssim_jax.typing import Array

_AT_ONCE = 8  # one program for any count
_EDITS = {edit.name: edit for edit in EDITS}


def phantom_images(count: int, *, size: tuple[int, int] = (96, 96), seed: int = 0) -> np.ndarray:
    """Textured images, each of another phantom.

    Args:
      count: how many.
      size: (height, width).
      seed: of everything that is drawn.

    Returns:
      [count, h, w].

    Raises:
      ValueError: an argument out of range.

    Examples:
      >>> from deepssim_jax import testing
      >>> images = testing.phantom_images(3)
      >>> images.shape, bool((images[:2] == testing.phantom_images(2)).all())
      ((3, 96, 96), True)
    """
    for name, side in zip(("height", "width"), size, strict=True):
        arguments.whole(side, name, least=1)
    return _blocks(count, seed, lambda key: textures(key, _AT_ONCE, size=(size[0], size[1])))


def phantom_volumes(count: int, *, size: int = 32, seed: int = 0) -> np.ndarray:
    """Angiograms of heads, each of another phantom.

    Args:
      count: how many.
      size: voxels along each axis.
      seed: of everything that is drawn.

    Returns:
      [count, size, size, size].

    Raises:
      ValueError: an argument out of range.

    Examples:
      >>> from deepssim_jax import testing
      >>> testing.phantom_volumes(2).shape
      (2, 32, 32, 32)
    """
    arguments.whole(size, "size", least=1)
    return _blocks(count, seed, lambda key: angiograms(key, _AT_ONCE, size=(size,) * 3).volumes)


def _blocks(count: int, seed: int, make: Callable[[Array], Array]) -> np.ndarray:
    """Whole blocks are made, so that the number of images changes none of them."""
    arguments.whole(count, "count", least=1)
    key = jax.random.key(arguments.seed(seed, "seed"))
    blocks = [
        np.asarray(make(jax.random.fold_in(key, start))) for start in range(0, count, _AT_ONCE)
    ]
    return np.concatenate(blocks)[:count].clip(0, 1)


def edited(
    image: np.ndarray, edit: str, *, donor: np.ndarray | None = None, seed: int = 0
) -> np.ndarray:
    """A copy of an image, changed as `deepssim stress` changes images.

    Args:
      image: [h, w] in [0, 1], each side from 48 to 1,024 pixels.
      edit: name of the change, for example "rotation 15 degrees" or "gamma 0.6".
      donor: another patient's image, for changes that mix two; the image mirrored if None.
      seed: of everything that is drawn.

    Returns:
      float64 [h', w'] in [0, 1]; some changes alter the shape.

    Raises:
      ValueError: an unknown change, or an image of another shape, size or range.

    Examples:
      >>> import numpy as np
      >>> from deepssim_jax import testing
      >>> image = testing.phantom_images(1)[0]
      >>> bool(np.allclose(testing.edited(image, "negative"), 1 - image))
      True
    """
    if edit not in _EDITS:
        near = difflib.get_close_matches(edit, _EDITS, n=1) or ["identity"]
        raise ValueError(f"edit {edit!r} is not known; did you mean {near[0]!r}?")
    rng = np.random.default_rng(arguments.seed(seed, "seed"))
    donor = image[:, ::-1] if donor is None else donor
    return _EDITS[edit].make(image, donor=donor, rng=rng).image
