"""The table of generated images, `manifest.csv`, as it goes where the images go."""

import dataclasses
from collections.abc import Iterable, Sequence

from deepssim_jax.data.pictures import ImageFormat
from deepssim_jax.workspace.files import csv_bytes

MANIFEST = "manifest.csv"


@dataclasses.dataclass(frozen=True)
class Planned:
    """One image to make: its number, the row of `records` that conditions it, and its file."""

    index: int
    record: int
    name: str


def manifest_csv(
    planned: Sequence[Planned], seed: int, weights: str, *, conditioned: bool
) -> bytes:
    """One row an image; `conditioned` if the model was given the condition of a training image.

    It has the numbers of training images, not their names: this file goes where the images go.
    """
    return _manifest(
        [one.name, seed, one.index, f"record {one.record}" if conditioned else "", weights]
        for one in planned
    )


def manifest_to_share(planned: Sequence[Planned], seed: int, weights: str) -> bytes:
    """That of images that were screened.

    Numbers of candidates, and the records that follow from these, would count those that were refused.
    """
    return _manifest([one.name, seed, "", "", weights] for one in planned)


def _manifest(rows: Iterable[Sequence[object]]) -> bytes:
    out: list[list[object]] = [["path", "image_id", "seed", "index", "condition", "weights"]]
    for path, *rest in rows:
        name = str(path)
        for image_format in ImageFormat:
            name = name.removesuffix(image_format.suffix)
        out.append([path, name.replace("/", "___"), *rest])
    return csv_bytes(out)
