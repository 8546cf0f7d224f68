"""Folders for what is made of each of several sources: a name of its own for each, on every system."""

import re
from collections.abc import Collection, Mapping

from deepssim_jax.workspace.names import alike

_SUFFIX = re.compile(r"(\.(nii|mgh|dcm))?\.[a-z]{2,5}$", re.IGNORECASE)


def folders_of(sources: Mapping[int, str], *, reserved: Collection[str]) -> dict[int, str]:
    """The folder of each source, no two alike, also where case or Unicode's forms do not count.

    It is the source's name without its suffix, `_` for what a name should not hold; where another source
    or the output folder itself has that name, the source's number follows.
    """
    out: dict[int, str] = {}
    taken = {alike(name) for name in (*reserved, "", ".", "..")}
    for row, source in sources.items():
        name = re.sub(r"[^\w.-]", "_", _SUFFIX.sub("", source))
        while alike(name) in taken:
            name = f"{name}_{row}"
        taken.add(alike(name))
        out[row] = name
    return out
