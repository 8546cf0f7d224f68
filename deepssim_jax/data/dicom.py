"""DICOM files: which frames make a volume, and in which order.

Contract: a `Stack` is one image or one volume: frames of one series that have one patient, one frame
of reference, one size, one photometric interpretation and one orientation, no two of them at one place,
sorted along their normal. Echoes, phases and time points of one place, projections, and images without
geometry, stand apart. Only such attributes are read; nothing that names a patient leaves this module.
Needs the `dicom` extra.
"""

import collections
import contextlib
import dataclasses
import functools
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from deepssim_jax.data.dicom_file import DEFLATED, dataset, pydicom_module
from deepssim_jax.data.patients import alias, under_any_issuer
from deepssim_jax.data.volume import Unreadable

_BIG_ENDIAN = b"1.2.840.10008.1.2.2"
_IMPLICIT = b"1.2.840.10008.1.2"
_SYNTAX, _LAST_OF_META = 0x00020010, 0x0002FFFF  # TransferSyntaxUID, in the header of the header
_FUNCTIONAL_GROUPS = 0x5200  # the group of these sequences, one of the last before the pixels
_PREAMBLE, _PLAIN = 132, 1 << 14  # bytes before a header, and to the end of most
Header = dict[str, Any]  # attributes by name
# What tells two images of one place apart, most telling first.
_APART = (
    "EchoNumbers",
    "EffectiveEchoTime",
    "EchoTime",
    "ImageType",
    "FrameType",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "AcquisitionNumber",
    "InversionTime",
    "TriggerTime",
    "DiffusionBValue",
    "AcquisitionTime",
)
# What all slices of one volume share: writers from a template give one series to images that do not.
_SHARED = (
    "PatientID",
    "IssuerOfPatientID",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "SOPClassUID",
)
# CR, DX, mammography and intra-oral films; angiography and fluoroscopy: no slices, wherever they lie.
_PROJECTION = re.compile(r"1\.2\.840\.10008\.5\.1\.4\.1\.1\.(?:1(?:\..*)?|12\.[12])")
# Segmentations and dose grids (PS3.4 B.5): arrays of numbers about other images.
_ABOUT_IMAGES = re.compile(r"1\.2\.840\.10008\.5\.1\.4\.1\.1\.(?:66\.[47]|481\.2)")
_NUMBERS = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
# Text is taken as it stands in the file: pydicom's values of all of it take twice as long.
_TEXT = {
    "SeriesInstanceUID",
    "InstanceNumber",
    "NumberOfFrames",
    "PhotometricInterpretation",
    *_NUMBERS,
    *_SHARED,
    *(name for name in _APART if name not in ("EffectiveEchoTime", "DiffusionBValue")),
} - {"TemporalPositionIndex"}
_TAGS = sorted(
    {
        *_TEXT,
        *_APART,
        "Rows",
        "Columns",
        "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence",
    }
)
# Frames are of one plane if no direction cosine differs by more, and at one place if this close (mm).
_SAME_DIRECTION, _SAME_PLACE = 0.01, 0.001


@dataclasses.dataclass(frozen=True)
class Stack:
    """The frames of one image or volume: `items` are their numbers in the file `files[0]`, or empty
    where every file holds one frame. `subject` is the `alias` of the patient, None where none is named;
    `any_issuer` is `under_any_issuer` of the same.
    """

    files: tuple[Path, ...]
    items: tuple[int, ...] = ()
    subject: str | None = None
    any_issuer: str | None = None


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Where a frame lies: patient coordinates in LPS mm, of its first pixel and along its rows and
    columns; the steps from row to row and from column to column in mm, if they are known.
    """

    position: np.ndarray
    cosines: np.ndarray
    spacing: tuple[float, float] | None

    @functools.cached_property
    def place(self) -> float:
        """The position along the frame's normal in mm."""
        (a, b, c, d, e, f), (x, y, z) = self.cosines.tolist(), self.position.tolist()
        return (b * f - c * e) * x + (c * d - a * f) * y + (a * e - b * d) * z


@dataclasses.dataclass(frozen=True)
class _Frame:
    path: Path
    item: int | None
    number: tuple[int, str]
    kind: tuple[object, ...]
    geometry: Geometry | None
    apart: tuple[str, ...]
    patient: tuple[str | None, str | None]  # `subject` and `any_issuer` of its stack


