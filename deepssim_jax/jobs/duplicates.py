"""Which images of a data set are copies of each other, also between its splits.

Equal files and equal pixels are found by their hashes, and of equal images one is searched. The rest is
the search of an audit by local features, of the set against itself (`audit.self_join`). What unrelated
images of this very folder reach gives the threshold, and false discoveries are held over all images.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deepssim_jax import parallel
from deepssim_jax.audit.audit_settings import check_regex
from deepssim_jax.audit.doubles import stand_for
from deepssim_jax.audit.inputs import remove_reviews
from deepssim_jax.audit.self_join import SelfJoin, connected, self_join
from deepssim_jax.data import store
from deepssim_jax.data.manifest import InputError
from deepssim_jax.data.records import ArrayLayout, Links
from deepssim_jax.data.volume import SliceSpec
from deepssim_jax.jobs import duplicates_outputs
from deepssim_jax.jobs.collection import Collection, read_collection
from deepssim_jax.jobs.copy_rule import CopyRule
from deepssim_jax.jobs.duplicate_pictures import build_pictures
from deepssim_jax.jobs.duplicates_result import DuplicatesResult
from deepssim_jax.jobs.findings import Found, conclude
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.ops import arguments
from deepssim_jax.scoring import points
from deepssim_jax.scoring.embed import build_side, check_size
from deepssim_jax.scoring.match import Progress
from deepssim_jax.scoring.side import Side
from deepssim_jax.workspace import Workspace
from deepssim_jax.workspace.names import refused_by_windows

COMMAND = "duplicates"
# Case is ignored on some systems.
_OWN_TABLES = ("groups.", "pairs.", "review")


@dataclasses.dataclass(frozen=True)
class DuplicateSettings:
    """What a user may choose; every field but `forget` is echoed in the report.

    `size` is the side in pixels at which pairs are verified (a multiple of 32). `slice_spec` is the
    slice that stands for a volume; without one volumes are refused. `false_discoveries` is the
    share of false ones among the images that are called duplicates, in expectation. `level` is the
    coverage of the interval. `write_manifest` names a table of one file a group, inside of `out`.
    `forget` are ids of patients or images that are left out of every folder.

    Examples:
      >>> import deepssim_jax as ds
      >>> ds.DuplicateSettings(write_manifest="clean.csv").false_discoveries
      0.05
    """

    size: int = 128
    slice_spec: str | None = None
    subject_regex: str | None = None
    false_discoveries: float = 0.05
    level: float = 0.95
    links: Links = Links.INSIDE
    arrays: ArrayLayout = ArrayLayout.IMAGES
    write_manifest: str | None = None
    forget: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError for values that cannot work."""
        check_size(self.size)
        if self.slice_spec is not None:
            SliceSpec.parse(self.slice_spec)
        check_regex(self.subject_regex)
        for name in ("false_discoveries", "level"):
            low = 0.5 if name == "level" else 0.0
            arguments.number(
                getattr(self, name), name, low=low, high=1, open_high=True, example=0.95
            )
        arguments.member(self.links, "links", Links)
        arguments.member(self.arrays, "arrays", ArrayLayout)
        arguments.names(self.forget, "forget")
        name = self.write_manifest
        if name is not None and (Path(name).name != name or not name.endswith(".csv")):
            raise ValueError(
                f"write_manifest {name!r} must be a file name that ends in .csv; it is written into "
                "the output folder, for example clean.csv"
            )
        if name is not None and name.casefold().startswith(_OWN_TABLES):
            raise ValueError(
                f"write_manifest {name!r} is a table of this job; take another name, for example clean.csv"
            )
        if name is not None and (reason := refused_by_windows(name)):
            raise ValueError(f"write_manifest {name!r}: {reason}; take another name")


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
      folder: folder, manifest (with a column `split`, where there are splits) or BIDS root of 2D images.
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
    arguments.instance(settings, "settings", DuplicateSettings, remedy="it has all defaults")
    if isinstance(against, str | Path):
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
    inputs: dict[str, str | Path] = {
        f"--against={path.name}" if number else "FOLDER": path
        for number, path in enumerate(folders)
    }
    opened = Workspace.open(out, command=COMMAND, inputs=inputs, processes=parallel.processes())
    with opened as workspace:
        return _duplicates(folders, workspace, settings, on_progress)


