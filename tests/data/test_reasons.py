"""No reason quotes a file: whoever reads why it was refused learns nothing that was written in it."""

import gzip
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image, PngImagePlugin
from pydicom.dataset import Dataset

from deepssim_jax.data.manifest import InputError, Role, read_manifest
from deepssim_jax.data.readers import Limits, read_image
from deepssim_jax.data.volume import SliceSpec, Unreadable
from tests.data.made import dicom_dataset, files, picture

CANARY = "SMITH JOHN"
HIDDEN = re.compile(r"SMITH|JOHN|5\.3\.4\.9", re.IGNORECASE)
MADE = files()
MIDDLE = SliceSpec.parse("axial:0.5")
LIMITS = Limits(pixels=1_000_000, voxels=1_000_000)
# Of text formats: what ends the header, and each field with its value.
TEXT = {
    "a.nrrd": (b"\n\n", re.compile(rb"(?m)^([a-z ]+: )(.+)$")),
    "gzip.nrrd": (b"\n\n", re.compile(rb"(?m)^([a-z ]+: )(.+)$")),
    "a.mha": (b"LOCAL\n", re.compile(rb"(?m)^(\w+ = )(.+)$")),
}


def said(folder: Path, name: str, content: bytes) -> list[str]:
    """Every sentence that is said of a file: why it, or an image of it, was refused or passed over."""
    (folder / name).write_bytes(content)
    try:
        found = read_manifest(folder, role=Role.REAL)
    except InputError as error:
        return [str(error)]
    out = [item.reason for item in (*found.rejected, *found.unused)] + list(found.said)
    for record in found.records[:4]:
        try:
            read_image(record, spec=MIDDLE, limits=LIMITS)
        except Unreadable as error:
            out.append(str(error))
    return out


def in_text_fields(name: str) -> Iterator[bytes]:
    end, field = TEXT[name]
    content = MADE[name]
    head = content[: content.index(end) + len(end)]
    for value in (
        CANARY,
        "'SMITH'",
        "1 SMITH 1",
        "(SMITH,0,0) (0,1,0) (0,0,1)",
        "SMITH.raw",
        "5.3.4.9",
    ):
        for match in field.finditer(head):
            yield (content[: match.start(2)] + value.encode() + content[match.end(2) :])
    for match in field.finditer(head):  # a field of that name
        yield (
            content[: match.start()] + f"{CANARY} = {CANARY}\n".encode() + content[match.start() :]
        )


def in_dicom() -> Iterator[bytes]:
    for element in [*dicom_dataset(picture()), *dicom_dataset(picture()).file_meta]:
        if element.tag in (0x7FE00010, 0x00020000, 0x00020001) or element.VR in ("US", "UL"):
            continue
        data = dicom_dataset(picture())
        of: Dataset = data.file_meta if element.tag.group == 2 else data
        uid = "5.3.4.9" if element.VR == "UI" else CANARY
        of[element.tag] = pydicom.DataElement(element.tag, "UI" if uid != CANARY else "LO", uid)
        buffer = io.BytesIO()
        explicit = {"implicit_vr": False, "little_endian": True}
        data.save_as(buffer, enforce_file_format=False, **explicit)
        yield buffer.getvalue()


def in_arrays() -> Iterator[bytes]:
    for values in (
        np.zeros(4, [("SMITH", "<f4"), ("JOHN", "<f4")]),
        np.zeros((4, 4), [("SMITH", "<f4", (2,))]),
        np.full((4, 4), CANARY),
        np.full((4, 4), CANARY.encode()),
    ):
        buffer = io.BytesIO()
        np.save(buffer, values)
        yield buffer.getvalue()


def in_pictures() -> Iterator[tuple[str, bytes]]:
    text = PngImagePlugin.PngInfo()
    text.add_text("SMITH", CANARY)
    buffer = io.BytesIO()
    Image.fromarray(picture()).save(buffer, "PNG", pnginfo=text)
    for cut in (len(buffer.getvalue()), 90):
        yield "a.png", buffer.getvalue()[:cut]
    for description in (
        CANARY,
        '{"shape": [24, 18], "axes": "SMITHJOHN"}',
        "ImageJ=SMITH\nimages=3\n",
    ):
        buffer = io.BytesIO()
        tifffile.imwrite(
            buffer, picture(), description=description, software=CANARY, metadata=None,
            extratags=[(270, "s", 0, description, False)],
        )  # fmt: skip
        yield "a.tif", buffer.getvalue()


CASES = [(name, content) for name in TEXT for content in in_text_fields(name)]
CASES += [("a.dcm", content) for content in in_dicom()]
CASES += [("a.npy", content) for content in in_arrays()]
CASES += list(in_pictures())


@pytest.mark.parametrize("kind", sorted({name for name, _ in CASES}))
def test_no_reason_holds_text_of_a_header(tmp_path: Path, kind: str) -> None:
    told = 0
    for name, content in CASES:
        if name == kind:
            sentences = said(tmp_path, name, content)
            assert not HIDDEN.search(" ".join(sentences)), sentences
            told += len(sentences)
    assert told or kind == "a.tif"  # whose description changes nothing


@pytest.mark.parametrize("name", sorted(MADE))
def test_no_reason_holds_bytes_of_a_header(tmp_path: Path, name: str) -> None:
    """Wherever a name is written over the first bytes."""
    content = MADE[name]
    plain = gzip.decompress(content) if name.endswith("gz") else content
    for at in range(4, min(400, len(plain) - 10), 13):
        changed = plain[:at] + CANARY.encode() + plain[at + len(CANARY) :]
        packed = gzip.compress(changed, 1, mtime=0) if name.endswith("gz") else changed
        assert not HIDDEN.search(" ".join(said(tmp_path, name, packed)))