def stacks(plain: Mapping[Path, Header | None]) -> tuple[list[Stack], dict[Path, str]]:
    """The images and volumes of DICOM files, and the files that hold none, with the reason.

    Files whose header cannot be read stand alone, so that reading them says why.

    Args:
      plain: what `plain_header` gives for each file.
    """
    alone: list[Stack] = []
    without: dict[Path, str] = {}
    series: dict[tuple[str, str], list[_Frame]] = collections.defaultdict(list)
    try:
        pydicom_module()
    except Unreadable:
        return [Stack((path,)) for path in sorted(plain)], without
    for path in sorted(plain):
        try:
            header = plain[path] or _header(path)
            if "Rows" not in header and "SOPClassUID" in header:
                without[path] = "a DICOM file without pixels"
                continue
            if _ABOUT_IMAGES.fullmatch(str(header.get("SOPClassUID") or "")):
                without[path] = "a DICOM segmentation or dose grid, no image"
                continue
            frames = _frames(path, header)
            uid = str(header.get("SeriesInstanceUID") or "")
        except Exception:  # whatever a header holds, reading its pixels will say what is wrong
            alone.append(Stack((path,)))
            continue
        for frame in frames:
            if frame.geometry is None or not uid:
                alone.append(_stack([frame]))
            else:
                # A file of several frames is a whole; frames of several such do not mix.
                whole = str(path if frame.item is not None else path.parent)
                series[whole, uid].append(frame)
    found = [_stack(part) for frames in series.values() for part in _parts(frames)]
    return sorted(alone + found, key=lambda s: (s.files, s.items)), without


@functools.cache
def _tags() -> dict[int, str]:
    """Names of the attributes that are read, by number."""
    tag = pydicom_module().tag.Tag
    return {int(tag(name)): name for name in _TAGS}


def plain_header(path: Path) -> Header | None:
    """The attributes of a file that holds one image and nothing unusual.

    In half the time that a data set takes. None of other files: without a preamble or without an image,
    big-endian, compressed as a whole, of several frames or with functional groups, or damaged. Numbers,
    text, and lists of text.
    """
    with contextlib.suppress(Exception), path.open("rb") as file:
        # In memory: of a file every element would ask the system where it stands.
        head = file.read(_PLAIN)
        if head[128:132] != b"DICM":
            return None
        header = _elements(io.BytesIO(head))
        if header is None and len(head) == _PLAIN:  # scanners' own elements can take more
            header = _elements(file)
        return header
    return None


def _elements(file: BinaryIO) -> Header | None:
    """`plain_header` of an open file; None also where it ends before the pixels."""
    from pydicom.filereader import data_element_generator

    tags = _tags()
    file.seek(_PREAMBLE)
    meta = data_element_generator(
        file, False, True, stop_when=lambda tag, *_: tag > _LAST_OF_META, specific_tags=[_SYNTAX]
    )
    syntax = next((bytes(x.value).strip(b" \0") for x in meta if x.tag == _SYNTAX), b"")
    list(meta)  # to its end, where the data set begins
    if syntax in (b"", _BIG_ENDIAN, DEFLATED):
        return None
    found = data_element_generator(
        file,
        syntax == _IMPLICIT,
        True,
        stop_when=lambda tag, *_: tag >= _FUNCTIONAL_GROUPS << 16,
        specific_tags=list(tags),
    )
    # Numbers instead of pydicom's tags, which are slow to compare.
    header = {tags[tag]: _value(x, tags[tag]) for x in found if (tag := int(x.tag)) in tags}
    group = int.from_bytes(file.read(2), "little")
    plain = "Rows" in header and "NumberOfFrames" not in header and group > _FUNCTIONAL_GROUPS
    return header if plain else None


def _header(path: Path) -> Header:
    """The attributes of any file."""
    tags = _tags()
    found = dataset(path, stop_before_pixels=True, specific_tags=list(tags))
    # A dict of the few that are there: a data set takes long to say that it lacks one.
    return {tags[tag]: _value(x, tags[tag]) for tag, x in list(found.items()) if tag in tags}


def _value(element, name: str) -> object:
    """An attribute's value; of those in `_TEXT` its text, or the texts of several numbers."""
    if name not in _TEXT or not isinstance(element.value, bytes):
        from pydicom.dataelem import RawDataElement, convert_raw_data_element

        raw = isinstance(element, RawDataElement)
        return convert_raw_data_element(element).value if raw else element.value
    text = element.value.decode("latin-1").strip(" \0")
    return text.split("\\") if name in _NUMBERS else text


def _stack(frames: Sequence[_Frame]) -> Stack:
    if frames[0].item is None:
        return Stack(tuple(frame.path for frame in frames), (), *frames[0].patient)
    items = tuple(int(frame.item or 0) for frame in frames)
    return Stack((frames[0].path,), items, *frames[0].patient)


