"""Axial slices of the real brains at hand, as arrays and as pictures.

    python benchmarks/cases/brains.py --data=../shared/data --out=/tmp/brain_slices

writes PATIENT_CONTRAST_NUMBER.png, whose patient `--subject_regex='^(patient[0-9]+)_'` reads.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import nibabel
import numpy as np
from absl import app, flags
from PIL import Image

from deepssim_jax.data.preprocess import fit_to_size

_EACH = 16


def brain_slices(data: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Sixteen axial slices of every volume with their names, float64 [256, 256] on [0, 1]."""
    for path in sorted((data / "brain3d").glob("[mr]*/*.nii.gz")):
        image = nibabel.as_closest_canonical(nibabel.load(path))
        volume = np.asarray(image.dataobj, np.float32)
        places = np.linspace(0.3 * volume.shape[2], 0.75 * volume.shape[2], _EACH).astype(int)
        for number, z in enumerate(places):
            flat = fit_to_size(np.rot90(volume[:, :, z]), size=(256, 256)).astype(np.float64)
            low, high = np.percentile(flat, (0, 99.9))
            name = f"{path.name.removesuffix('.nii.gz')}_{number:02d}"
            yield name, np.clip((flat - low) / (high - low), 0, 1)


def main(_: list[str]) -> None:
    out = Path(flags.FLAGS.out)
    out.mkdir(parents=True, exist_ok=True)
    for name, image in brain_slices(Path(flags.FLAGS.data)):
        Image.fromarray(np.round(65535 * image).astype(np.uint16)).save(out / f"{name}.png")


if __name__ == "__main__":
    flags.DEFINE_string("data", None, "folder with brain3d/", required=True)
    flags.DEFINE_string("out", None, "folder for the pictures", required=True)
    app.run(main)
