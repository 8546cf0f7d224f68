"""Which images of a data set are copies of each other, also between its splits.

Equal files and equal pixels are found by their hashes, and of equal images one is searched. The rest is
a search of the set against itself: of images by the local features of an audit, of volumes by the
keypoints of `replicas` (`jobs.duplicate_search` says what either does). What unrelated images of
this very folder reach gives the threshold, and false discoveries are held over all images.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from deepssim_jax import parallel
from deepssim_jax.audit import copies_that_stay
from deepssim_jax.audit.inputs import remove_reviews, remove_stale_reviews
from deepssim_jax.data import store
from deepssim_jax.data.forgetting import said_before
from deepssim_jax.data.readers import read_image
from deepssim_jax.data.volume import Unreadable
from deepssim_jax.jobs import duplicates_outputs
from deepssim_jax.jobs.collection import Collection
from deepssim_jax.jobs.duplicate_images import search_images
from deepssim_jax.jobs.duplicate_settings import WHOLE_VOLUMES, DuplicateSettings
from deepssim_jax.jobs.duplicate_volumes import search_volumes
from deepssim_jax.jobs.duplicates_result import Compared, DuplicatesResult
from deepssim_jax.jobs.findings import conclude
from deepssim_jax.jobs.remembering import read_remembered
from deepssim_jax.ops import arguments
from deepssim_jax.scoring.match import Progress
from deepssim_jax.workspace import Workspace

COMMAND = "duplicates"


def duplicates(
    folder: str | Path,
    *,
    against: Sequence[str | Path] = (),
    out: str | Path | None = None,
    settings: DuplicateSettings = DuplicateSettings(),
    on_progress: Progress = lambda done, total, what: None,
) -> DuplicatesResult:
    """Finds groups of images that are copies of each other: turned, mirrored, cropped, resized, relit.

    Args:
      folder: folder, manifest (with a column `split`, where there are splits) or BIDS root of 2D images,
        or of volumes: the first file that can be read says which.
      against: further ones, such as the test split or an earlier release; each is a split of its own,
        and pairs inside of each are reported, too.
      out: directory for the report and tables; None writes nothing that stays.
      settings: see `DuplicateSettings`.
      on_progress: called with (done, total, what) as the work goes on.

    Returns:
      The result; with `out`, `groups.csv`, `pairs.csv`, `report.html` and `summary.json` lie there too.

    Raises:
      InputError: a folder is missing, is given twice or holds no readable image.
      ValueError: a setting cannot work, or a folder lies in another.

    Examples:
      >>> import tempfile
      >>> import deepssim_jax as ds
      >>> from deepssim_jax import testing
      >>> phantoms = testing.phantom_images(6)
      >>> with tempfile.TemporaryDirectory() as work:
      ...     _ = testing.write_images(work, phantoms[[0, 1, 2, 3, 2]])
      ...     result = ds.duplicates(work, settings=ds.DuplicateSettings(size=64))
      >>> [(image.group, image.image_id, image.kept) for image in result.groups]
      [(1, 'p0002.png', True), (1, 'p0004.png', False)]
    """
    arguments.progress(on_progress)
    arguments.instance(settings, "settings", DuplicateSettings, remedy="it has all defaults")
    if not isinstance(against, (tuple, list)):
        raise ValueError("against must be a list of folders, for example against=['test/']")
    what = "a folder of images, or a manifest"
    folders = [
        arguments.path(path, name, what).expanduser()
        for name, path in (("folder", folder), *(("against", other) for other in against))
    ]
    if out is not None:
        arguments.path(out, "out", "a folder for the report")
    if out is None:
        with Workspace.temporary(command=COMMAND) as workspace:
            return _duplicates(folders, workspace, settings, on_progress)
    inputs: dict[str, str | Path] = {"FOLDER": folders[0]}
    for number, path in enumerate(folders[1:], start=1):
        flag = f"--against={path.name}"
        inputs[flag if flag not in inputs else f"{flag} (number {number})"] = path
    opened = Workspace.open(out, command=COMMAND, inputs=inputs, processes=parallel.processes())
    with opened as workspace:
        return _duplicates(folders, workspace, settings, on_progress)


def _duplicates(
    folders: Sequence[Path], out: Workspace, settings: DuplicateSettings, on_progress: Progress
) -> DuplicatesResult:
    before = copies_that_stay.grouped(out, "groups.csv", group="group", image="file")
    collection = read_remembered(folders, out, settings, before)
    compared = _compared(collection, settings)
    search = search_volumes if compared is Compared.VOLUMES else search_images
    searched = search(collection, out, settings, on_progress)
    echoed = _echoed(settings, collection, compared)
    result = conclude(searched, collection, level=settings.level, settings=echoed)

    def write() -> None:
        duplicates_outputs.write_all(
            result,
            searched.pictures(result),
            out,
            manifest_name=settings.write_manifest,
            manifest=collection.manifest,
            folders=folders,
        )
        remove_reviews(out)
        remove_stale_reviews(out, "pairs.csv")

    out.by_first(write)
    out.prune()
    before = said_before(collection.manifest.left_out_before)
    return dataclasses.replace(result, notes=(*result.notes, *before))


def _compared(collection: Collection, settings: DuplicateSettings) -> Compared:
    """What the first file that can be read holds."""
    if settings.slice_spec is not None:
        return Compared.IMAGES
    for record in collection.manifest.records:
        try:
            return Compared.VOLUMES if read_image(record, spec=None).ndim == 3 else Compared.IMAGES
        except (Unreadable, OSError):
            continue
    return Compared.IMAGES


def _echoed(
    settings: DuplicateSettings, collection: Collection, compared: Compared
) -> dict[str, object]:
    """The settings as the report and `summary.json` show them."""
    volumes = compared is Compared.VOLUMES
    form = settings.volume_settings if volumes else settings.image_settings
    return {
        "size": form.size[0],
        "slice": WHOLE_VOLUMES if volumes else settings.slice_spec or store.NO_SLICE,
        "subject_regex": settings.subject_regex or "",
        "false_discoveries": settings.false_discoveries,
        "level": settings.level,
        "links": settings.links.value,
        "arrays": settings.arrays.value,
        "splits": list(collection.splits),
    }
