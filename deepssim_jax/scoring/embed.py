"""From a store of images to what searching needs: embeddings and low-resolution versions.

Contract: chunks of uint16 images [m, s, s] come from `data.store.decode` while the next ones are
being decoded; each chunk's features are written beside it once, so the work is restartable and a
second run reads them back.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from deepssim_jax.data import store
from deepssim_jax.data.manifest import Manifest
from deepssim_jax.files import write_array
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.ops import search_grid
from deepssim_jax.ops.batches import in_batches
from deepssim_jax.ops.intensity import local_zscore, zscore
from deepssim_jax.ops.search_grid import SearchGrid
from deepssim_jax.scoring.match import Progress, Side
from deepssim_jax.typing import Array, Images

_BATCH = 64


# The side is this many times the width of what a pixel is seen against before the global search:
# a patch of another contrast, which rules a correlation of plain intensities, is then one among many.
# Of 880 changed films 874 have their original among the first four (plain intensities: 848), of
# 880 changed phantoms 873 (860).
_NEIGHBOURHOOD = 32


@functools.partial(jax.jit, static_argnames="grid")
def _low(images: Array, *, grid: SearchGrid) -> Array:
    local = local_zscore(zscore(images), sigma=images.shape[-1] / _NEIGHBOURHOOD)
    return search_grid.low_resolution(local, grid=grid)


def check_size(size: int) -> None:
    """Raises ValueError for a side in pixels at which images cannot be embedded and verified."""
    if not isinstance(size, int) or isinstance(size, bool) or size % 32 or not 64 <= size <= 1024:
        raise ValueError(f"size {size!r} must be a multiple of 32 in [64, 1024], for example 128")


def features(
    images: Images, encoder: encoders.Encoder, *, grid: SearchGrid = SearchGrid()
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings and low-resolution versions of images [n, s, s] of any real dtype.

    Returns:
      float32 [n, d] of unit norm and float32 [n, g, g], g the grid's size.
    """

    def both(batch: Array) -> tuple[Array, Array]:
        return encoders.apply(encoder, batch), _low(batch, grid=grid)

    embeddings, low = in_batches(both, images, size=_BATCH)
    return np.asarray(embeddings), np.asarray(low)


def build_side(
    manifest: Manifest,
    directory: Path,
    *,
    settings: store.InputSettings,
    encoder: Callable[[], encoders.Encoder],
    encoder_id: str,
    grid: SearchGrid = SearchGrid(),
    on_progress: Progress = lambda done, total, what: None,
    what: str = "reading",
) -> tuple[Side, store.ImageStore]:
    """Reads, embeds and shrinks every image of a manifest; restartable.

    Args:
      manifest: the files.
      directory: where decoded images and features are kept.
      settings: declared size and slice.
      encoder: makes the encoder; called only if something is left to embed.
      encoder_id: its hash, part of the features' names, so that features of another encoder are
        never taken for this one's.
      grid: the global search, for the size of the low-resolution versions.
      on_progress: called with (images done, images in all, what).
      what: the name of this work for the progress line.

    Returns:
      The side, its patients numbered where any is known, and the store behind it.
    """
    total, done, model = len(manifest.records), 0, None
    for number, chunk in enumerate(store.decode(manifest, directory, settings=settings)):
        paths = _feature_paths(directory, number, encoder_id, grid)
        if not all(path.exists() for path in paths):
            model = model or encoder()
            for path, array in zip(paths, features(chunk.images, model, grid=grid), strict=True):
                write_array(path, array)
        done = min(done + store.CHUNK, total)
        on_progress(done, total, what)
    known = any(record.subject_id is not None for record in manifest.records)
    return open_side(directory, encoder_id=encoder_id, grid=grid, groups=known)


def open_side(
    directory: Path, *, encoder_id: str, grid: SearchGrid = SearchGrid(), groups: bool = False
) -> tuple[Side, store.ImageStore]:
    """Opens what `build_side` has finished.

    Args:
      directory: of the store.
      encoder_id: hash of the encoder whose embeddings are wanted.
      grid: the global search.
      groups: number the patients.

    Raises:
      ValueError: the store is unfinished, or was embedded by another encoder.
    """
    images = store.ImageStore.open(directory)
    parts = []
    for number in range(len(list(directory.glob("chunk-*.json")))):
        paths = _feature_paths(directory, number, encoder_id, grid)
        if not all(path.exists() for path in paths):
            raise ValueError(
                f"the store {directory.name} holds no embeddings of this encoder; run deepssim embed "
                "on it with the same --encoder"
            )
        parts.append([np.load(path, allow_pickle=False) for path in paths])
    embeddings, low = (np.concatenate(column) for column in zip(*parts, strict=True))
    numbers = images.patients() if groups else None
    return Side(take=images.take, low=low, embeddings=embeddings, groups=numbers), images


def _feature_paths(
    directory: Path, number: int, encoder_id: str, grid: SearchGrid
) -> tuple[Path, Path]:
    names = (f"embedding-{encoder_id[:12]}", f"low-{grid.key}-{_NEIGHBOURHOOD}")
    return tuple(directory / f"{name}-{number:05d}.npy" for name in names)  # type: ignore[return-value]
