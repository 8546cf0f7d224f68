"""Damage that leaves a file its length: a checksum tells of it, and must be looked at."""

import bz2
import gzip
import io
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from deepssim_jax.data.manifest import Role, read_manifest
from deepssim_jax.data.readers import read_image, read_volume
from deepssim_jax.data.volume import Unreadable
from tests.data.made import LPS, volume

RNG = np.random.default_rng(0)
VOLUME = RNG.integers(0, 4000, (6, 24, 20)).astype(np.uint16)  # hardly compressible: any bit counts
STACK = RNG.integers(0, 4000, (4, 64, 50)).astype(np.uint16)


def read_all(folder: Path) -> list[np.ndarray | str]:
    """Each image, or the reason why it is refused."""
    out: list[np.ndarray | str] = []
    for record in read_manifest(folder, role=Role.REAL).records:
        try:
            out.append(read_image(record, spec=None))
        except Unreadable as error:
            out.append(str(error))
    return out


def nrrd(packed: bytes, encoding: str) -> bytes:
    head = (
        "NRRD0004\ntype: uint16\ndimension: 3\nspace: left-posterior-superior\nsizes: 20 24 6\n"
        f"space directions: (1,0,0) (0,1,0) (0,0,1)\nendian: little\nencoding: {encoding}\n\n"
    )
    return head.encode() + packed


def mha(packed: bytes) -> bytes:
    head = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nCompressedData = True\n"
        "DimSize = 20 24 6\nElementType = MET_USHORT\nElementDataFile = LOCAL\n"
    )
    return head.encode() + packed


DATA = VOLUME.tobytes()
STORED = gzip.compress(DATA, 0)  # a flipped bit is a wrong value, and nothing else tells of it
FILES: dict[str, bytes] = {
    "a.nrrd": nrrd(gzip.compress(DATA), "gzip"),
    "stored.nrrd": nrrd(STORED, "gzip"),
    "b.nrrd": nrrd(bz2.compress(DATA), "bzip2"),
    "a.mha": mha(zlib.compress(DATA)),
}
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "a bit in the middle": lambda x: flipped(x, -len(x) // 2),
    "a bit near the end": lambda x: flipped(x, -6),
    "the last byte lost": lambda x: x[:-1],
    "six bytes lost": lambda x: x[:-6],
}


def flipped(content: bytes, place: int) -> bytes:
    out = bytearray(content)
    out[place] ^= 1
    return bytes(out)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_stream_of_a_volume_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    (whole,) = read_all(tmp_path)
    np.testing.assert_array_equal(whole, VOLUME)
    (tmp_path / name).write_bytes(DAMAGE[damage](FILES[name]))
    (reason,) = read_all(tmp_path)
    assert reason == "its compressed data are damaged or truncated"


@pytest.mark.parametrize("name", FILES)
def test_what_follows_a_stream_is_not_looked_at(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FILES[name] + b"a note")
    np.testing.assert_array_equal(read_all(tmp_path)[0], VOLUME)


def test_a_stream_of_several_parts_and_one_that_goes_on(tmp_path: Path) -> None:
    parts = gzip.compress(DATA[:1000]) + bytes(3) + gzip.compress(DATA[1000:])
    (tmp_path / "a.nrrd").write_bytes(nrrd(parts, "gzip"))
    (tmp_path / "b.nrrd").write_bytes(nrrd(gzip.compress(DATA + bytes(99)), "gzip"))
    (tmp_path / "c.nrrd").write_bytes(nrrd(gzip.compress(DATA + bytes(1 << 27)), "gzip"))
    first, second, bomb = read_all(tmp_path)
    np.testing.assert_array_equal(first, VOLUME)
    np.testing.assert_array_equal(second, VOLUME)
    assert bomb == f"inflates to more than the {len(DATA):,} bytes it declares"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_no_image_of_a_damaged_stack_is_believed(tmp_path: Path, save: Callable) -> None:
    buffer = io.BytesIO()
    save(buffer, first=STACK, second=STACK[:2] + 1)
    content = buffer.getvalue()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        end = archive.getinfo("second.npy").header_offset
    (tmp_path / "a.npz").write_bytes(flipped(content, end // 2))
    found = read_all(tmp_path)
    assert found[:4] == ["its compressed data are damaged or truncated"] * 4
    np.testing.assert_array_equal(np.stack(found[4:]), STACK[:2] + 1)  # its own checksum is right


def test_no_volume_of_a_damaged_series_is_believed(tmp_path: Path) -> None:
    series = np.moveaxis(np.stack([VOLUME, VOLUME + 1, VOLUME + 2]), 0, -1).astype(np.int16)
    content = nibabel.Nifti1Image(series, LPS).to_bytes()
    (tmp_path / "a.nii.gz").write_bytes(flipped(gzip.compress(content, 0), -20))
    assert ["damaged" in str(one) for one in read_all(tmp_path)] == [True] * 3


def test_the_members_of_an_archive_are_known_by_their_number(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{"": STACK[0]})
    np.testing.assert_array_equal(read_all(tmp_path)[0], STACK[0])
    (tmp_path / "a.npz").unlink()
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        for name, image in zip(("x", "x.npy", "y"), STACK[:3], strict=True):
            with archive.open(name, "w") as file:
                np.save(file, image)
    np.testing.assert_array_equal(np.stack(read_all(tmp_path)), STACK[:3])


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize(
    ("unit", "steps"),
    [("mm", 1.0), ("unknown", 1.0), ("meter", 1e-3), ("micron", 1e3), (5, 1.0)],
)
def test_the_unit_of_length_of_nifti(
    tmp_path: Path, kind: type, unit: str | int, steps: float
) -> None:
    affine = LPS * np.array([1.0, 2.0, 3.0, 1.0]) * steps
    affine[3, 3] = 1.0
    image = kind(volume().transpose(2, 1, 0).astype(np.int16), affine)
    if isinstance(unit, str):
        image.header.set_xyzt_units(unit)
    else:
        image.header["xyzt_units"] = unit  # no unit has this number
    nibabel.save(image, tmp_path / "a.nii")
    _, spacing = read_volume(read_manifest(tmp_path, role=Role.REAL).records[0])
    np.testing.assert_allclose(spacing, [3.0, 2.0, 1.0], rtol=1e-5)
