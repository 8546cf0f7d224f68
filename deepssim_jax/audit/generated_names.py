"""Folders for what is made of each training image: a name of its own for each, on every system."""

import re
import unicodedata
from collections.abc import Collection, Mapping

_LAYOUT = "___training"  # ends the ids of the reference layout
_SUFFIX = re.compile(r"(\.(nii|mgh|dcm))?\.[a-z]{2,5}$", re.IGNORECASE)


def folders_of(image_ids: Mapping[int, str], *, reserved: Collection[str]) -> dict[int, str]:
    """The folder of each record, no two alike, also where case or Unicode's forms do not count.

    It is the image's id without its suffix, `_` for what a name should not hold; where another record
    or the output folder itself has that name, the record's number follows.
    """
    out: dict[int, str] = {}
    taken = {_same(name) for name in (*reserved, "", ".", "..")}
    for row, image_id in image_ids.items():
        name = re.sub(r"[^\w.-]", "_", _SUFFIX.sub("", image_id.removesuffix(_LAYOUT)))
        while _same(name) in taken:
            name = f"{name}_{row}"
        taken.add(_same(name))
        out[row] = name
    return out


def _same(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()
