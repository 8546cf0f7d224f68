"""Patients drawn from a folder of real images, for studies that need so many and no more."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from deepssim_jax.data.manifest import Role, read_manifest
from deepssim_jax.workspace.files import csv_bytes, write_bytes


def copy_one_image_each(
    source: Path, folder: Path, *, people: int, subject_regex: str | None
) -> None:
    """Copies the first image of each of `people` patients into a folder; seed 0 draws them.

    Raises:
      ValueError: there are fewer patients.
      InputError: of `read_manifest`.
    """
    found = read_manifest(source, role=Role.REAL, subject_regex=subject_regex)
    firsts = {record.subject_id: record.path for record in reversed(found.records)}
    if len(firsts) < people:
        raise ValueError(f"--real holds {len(firsts)} patients, and {people} are needed")
    paths = sorted(firsts.values())
    folder.mkdir(parents=True, exist_ok=True)
    for index in np.random.default_rng(0).permutation(len(paths))[:people]:
        shutil.copyfile(paths[index], folder / paths[index].name)


def write_manifest(path: Path, rows: Iterable[tuple[str, str, str]]) -> Path:
    """A list of images: path beside the list, name and patient of each."""
    write_bytes(path, csv_bytes([("path", "image_id", "subject_id"), *rows]))
    return path