def _frames(path: Path, header: Header) -> list[_Frame]:
    kind = (header["Rows"], header["Columns"], header.get("PhotometricInterpretation"))
    kind += tuple(str(header.get(name) or "") for name in _SHARED)
    name, issuer = (str(header.get(name) or "").strip() for name in _SHARED[:2])
    patient = (alias(name, issuer), under_any_issuer(name)) if name else (None, None)
    flat = _PROJECTION.fullmatch(str(header.get("SOPClassUID") or "")) is not None
    count = int(header.get("NumberOfFrames") or 1)
    number = int(float(header.get("InstanceNumber") or 0))
    if count > path.stat().st_size:
        raise Unreadable(f"declares {count:,} frames, more than it has bytes")
    groups = functional_groups(header)
    if count == 1:
        items = [*groups[0], header] if groups else [header]
        apart, where = _values(items), None if flat else geometry(items)
        return [_Frame(path, None, (number, path.name), kind, where, apart, patient)]
    if len(groups) != count:
        # Without geometry of each frame, every frame is an image.
        return [_Frame(path, i, (i, path.name), kind, None, (), patient) for i in range(count)]
    return [
        _Frame(path, i, (i, path.name), kind, geometry(groups[i]), _values(groups[i]), patient)
        for i in range(count)
    ]


def functional_groups(header) -> list[list]:
    """For each frame of an enhanced file, the items of its functional groups, own before shared
    (PS3.3 C.7.6.16); empty for other files.
    """
    shared = _items(next(iter(header.get("SharedFunctionalGroupsSequence") or []), None))
    return [
        [*_items(frame), *shared] for frame in header.get("PerFrameFunctionalGroupsSequence") or []
    ]


def _items(group) -> list:
    if group is None:
        return []
    return [element.value[0] for element in group if element.VR == "SQ" and element.value]


def first(items: Sequence, name: str) -> object:
    """The value of an attribute in the first dataset that has it, or None."""
    for item in items:
        value = item.get(name)
        if value is not None and value != "":
            return value
    return None


def geometry(items: Sequence) -> Geometry | None:
    """Where a frame lies, or None if its position or orientation is missing or wrong."""
    position = numbers(first(items, "ImagePositionPatient"), 3)
    cosines = numbers(first(items, "ImageOrientationPatient"), 6)
    if position is None or cosines is None:
        return None
    rows, columns = math.hypot(*cosines[:3]), math.hypot(*cosines[3:])
    if abs(rows - 1) > 0.1 or abs(columns - 1) > 0.1 or abs(cosines[:3] @ cosines[3:]) > 0.1:
        return None
    spacing = numbers(first(items, "PixelSpacing"), 2)
    known = spacing is not None and (spacing > 0).all()
    return Geometry(position, cosines, (float(spacing[0]), float(spacing[1])) if known else None)


def numbers(value: object, count: int) -> np.ndarray | None:
    """An attribute's `count` finite numbers, or None."""
    if value is None or isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        return None
    try:
        found = np.array([float(str(x)) for x in value])
    except ValueError:
        return None
    return found if len(found) == count and np.isfinite(found).all() else None


def _values(items: Sequence) -> tuple[str, ...]:
    return tuple(str(first(items, name)) for name in _APART)


def _parts(frames: list[_Frame]) -> Iterator[list[_Frame]]:
    """Frames of a series by what they share, then by plane, then by what tells one place apart."""
    planes: list[tuple[tuple[object, ...], list[float], list[_Frame]]] = []
    for frame in frames:
        assert frame.geometry is not None  # others stand alone
        cosines = frame.geometry.cosines.tolist()
        for kind, known, members in planes:
            apart = max(abs(a - b) for a, b in zip(known, cosines, strict=True))
            if kind == frame.kind and apart < _SAME_DIRECTION:
                members.append(frame)
                break
        else:
            planes.append((frame.kind, cosines, [frame]))
    for *_, members in planes:
        yield from _by_place(members, 0)


def _by_place(frames: list[_Frame], attribute: int) -> Iterator[list[_Frame]]:
    places = _sorted_places(frames)
    most = max(len(place) for place in places)
    if most == 1:
        yield [frame for place in places for frame in place]
        return
    for number in range(attribute, len(_APART)):
        groups = collections.defaultdict(list)
        for frame in frames:
            groups[frame.apart[number]].append(frame)
        # More groups than images at a place: it numbers slices, and tells nothing apart.
        if 1 < len(groups) <= most:
            for _, group in sorted(groups.items()):
                yield from _by_place(group, number + 1)
            return
    # Nothing tells them apart but their order.
    for rank in range(most):
        yield [place[rank] for place in places if len(place) > rank]


def _sorted_places(frames: list[_Frame]) -> list[list[_Frame]]:
    """Frames by their place along the normal; those at one place in the order of their numbers."""

    def place(frame: _Frame) -> float:
        assert frame.geometry is not None
        return frame.geometry.place

    places: list[list[_Frame]] = []
    last = -np.inf
    for frame in sorted(frames, key=lambda f: (place(f), f.number)):
        if place(frame) - last > _SAME_PLACE:
            places.append([])
            last = place(frame)
        places[-1].append(frame)
    return [sorted(members, key=lambda f: f.number) for members in places]
