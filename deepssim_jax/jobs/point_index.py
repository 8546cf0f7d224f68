"""A folder's features on disk, ready to be searched: what `deepssim index` writes and `lookup` opens.

Contract: arrays lie as `NAME.npy` beside `index.json`, which names their hashes, the version of their
form and what is held of the patients. They are memory-mapped: opening does not read them. Full pixels are
not kept; `pixels` are images of the size at which pairs are verified.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from deepssim_jax.data.account import Growth
from deepssim_jax.data.manifest import InputError
from deepssim_jax.data.records import ArrayLayout
from deepssim_jax.data.store import InputSettings
from deepssim_jax.features.basis import Basis
from deepssim_jax.features.matching import PointIndex
from deepssim_jax.jobs.copy_rule import CopyRule
from deepssim_jax.ops import arguments
from deepssim_jax.scoring.evidence import GumbelLaw
from deepssim_jax.scoring.points import LocalIndex, PointSet
from deepssim_jax.scoring.side import Side
from deepssim_jax.workspace import Workspace, check_written, sha256, was_changed
from deepssim_jax.workspace.values import encoded

COMMAND, LISTING, VERSION = "index", "index.json", 2
_TILE_FIELDS = ("tiles", "subjects", "sample", "sample_subjects")
_BASES = ("full", "few")
_OF_IMAGES = ("geometry", "descriptors", "pixels", "decoded", "group")  # a row each
_RULE = ("location", "scale", "count", "evidence", "points")
_ARRAYS = {
    *_OF_IMAGES,
    *_TILE_FIELDS,
    *(f"{x}_{part}" for x in _BASES for part in ("mean", "axes")),
}


@dataclasses.dataclass(frozen=True)
class PreparedIndex:
    """An index that is open: `side` of its images, `local` to search it, and the rule for copies.

    `decoded` uint8 [n, 32] tells equal pixels; `image_ids` and `subject_ids` are those of the rows,
    `group` int32 [n] the duplicates among them; `settings` how images were read. `growth` says what
    `index` added to and took from an earlier run.

    Examples:
      >>> import tempfile
      >>> import deepssim_jax as ds
      >>> from deepssim_jax import testing
      >>> phantoms = testing.phantom_images(6)
      >>> with tempfile.TemporaryDirectory() as work:
      ...     _ = testing.write_images(f"{work}/images", phantoms[:5])
      ...     settings = ds.DuplicateSettings(size=64)
      ...     prepared = ds.index(f"{work}/images", out=f"{work}/index", settings=settings)
      >>> len(prepared), prepared.settings["size"], prepared.subject_ids[0]
      (5, 64, None)
    """

    side: Side
    local: LocalIndex
    rule: CopyRule
    decoded: np.ndarray
    group: np.ndarray
    image_ids: tuple[str, ...]
    subject_ids: tuple[str | None, ...]
    settings: Mapping[str, object]
    growth: Growth = Growth()

    def __len__(self) -> int:
        return len(self.image_ids)


def indexed_before(out: Workspace) -> list[bytes]:
    """The images of the finished index that this folder holds, by their pixels; none if it holds none."""
    path = out.path("decoded.npy")
    return list(map(bytes, np.load(path, allow_pickle=False))) if LISTING in out else []


def write_index(prepared: PreparedIndex, out: Workspace) -> None:
    """Writes every array, then the listing with their hashes.

    An older listing goes first: with arrays of another run it would name wrong images.
    """
    if LISTING in out:
        out.remove(LISTING)
    points, first = prepared.local.references, prepared.local.first
    arrays: dict[str, np.ndarray] = {
        "geometry": points.geometry,
        "descriptors": points.descriptors,
        "pixels": prepared.side.take(np.arange(len(prepared))),
        "decoded": prepared.decoded,
        "group": prepared.group,
        **{name: np.asarray(getattr(first, name)) for name in _TILE_FIELDS},
    }
    for name in _BASES:
        basis: Basis = getattr(prepared.local, name)
        arrays |= {f"{name}_mean": basis.mean, f"{name}_axes": basis.axes}
    for name, array in arrays.items():
        out.write(f"{name}.npy", encoded(array)[1])
    content = {
        "version": VERSION,
        "holds": "names of files and patients, local features, and images of "
        f"{prepared.settings['size']} pixels a side; no image in full",
        "images": list(prepared.image_ids),
        "subjects": list(prepared.subject_ids),
        "even": {name: getattr(prepared.local, name).even for name in _BASES},
        "rule": {
            "location": prepared.rule.law.location,
            "scale": prepared.rule.law.scale,
            "count": prepared.rule.law.count,
            "evidence": prepared.rule.evidence,
            "points": prepared.rule.points,
        },
        "settings": dict(prepared.settings),
        "files": {f"{name}.npy": sha256(out.path(f"{name}.npy")) for name in sorted(arrays)},
    }
    out.write(LISTING, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


def open_index(folder: str | Path, *, check: bool = False) -> PreparedIndex:
    """Opens an index, only to read it.

    Args:
      folder: `--out` of `deepssim index`.
      check: compare every array's hash, which reads all of them, and refuse a folder whose list of hashes
        is gone. The hash of `index.json` is always compared where one is kept.

    Raises:
      InputError: it is of another version; `index.json` or an array is missing, damaged or was changed.
      ValueError: the folder is not the output of a finished `deepssim index`, or `check` finds no hashes.

    Examples:
      >>> import tempfile
      >>> import deepssim_jax as ds
      >>> from deepssim_jax import testing
      >>> phantoms = testing.phantom_images(6)
      >>> with tempfile.TemporaryDirectory() as work:
      ...     _ = testing.write_images(f"{work}/images", phantoms[:5])
      ...     settings = ds.DuplicateSettings(size=64)
      ...     prepared = ds.index(f"{work}/images", out=f"{work}/index", settings=settings)
      ...     opened = ds.open_index(f"{work}/index", check=True)
      ...     opened.image_ids == prepared.image_ids
      True
    """
    arguments.path(folder, "folder", "the output of `deepssim index`")
    root = Workspace.finished(folder, command=COMMAND, flag="--index").root
    listing = root / LISTING
    if not listing.is_file():
        raise InputError(f"--index={root.name!r} is not finished; run deepssim index again")
    if was_changed(root, LISTING):
        raise _damaged(root)
    if check:
        check_written(root, [LISTING], command=COMMAND)
    content = _listed(root)
    arrays = _opened(root, content, check=check)
    bases = {
        name: Basis(
            np.array(arrays[f"{name}_mean"]),
            np.array(arrays[f"{name}_axes"]),
            content["even"][name],
        )
        for name in _BASES
    }
    points = PointSet(arrays["geometry"], arrays["descriptors"])
    count = len(content["images"])
    first = PointIndex(
        **{name: arrays[name] for name in _TILE_FIELDS},
        signs=jnp.asarray(bases["few"].signs),
        count=count,
    )
    law = content["rule"]
    return PreparedIndex(
        side=Side(
            take=lambda rows: arrays["pixels"][rows],
            low=np.zeros((count, 1, 1), np.float32),
            embeddings=np.zeros((count, 1), np.float32),
            points=points,
        ),
        local=LocalIndex(points, bases["full"], bases["few"], first, together=1),
        rule=CopyRule(
            GumbelLaw(law["location"], law["scale"], law["count"]), law["evidence"], law["points"]
        ),
        decoded=arrays["decoded"],
        group=arrays["group"],
        image_ids=tuple(content["images"]),
        subject_ids=tuple(content["subjects"]),
        settings=content["settings"],
    )


def _damaged(root: Path) -> InputError:
    return InputError(
        f"--index={root.name!r}: its {LISTING} is damaged or was changed; run deepssim index again"
    )


def _listed(root: Path) -> dict[str, Any]:
    """What the listing holds, of the kinds that `write_index` gives it."""
    try:
        content = json.loads((root / LISTING).read_text(encoding="utf-8"))
        version = content["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(root) from error
    if version != VERSION:
        raise InputError(
            f"--index={root.name!r} has the form {version}, and this program reads {VERSION}; run "
            "deepssim index again"
        )
    try:
        images, subjects, settings = content["images"], content["subjects"], content["settings"]
        whole = (
            isinstance(images, list)
            and isinstance(subjects, list)
            and len(images) == len(subjects)
            and all(isinstance(x, str) for x in images)
            and all(x is None or isinstance(x, str) for x in subjects)
            and all(isinstance(content["even"][name], int) for name in _BASES)
            and all(math.isfinite(content["rule"][name]) for name in _RULE)
            and content["files"].keys() == {f"{name}.npy" for name in _ARRAYS}
            and isinstance(settings["size"], int)
        )
        ArrayLayout(settings["arrays"])
        InputSettings((settings["size"],) * 2, settings["slice"]).validate()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(root) from error
    if not whole:
        raise _damaged(root)
    return content


def _opened(root: Path, content: dict[str, Any], *, check: bool) -> dict[str, np.ndarray]:
    """The arrays by name, with a row for each image where they have one."""
    arrays: dict[str, np.ndarray] = {}
    for name, digest in content["files"].items():
        path = root / name
        try:
            if check and sha256(path) != digest:
                raise ValueError("its hash is another one")
            arrays[path.stem] = np.load(path, mmap_mode="r", allow_pickle=False)
            if path.stem in _OF_IMAGES and len(arrays[path.stem]) != len(content["images"]):
                raise ValueError("it is not of these images")
        except (OSError, ValueError, EOFError) as error:
            # Without the suffix: names of files are not shown on the screen.
            raise InputError(
                f"--index={root.name!r}: the file of its array {path.stem} is missing, damaged or was "
                "changed; run deepssim index again"
            ) from error
    return arrays
