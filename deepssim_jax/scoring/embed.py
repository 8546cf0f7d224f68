"""From a store of images to what searching needs: embeddings and low-resolution versions.

Contract: chunks of uint16 images [m, s, s] come from `data.store` while the next ones are being
decoded; features are kept by the content of the images, so the work is restartable, and a second run
makes those of new images alone.
"""

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from deepssim_jax.data import store
from deepssim_jax.data.account import Growth
from deepssim_jax.data.manifest import Manifest, Rejected
from deepssim_jax.data.preprocess import fit_to_size, quantize
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.ops import search_grid
from deepssim_jax.ops.batches import in_batches
from deepssim_jax.ops.intensity import local_zscore, zscore
from deepssim_jax.ops.search_grid import SearchGrid
from deepssim_jax.scoring.match import Progress
from deepssim_jax.scoring.points import PointSet
from deepssim_jax.scoring.side import Side
from deepssim_jax.typing import Array, Images
from deepssim_jax.workspace import Cache, Made, Workspace

STORE = "store.json"
_LEVELS = 65535.0


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

    embeddings, low = in_batches(both, images, size=encoders.images_at_once())
    return np.asarray(embeddings), np.asarray(low)


def build_side(
    manifest: Manifest,
    workspace: Workspace,
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
      workspace: where decoded images and features are kept.
      settings: declared size and slice.
      encoder: makes the encoder; called only if something is left to embed.
      encoder_id: its hash, part of the features' key, so that features of another encoder are
        never taken for this one's.
      grid: the global search, for the size of the low-resolution versions.
      on_progress: called with (images done, images in all, what).
      what: the name of this work for the progress line.

    Returns:
      The side, its patients numbered where any is known, and the store behind it.
    """
    cache = feature_cache(workspace, settings, encoder_id, grid)
    model = functools.cache(encoder)
    reading = store.Reading.of(manifest, workspace, settings=settings)
    done, total = 0, len(reading)
    for chunk in reading.chunks():

        def make(places: np.ndarray, chunk: store.Chunk = chunk) -> Made:
            fields = _named(features(chunk.images[places], model(), grid=grid))
            if settings.canvas:
                canvases = chunk.canvases[places].astype(np.float32) / _LEVELS
                points = PointSet.of(canvases, chunk.content[places])
                fields |= {"geometry": points.geometry, "descriptors": points.descriptors}
            return Made(fields)

        cache.compute(chunk.keys, make, block=store.CHUNK)
        done = min(done + reading.at_once, total)
        on_progress(done, total, what)
    cache.share()
    images = reading.images()
    known = any(record.subject_id is not None for record in manifest.records)
    return side_of(images, cache, groups=known), images


def side_of(images: store.ImageStore, cache: Cache, *, groups: bool = False) -> Side:
    """A side of images whose features are all in the cache.

    Args:
      images: the store.
      cache: of `feature_cache`.
      groups: number the patients.

    Raises:
      KeyError: an image has no features of this encoder.
    """
    entries = cache.entries(images.keys)
    points = None
    if entries.has("geometry"):
        points = PointSet(entries.field("geometry"), entries.field("descriptors"))
    return Side(
        take=images.take,
        low=entries.field("low"),
        embeddings=entries.field("embedding"),
        groups=images.patients() if groups else None,
        points=points,
        pictures=None if points is None else images.pictures,
    )


def side_of_images(
    images: Sequence[np.ndarray], encoder: encoders.Encoder, *, size: int, points: bool
) -> Side:
    """A side of images float [h, w] that are in memory, as `build_side` makes one of files.

    Args:
      images: of any shape.
      encoder: whose embeddings are wanted.
      size: of the squares.
      points: whether local features are searched, too.
    """
    squares = [quantize(fit_to_size(np.asarray(x, np.float32), size=(size, size))) for x in images]
    stack = np.array(squares, np.uint16).reshape(-1, size, size)
    embeddings, low = features(stack, encoder)
    found = PointSet.of_images(images) if points and len(images) else None
    return Side(lambda rows: stack[rows], low, embeddings, points=found)


def feature_cache(
    workspace: Workspace, settings: store.InputSettings, encoder_id: str, grid: SearchGrid
) -> Cache:
    """Where a workspace keeps the features of one encoder for images of one form."""
    return workspace.cache("features", [settings, encoder_id, grid], code=features)


def _named(found: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
    return {"embedding": found[0], "low": found[1]}


def list_side(images: store.ImageStore, settings: store.InputSettings) -> bytes:
    """What `open_side` needs to find a store's images again: their names, hashes and keys, as JSON."""
    content = {
        "size": settings.size,
        "slice": settings.slice,
        "fingerprint": images.fingerprint,
        "images": list(
            zip(images.image_ids, images.subject_ids, images.sha256, images.keys, strict=True)
        ),
        "rejected": [[item.image_id, item.reason] for item in images.rejected],
    }
    return json.dumps(content).encode()


def growth_of(workspace: Workspace, images: store.ImageStore) -> Growth:
    """How a store's images differ from those of the finished store that this folder holds.

    Raises:
      InputError: no image is the same.
    """
    before: list[str] = []
    if STORE in workspace:
        listed = json.loads(workspace.path(STORE).read_text(encoding="utf-8"))["images"]
        before = [digest for _, _, digest, _ in listed]
    return Growth.of(before, images.sha256, out=workspace.root.name)


def open_side(
    folder: Path, *, encoder_id: str, flag: str, grid: SearchGrid = SearchGrid()
) -> tuple[Side, store.ImageStore]:
    """Opens what `deepssim embed` has left in a folder, only to read it.

    Args:
      folder: the command's `--out`.
      encoder_id: hash of the encoder whose embeddings are wanted.
      flag: that of the folder, for messages.
      grid: the global search.

    Raises:
      ValueError: the store is unfinished, or was embedded by another encoder or version.
    """
    workspace = Workspace.finished(folder, command="embed", flag=flag)
    path = folder / STORE
    if not path.is_file():
        raise ValueError(f"{flag}={folder.name!r} is not finished; run deepssim embed on it again")
    content = json.loads(path.read_text(encoding="utf-8"))
    height, width = content["size"]
    settings = store.InputSettings((height, width), content["slice"])
    names, subjects, hashes, keys = zip(*content["images"], strict=True)
    try:
        images = store.ImageStore(
            entries=store.store_cache(workspace, settings).entries(keys),
            image_ids=names,
            subject_ids=subjects,
            sha256=hashes,
            rejected=tuple(Rejected(*row) for row in content["rejected"]),
            fingerprint=content["fingerprint"],
        )
        side = side_of(images, feature_cache(workspace, settings, encoder_id, grid))
    except KeyError as error:
        raise ValueError(
            f"{flag}={folder.name!r} holds no embeddings of this encoder and version; run deepssim "
            "embed on it again with the same --encoder"
        ) from error
    return side, images
