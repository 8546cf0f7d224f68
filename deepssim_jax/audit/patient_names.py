"""Which names of files may name a patient: those that hold what the training images are called."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from deepssim_jax.data.formats import SUFFIXES
from deepssim_jax.data.manifest import Manifest
from deepssim_jax.workspace.names import alike

_WORD = re.compile(r"[^\W\d_]+|\d+|[\W_]+")
# Ends the first part of an id of the reference layout.
_PART = "___"


def telling_names(manifest: Manifest) -> frozenset[str]:
    """What may name a patient: patients, and each part of the ids and the paths of their images."""
    source, found = manifest.source, set[str]()
    for record in manifest.records:
        path = record.path
        inside = path.relative_to(source) if path.is_relative_to(source) else path.name
        parts = [record.subject_id or "", record.image_id]
        parts += [x for whole in (record.image_id, inside) for x in PurePosixPath(whole).parts]
        parts += [x for whole in parts for x in whole.split(_PART)]
        found.update(alike(x) for part in parts for x in (part, _stem(part)))
    return frozenset(found - {""})


def tells(name: str, telling: frozenset[str]) -> bool:
    """Whether a part of a path is one of these names, or holds one between other words or numbers."""
    return any(run in telling for part in name.split("/") for run in _runs(alike(part)))


def suffix_of(name: str) -> str:
    """That of an image format, and no other: what follows a dot may be a part of a patient's name."""
    fitting = [end for end in SUFFIXES if name.lower().endswith(end)]
    return max(fitting, key=len, default="")


def _runs(part: str) -> Iterator[str]:
    """Every run of words, numbers and what stands between them."""
    words = _WORD.findall(part)
    for start in range(len(words)):
        run = ""
        for word in words[start:]:
            run += word
            yield run


def _stem(name: str) -> str:
    return name[: len(name) - len(suffix_of(name))]
