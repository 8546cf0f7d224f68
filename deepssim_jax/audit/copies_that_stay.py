"""Images that stay and that an earlier run in the folder found to be copies of images that were left out.

They show whoever withdrew as well, under other ids. Only what a run found before the images were left out is
known: afterwards nothing of these is kept that another image could be compared with.
"""

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping

from deepssim_jax.audit import recheck_summary, tables
from deepssim_jax.data.manifest import Manifest, Role
from deepssim_jax.data.records import FORGET
from deepssim_jax.data.table_rows import plain
from deepssim_jax.workspace import Workspace

NAME = "copies_that_stay.csv"
COLUMNS = ("image_id", "subject_id", "role")
Image = tuple[Role, str]


def note_copies(
    manifests: Mapping[Role, Manifest], out: Workspace, groups: Iterable[Collection[Image]]
) -> dict[Role, Manifest]:
    """Lists in `out` the images that stay of `groups` in which a real one was left out; it is noted, too.

    What is listed there already stays listed for as long as the images are there.

    Args:
      manifests: the images by role.
      out: holds the files of the run before.
      groups: the copies of each other by these files; looked at only where images were left out.
    """
    gone = {(Role.REAL, name) for name in manifests[Role.REAL].gone}
    known = set(_listed(out))
    if gone:
        known.update(*(group for group in groups if not gone.isdisjoint(group)))
    stay = [
        (role, record)
        for role, manifest in manifests.items()
        for record in manifest.records
        if known and (role, record.image_id) in known
    ]
    if stay:
        rows = [(record.image_id, record.subject_id, role.value) for role, record in stay]
        out.write(NAME, tables.table([COLUMNS, *rows]))
    elif NAME in out:
        out.remove(NAME)
    return {
        role: _noted(manifest, sum(of is role for of, _ in stay))
        for role, manifest in manifests.items()
    }


def grouped(out: Workspace, name: str, *, group: str, image: str) -> Iterator[list[Image]]:
    """Groups of real images in a table of the run before, by its columns of both; none without it."""
    found: dict[str, list[Image]] = {}
    for row in rows_before(out, name):
        found.setdefault(row[group], []).append((Role.REAL, plain(row[image])))
    yield from found.values()


def rows_before(out: Workspace, name: str) -> recheck_summary.Rows:
    """A table of the run before; no rows without it."""
    return recheck_summary.rows(out.path(name)) if name in out else []


def _listed(out: Workspace) -> Iterator[Image]:
    for row in rows_before(out, NAME):
        yield Role(row["role"]), plain(row["image_id"])


def _noted(manifest: Manifest, count: int) -> Manifest:
    if not count:
        return manifest
    images = (
        "1 image that stays is a copy" if count == 1 else f"{count:,} images that stay are copies"
    )
    note = f"{images} of what was left out {FORGET}: see {NAME}"
    return dataclasses.replace(manifest, notes=(*manifest.notes, note))
