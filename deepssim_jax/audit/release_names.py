"""The names under which images leave: they name no patient, and do not say how many images stay.

Contract: where a name is given, it is given in the order in which images stand, without a gap, because a
gap would count what was refused. Which image got which number is for a private table.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from deepssim_jax.audit import certificate
from deepssim_jax.audit.generated_table import MANIFEST
from deepssim_jax.audit.patient_names import suffix_of, tells
from deepssim_jax.data.manifest import InputError, Manifest
from deepssim_jax.workspace import OWN_FILES

TABLE = "released.csv"  # in the private work: which image has which number
_OWN_NAMES = {certificate.NAME, MANIFEST, *OWN_FILES}


def names_of(manifest: Manifest) -> list[str]:
    """The name of each image of a folder or table: its path from there.

    Raises:
      InputError: a file is named twice, and would leave, and count, twice; or it is called as a file is
        that is written beside the images.
    """
    source = manifest.source
    root = source if source.is_dir() else source.resolve().parent
    names = [_below(record.path, root).as_posix() for record in manifest.records]
    if own := {name.casefold() for name in names} & _OWN_NAMES:
        raise InputError(
            f"--synthetic holds a file called {min(own)}, which is what --out calls a file of its own; give "
            "it another name"
        )
    whole = [n for n, record in zip(names, manifest.records, strict=True) if not record.items]
    if again := len(whole) - len(set(whole)):
        raise InputError(
            f"--synthetic: {again} rows of the table name a file again; list each file once"
        )
    return names


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
        return f"{self._prefix}{self._count - 1:06d}{suffix_of(name)}"


def _below(path: Path, root: Path) -> Path:
    """A file's path from the folder of its table, which may be spelled with links."""
    for spelled in (path, path.parent.resolve() / path.name):
        if spelled.is_relative_to(root):
            return spelled.relative_to(root)
    return path.resolve().relative_to(root)
