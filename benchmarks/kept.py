"""What benchmarks keep between runs, each in a workspace of its own folder."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deepssim_jax.data import pipelines
from deepssim_jax.data.pictures import png
from deepssim_jax.data.store import ImageStore
from deepssim_jax.workspace import Section, Workspace
from deepssim_jax.workspace.files import write_bytes

COMMAND = "benchmark"


@contextlib.contextmanager
def journal(folder: Path) -> Iterator[Section]:
    """Keeps the finished blocks of a search."""
    with Workspace.open(folder, command=COMMAND) as workspace:
        yield workspace.section("search")


def open_images(
    source: Path | str, folder: Path, *, size: tuple[int, int], subject_regex: str | None = None
) -> ImageStore:
    """`pipelines.open_images` into a workspace of this folder."""
    with Workspace.open(folder, command=COMMAND) as workspace:
        return pipelines.open_images(source, workspace, size=size, subject_regex=subject_regex)


def write_png(path: Path, image: np.ndarray) -> None:
    """Writes an image [h, w] of values in [0, 1] as an 8-bit PNG."""
    write_bytes(path, png(image))
