"""Prepares a folder of images, so that `jobs.lookup` can answer for single ones from it."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deepssim_jax.audit.copies_that_stay import Image
from deepssim_jax.audit.self_join import build_index
from deepssim_jax.data import forgetting, store
from deepssim_jax.data.account import INPUTS, Growth
from deepssim_jax.data.manifest import Role
from deepssim_jax.jobs.duplicate_images import search_images
from deepssim_jax.jobs.duplicate_settings import DuplicateSettings
from deepssim_jax.jobs.findings import groups_of
from deepssim_jax.jobs.point_index import (
    COMMAND,
    LISTING,
    VERSION,
    PreparedIndex,
    indexed_before,
    open_index,
    write_index,
)
from deepssim_jax.jobs.remembering import read_remembered
from deepssim_jax.ops import arguments
from deepssim_jax.scoring.match import Progress
from deepssim_jax.workspace import Workspace


def index(
    folder: str | Path,
    *,
    out: str | Path,
    settings: DuplicateSettings = DuplicateSettings(),
    on_progress: Progress = lambda done, total, what: None,
) -> PreparedIndex:
    """Prepares a folder of 2D images to be looked up in.

    Args:
      folder: folder, manifest or BIDS root.
      out: directory of the index; it holds names, features and small images, no image in full.
      settings: see `DuplicateSettings`; `write_manifest` does nothing here.
      on_progress: called with (done, total, what) as the work goes on.

    Returns:
      The index, as `open_index` opens it; `growth` says how its images differ from those of an earlier
      run with the same `out`.

    Raises:
      InputError: the folder is missing or holds no image that can be compared.
        `out` is the index of another set: none of its images is among those given.
      ValueError: a setting cannot work.

    Examples:
      >>> import tempfile
      >>> import deepssim_jax as ds
      >>> from deepssim_jax import testing
      >>> phantoms = testing.phantom_images(6)
      >>> with tempfile.TemporaryDirectory() as work:
      ...     _ = testing.write_images(f"{work}/images", phantoms[:5])
      ...     settings = ds.DuplicateSettings(size=64)
      ...     prepared = ds.index(f"{work}/images", out=f"{work}/index", settings=settings)
      >>> len(prepared), prepared.image_ids[0]
      (5, 'p0000.png')
    """
    arguments.progress(on_progress)
    arguments.instance(settings, "settings", DuplicateSettings, remedy="it has all defaults")
    source = arguments.path(folder, "folder", "a folder of images, or a manifest").expanduser()
    arguments.path(out, "out", "a folder for the index")
    # What reading leaves behind holds larger images than the index may: it goes when the index is made.
    with (
        Workspace.open(out, command=COMMAND, inputs={"FOLDER": source}) as workspace,
        Workspace.temporary(command=COMMAND) as work,
    ):
        collection = read_remembered([source], workspace, settings, _groups_before(workspace))
        searched = search_images(collection, work, settings, on_progress)
        images, found = searched.images, searched.found
        growth = dataclasses.replace(
            Growth.of(
                indexed_before(workspace), map(bytes, images.decoded()), out=workspace.root.name
            ),
            left_out_before=collection.manifest.left_out_before,
        )
        rows = np.arange(len(images), dtype=np.int32)
        side = dataclasses.replace(searched.side, groups=rows)
        prepared = PreparedIndex(
            side=side,
            local=build_index(side),
            rule=searched.rule,
            decoded=images.decoded(),
            group=groups_of(found),
            image_ids=images.image_ids,
            subject_ids=images.subject_ids,
            settings={
                "size": settings.image_settings.size[0],
                "slice": settings.slice_spec or store.NO_SLICE,
                "arrays": settings.arrays.value,
            },
        )
        workspace.write(INPUTS, images.account.file)
        write_index(prepared, workspace)
        forgetting.all_gone(workspace)
        workspace.prune()
    return dataclasses.replace(open_index(out), growth=growth)


def _groups_before(out: Workspace) -> Iterator[list[Image]]:
    """The duplicates among the images of the finished index that this folder holds."""
    if LISTING not in out:
        return
    content, found = json.loads(out.path(LISTING).read_text(encoding="utf-8")), {}
    if content["version"] == VERSION:
        group = np.load(out.path("group.npy"), allow_pickle=False).tolist()
        for name, number in zip(content["images"], group, strict=True):
            found.setdefault(number, []).append((Role.REAL, name))
    yield from found.values()
