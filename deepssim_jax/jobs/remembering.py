"""A collection without what was ever to be left out in the folder that its job writes to."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from deepssim_jax.audit.copies_that_stay import Image, note_copies
from deepssim_jax.data.forgetting import Forget
from deepssim_jax.data.manifest import Role
from deepssim_jax.jobs.collection import Collection, read_collection
from deepssim_jax.jobs.duplicate_settings import DuplicateSettings
from deepssim_jax.workspace import Workspace


def read_remembered(
    folders: Sequence[Path],
    out: Workspace,
    settings: DuplicateSettings,
    groups: Iterable[Sequence[Image]],
) -> Collection:
    """`read_collection` by these settings; what is left out is remembered in `out`.

    Args:
      folders: folders, manifests or BIDS roots.
      out: the folder of the job.
      settings: how they are read, and whose images are to be left out.
      groups: the copies of each other that an earlier run in `out` found.
    """
    forget = Forget.of(settings.forget, out)
    found = read_collection(
        folders,
        subject_regex=settings.subject_regex,
        links=settings.links,
        arrays=settings.arrays,
        forget=forget,
    )
    out.keep_apart(found.manifest.elsewhere)
    forget.remember(out)
    manifest = note_copies({Role.REAL: found.manifest}, out, groups)[Role.REAL]
    return dataclasses.replace(found, manifest=manifest)
