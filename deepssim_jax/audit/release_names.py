"""The names under which images leave: they name no patient, and do not say how many images stay.

Contract: where a name is given, it is given in the order in which images stand, without a gap, because a
gap would count what was refused. Which image got which number is for a private table.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath

from deepssim_jax.data.formats import SUFFIXES
from deepssim_jax.data.manifest import InputError, Manifest

TABLE = "released.csv"  # in the private work: which image has which number
_WORD = re.compile(r"[^\W\d_]+|\d+|[\W_]+")
# Ends the first part of an id of the reference layout.
_PART = "___"


def names_of(manifest: Manifest) -> list[str]:
    """The name of each image of a folder or table: its path from there.

    Raises:
      InputError: a file is named twice, and would leave, and count, twice.
    """
    source = manifest.source
    root = source if source.is_dir() else source.resolve().parent
    names = [record.path.relative_to(root).as_posix() for record in manifest.records]
    whole = [n for n, record in zip(names, manifest.records, strict=True) if not record.items]
    if again := len(whole) - len(set(whole)):
        raise InputError(
            f"--synthetic: {again} rows of the table name a file again; list each file once"
        )
    return names


def telling_names(manifest: Manifest) -> frozenset[str]:
    """What may name a patient: patients, and each part of the ids and the paths of their images."""
    source, found = manifest.source, set[str]()
    for record in manifest.records:
        path = record.path
        inside = path.relative_to(source) if path.is_relative_to(source) else path.name
        parts = [record.subject_id or "", record.image_id]
        parts += [x for whole in (record.image_id, inside) for x in PurePosixPath(whole).parts]
        parts += [x for whole in parts for x in whole.split(_PART)]
        found.update(_same(x) for part in parts for x in (part, _stem(part)))
    return frozenset(found - {""})


def tells(name: str, telling: Iterable[str]) -> bool:
    """Whether a part of a path is one of these names, or holds one between other words or numbers."""
    known = telling if isinstance(telling, frozenset) else frozenset(telling)
    return any(run in known for part in name.split("/") for run in _runs(_same(part)))


class ReleaseNames:
    """Names in the order in which images stand.

    Args:
      hides: whether an image must not keep its name.
      prefix: what the others are called, before their number.
    """

    def __init__(self, hides: Callable[[str], bool], prefix: str):
        self._hides, self._prefix, self._count = hides, prefix, 0

    @classmethod
    def numbered(cls) -> "ReleaseNames":
        """Of drawn images: all have a number."""
        return cls(lambda name: True, "gen-")

    @classmethod
    def kept(cls, names: Iterable[str], telling: frozenset[str]) -> "ReleaseNames":
        """Of the images of a folder, `names`: they keep what names nobody."""
        prefix = "image-"
        taken = [name.casefold() for name in names]
        while any(name.startswith(prefix) for name in taken):
            prefix = f"released-{prefix}"
        return cls(lambda name: tells(name, telling), prefix)

    def anew(self) -> "ReleaseNames":
        """The same from the first number on."""
        return ReleaseNames(self._hides, self._prefix)

    def next(self, name: str) -> str:
        """That of the next image that stands."""
        if not self._hides(name):
            return name
        self._count += 1
        return f"{self._prefix}{self._count - 1:06d}{_suffix(name)}"


def _runs(part: str) -> Iterator[str]:
    """Every run of words, numbers and what stands between them."""
    words = _WORD.findall(part)
    for start in range(len(words)):
        run = ""
        for word in words[start:]:
            run += word
            yield run


def _suffix(name: str) -> str:
    """That of an image format, and no other: what follows a dot may be a part of a patient's name."""
    fitting = [end for end in SUFFIXES if name.lower().endswith(end)]
    return max(fitting, key=len, default="")


def _stem(name: str) -> str:
    return name[: len(name) - len(_suffix(name))]


def _same(name: str) -> str:
    """One spelling of what a person reads as one."""
    return unicodedata.normalize("NFKC", name).casefold()
