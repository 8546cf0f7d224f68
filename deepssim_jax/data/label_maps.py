"""Label maps that the user has made: which map belongs to which volume, and what its labels are called.

Contract: a map bears its volume's name, or that name and an underscore and more, as SynthSeg writes
`a_synthseg.nii.gz` for `a.nii.gz`. Names of labels come from a table: lines of a number and a name, parted
by a comma, a tab or blanks, whatever follows (FreeSurfer's colour table; `*_dseg.tsv` of BIDS), or JSON,
{"1": "liver"} or {"liver": 1}, at the top or under "labels" (the `dataset.json` of nnU-Net, and
TotalSegmentator's).
"""

import collections
import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from deepssim_jax.data.formats import suffix_of
from deepssim_jax.data.manifest import InputError, Manifest, Role
from deepssim_jax.data.volume import Unreadable
from deepssim_jax.data.whole_volume import Content, VolumeSettings

_LINE = re.compile(r"\s*(\d+)\s*[,;\t ]\s*\"?([^,;\t\"]+?)\"?\s*(?:[,;\t].*)?$")
_COLOURS = re.compile(r"(\s+\d+){3,4}\s*$")
_MOST_BYTES = 10_000_000
_FIRST_MAPS = 20
_MOST_LABELS = 32  # a whole body has a hundred, and comparing each takes its time


def map_of(volume_ids: Sequence[str], map_ids: Sequence[str]) -> list[int]:
    """For each volume the row of its map, -1 where there is none; an exact name comes first.

    A map belongs to the longest name that it begins with.
    """
    volumes = {_stem(name): row for row, name in enumerate(volume_ids)}
    out = [-1] * len(volume_ids)
    for place, name in sorted(enumerate(map_ids), key=lambda item: (len(item[1]), item[1])):
        stem = _stem(name)
        while stem not in volumes and "_" in stem:
            stem = stem.rpartition("_")[0]
        row = volumes.get(stem, -1)
        if row >= 0 and out[row] < 0:
            out[row] = place
    return out


def _stem(name: str) -> str:
    return name[: len(name) - len(suffix_of(name))]


def read_label_names(path: str | Path) -> dict[int, str]:
    """Names by label.

    Raises:
      InputError: the file cannot be read, or names no label.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"--label_names: {path.name} is too large for a table of names")
        text = path.read_text(encoding="utf-8-sig")
        names = _of_json(json.loads(text)) if text.lstrip().startswith("{") else _of_lines(text)
    except (OSError, ValueError) as error:
        raise InputError(f"--label_names: {path.name} cannot be read: {error}") from error
    if not names:
        raise InputError(
            f"--label_names: {path.name} names no label; each line must be a number and a name, "
            "for example 17,Left-Hippocampus"
        )
    return names


def _of_lines(text: str) -> dict[int, str]:
    names = {}
    for line in text.splitlines():
        found = _LINE.match(_COLOURS.sub("", line))
        if found:
            _add(names, int(found[1]), found[2].strip())
    return names


def _add(names: dict[int, str], label: int, name: str) -> None:
    if names.setdefault(label, name) != name:
        raise ValueError(f"label {label} has two names, of which one is right")


def _of_json(content: dict[str, object]) -> dict[int, str]:
    inner = content.get("labels", content)
    names = {}
    for key, value in inner.items() if isinstance(inner, dict) else ():
        if isinstance(value, int):
            _add(names, value, str(key))
        elif isinstance(value, str) and str(key).isdigit():
            _add(names, int(key), value)
    return names


def common_labels(
    maps: Mapping[Role, Manifest], grid: VolumeSettings
) -> tuple[tuple[int, ...], dict[Role, tuple[int, ...]]]:
    """Labels of the first twenty maps of each side: those that all sides have, of more than can be compared
    the largest; and by side those that others lack.

    Raises:
      InputError: there is no common label.
    """
    plain = dataclasses.replace(grid, content=Content.LABELS, window=None)
    sizes: collections.Counter[int] = collections.Counter()
    seen: dict[Role, set[int]] = {role: set() for role in maps}
    for role, manifest in maps.items():
        for record in manifest.records[:_FIRST_MAPS]:
            try:
                found = np.unique(plain.load(record)["pixels"], return_counts=True)
            except Unreadable:
                continue
            held = dict(zip(*(x.tolist() for x in found), strict=True))
            sizes.update(held)
            seen[role] |= held.keys() - {0}
    common = set.intersection(*seen.values())
    if not any(seen.values()):
        raise InputError("the label maps hold no label but 0; check --segmentations_real")
    if not common:
        held = " and ".join(
            f"{role.value} {', '.join(map(str, sorted(labels)[:8])) or 'none'}"
            for role, labels in seen.items()
        )
        raise InputError(
            f"the label maps have no label in common ({held}): number both sides' structures alike"
        )
    largest = sorted(common, key=lambda label: (-sizes[label], label))[:_MOST_LABELS]
    alone = {role: tuple(sorted(labels - common)) for role, labels in seen.items()}
    return tuple(sorted(largest)), {role: labels for role, labels in alone.items() if labels}
