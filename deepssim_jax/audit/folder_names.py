"""Folders for what is made of each of several sources: a name of its own for each, on every system."""

import re
import unicodedata
from collections.abc import Collection, Mapping

_SUFFIX = re.compile(r"(\.(nii|mgh|dcm))?\.[a-z]{2,5}$", re.IGNORECASE)


def folders_of(sources: Mapping[int, str], *, reserved: Collection[str]) -> dict[int, str]:
    """The folder of each source, no two alike, also where case or Unicode's forms do not count.

    It is the source's name without its suffix, `_` for what a name should not hold; where another source
    or the output folder itself has that name, the source's number follows.
    """
    out: dict[int, str] = {}
    taken = {_same(name) for name in (*reserved, "", ".", "..")}
    for row, source in sources.items():
        name = re.sub(r"[^\w.-]", "_", _SUFFIX.sub("", source))
        while _same(name) in taken:
            name = f"{name}_{row}"
        taken.add(_same(name))
        out[row] = name
    return out


def _same(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()
