"""Folders of phantoms, whose copies are known.

Contract: an image [h, w] in [0, 1] becomes an 8-bit PNG, a volume [d, h, w] a `.npy` file. Patients are
`p0000`, `p0001` and so on, and a file is named after its patient.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from deepssim_jax.data.pictures import png
from deepssim_jax.testing.phantoms import edited, phantom_images
from deepssim_jax.workspace.files import array_bytes, write_new


@dataclasses.dataclass(frozen=True)
class PlantedCopies:
    """Two folders of phantoms, and which synthetic images are copies.

    Attributes:
      real: folder of the real images.
      synthetic: folder of the copies and of images of other phantoms.
      originals: {image id of a copy: image id of its original}.

    Examples:
      >>> import tempfile
      >>> from deepssim_jax import testing
      >>> with tempfile.TemporaryDirectory() as work:
      ...     made = testing.planted_copies(work, real=2, edits=["negative"], unrelated=1)
      ...     sorted(path.name for path in made.synthetic.iterdir())
      ['c0000.png', 'p0002.png']
      >>> made.originals
      {'c0000.png': 'p0000.png'}
    """

    real: Path
    synthetic: Path
    originals: dict[str, str]


def write_images(
    folder: str | Path, images: Sequence[np.ndarray] | np.ndarray | Mapping[str, np.ndarray]
) -> tuple[str, ...]:
    """Writes each image into a file of its own.

    Args:
      folder: made if it is not there.
      images: [n, h, w] or [n, d, h, w] in [0, 1], named by their place; or {name without suffix: image}.

    Returns:
      The names of the files, which are the image ids.

    Raises:
      ValueError: a file of such a name is there and is something else; it stays as it is.

    Examples:
      >>> import tempfile
      >>> from deepssim_jax import testing
      >>> with tempfile.TemporaryDirectory() as work:
      ...     testing.write_images(work, testing.phantom_images(2))
      ('p0000.png', 'p0001.png')
    """
    if not isinstance(images, Mapping):
        images = {f"p{number:04d}": image for number, image in enumerate(images)}
    names = {
        stem: f"{stem}{'.png' if image.ndim == 2 else '.npy'}" for stem, image in images.items()
    }
    for stem, image in images.items():
        content = png(image) if image.ndim == 2 else array_bytes(image)
        write_new(Path(folder) / names[stem], content)
    return tuple(names.values())


def planted_copies(
    folder: str | Path,
    *,
    real: int,
    edits: Sequence[str],
    unrelated: int = 0,
    size: tuple[int, int] = (96, 96),
    seed: int = 0,
) -> PlantedCopies:
    """Writes `real/` and `synthetic/`, where some synthetic images are copies of real ones.

    Args:
      folder: made if it is not there.
      real: images of the real side, one of each patient.
      edits: what is done to each copy, see `edited`; copy i is of patient i.
      unrelated: synthetic images of other phantoms.
      size: (height, width).
      seed: of everything that is drawn.

    Raises:
      ValueError: more copies than patients, or an argument out of range.

    Examples:
      >>> import tempfile
      >>> from deepssim_jax import testing
      >>> edits = ["rotation 5 degrees", "gamma 0.6"]
      >>> with tempfile.TemporaryDirectory() as work:
      ...     made = testing.planted_copies(work, real=3, edits=edits)
      ...     len(list(made.real.iterdir())), list(made.originals)
      (3, ['c0000.png', 'c0001.png'])
    """
    if len(edits) > real:
        raise ValueError(
            f"edits are {len(edits)} copies of {real} real images: give at most {real}"
        )
    folder = Path(folder)
    images = phantom_images(real + unrelated, size=size, seed=seed)
    own = write_images(folder / "real", images[:real])
    synthetic = {
        f"c{number:04d}": edited(images[number], edit, donor=images[number - 1], seed=seed)
        for number, edit in enumerate(edits)
    }
    copies = dict(zip((f"{stem}.png" for stem in synthetic), own, strict=False))
    synthetic |= {f"p{number:04d}": images[number] for number in range(real, len(images))}
    write_images(folder / "synthetic", synthetic)
    return PlantedCopies(folder / "real", folder / "synthetic", copies)