def _duplicates(
    folders: Sequence[Path], out: Workspace, settings: DuplicateSettings, on_progress: Progress
) -> DuplicatesResult:
    collection = read_collection(
        folders,
        subject_regex=settings.subject_regex,
        links=settings.links,
        arrays=settings.arrays,
        forget=settings.forget,
    )
    side, images, found = search(collection, out, settings, on_progress)
    result = conclude(
        found,
        collection,
        images,
        side,
        level=settings.level,
        settings=_echoed(settings, collection),
    )

    def write() -> None:
        duplicates_outputs.write_all(
            result,
            build_pictures(result, found, images),
            out,
            manifest_name=settings.write_manifest,
            manifest=collection.manifest,
            folders=folders,
        )
        if settings.forget:
            remove_reviews(out)

    out.by_first(write)
    out.prune()
    return result


def search(
    collection: Collection, out: Workspace, settings: DuplicateSettings, on_progress: Progress
) -> tuple[Side, store.ImageStore, Found]:
    """Reads a collection and searches it against itself: its features, its store, what was found."""
    side, images = _read(collection, out, settings, on_progress)
    # Equal images are one: the first of each stands for all.
    equal = stand_for(images.decoded())
    stands = np.unique(equal)
    joined = self_join(
        side.rows(stands),
        journal=out.section("duplicates", images.fingerprint),
        on_progress=on_progress,
    )
    return side, images, _judged(joined, stands, equal, settings)


def _read(
    collection: Collection, out: Workspace, settings: DuplicateSettings, on_progress: Progress
) -> tuple[Side, store.ImageStore]:
    side, images = build_side(
        collection.manifest,
        out,
        settings=store.InputSettings(
            size=(settings.size, settings.size),
            slice=settings.slice_spec or store.NO_SLICE,
            canvas=points.SIDE,
        ),
        encoder=functools.cache(encoders.load_encoder),
        encoder_id=encoders.encoder_hash("default"),
        on_progress=on_progress,
        what="reading images",
    )
    if not len(images):
        first = images.rejected[0].reason if images.rejected else "it is empty"
        raise InputError(
            f"FOLDER: none of its {len(collection.manifest.records)} images could be read; the first "
            f"reason: {first}"
        )
    return side, images


def _echoed(settings: DuplicateSettings, collection: Collection) -> dict[str, object]:
    """The settings as the report and `summary.json` show them."""
    return {
        "size": settings.size,
        "slice": settings.slice_spec or store.NO_SLICE,
        "subject_regex": settings.subject_regex or "",
        "false_discoveries": settings.false_discoveries,
        "level": settings.level,
        "links": settings.links.value,
        "arrays": settings.arrays.value,
        "splits": list(collection.splits),
    }


def _judged(
    joined: SelfJoin, stands: np.ndarray, equal: np.ndarray, settings: DuplicateSettings
) -> Found:
    """Which pairs are copies, and which are merely alike.

    Args:
      joined: what was found among the images that stand for equal ones.
      stands: rows of these.
      equal: int [n], the row that stands for each image.
      settings: of the job.
    """
    pairs = joined.pairs.copy()
    rule = CopyRule.of(pairs, joined.unrelated, count=len(stands), rate=settings.false_discoveries)
    pairs["query"], pairs["reference"] = stands[pairs["query"]], stands[pairs["reference"]]
    pairs = pairs[np.lexsort((pairs["reference"], pairs["query"], -pairs["evidence"]))]
    copy, alike = rule.copies(pairs), rule.alike(pairs)
    copies = pairs[copy]
    # Images of one group are no merely similar ones, however they are linked.
    group = connected(copies["query"], copies["reference"], len(equal))
    alike &= group[pairs["query"]] != group[pairs["reference"]]
    return Found(pairs=copies, similar=pairs[alike & ~copy], equal=equal, rule=rule)
