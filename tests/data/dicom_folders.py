"""The images of folders of DICOM files."""

from pathlib import Path

import numpy as np

from deepssim_jax.data.manifest import Role, read_manifest
from deepssim_jax.data.readers import read_image
from deepssim_jax.data.volume import SliceSpec
from tests.data.made import (
    dicom_bytes,
)

WHOLE = None


def images(folder: Path, spec: SliceSpec | None = WHOLE) -> list[np.ndarray]:
    return [read_image(r, spec=spec) for r in read_manifest(folder, role=Role.REAL).records]


def only(folder: Path, spec: SliceSpec | None = WHOLE) -> np.ndarray:
    (image,) = images(folder, spec)
    return image


def single(folder: Path, pixels: np.ndarray, **tags: object) -> np.ndarray:
    (folder / "a.dcm").write_bytes(dicom_bytes(pixels, **tags))
    return only(folder)
