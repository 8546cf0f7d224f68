"""DICOM made here: what pixels mean, and which frames make a volume, in which order."""

import gzip
import hashlib
import io
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from deepssim_jax.data import dicom, dicom_workers
from deepssim_jax.data.forgetting import Forget
from deepssim_jax.data.manifest import Role, read_manifest
from deepssim_jax.data.quiet import quiet
from deepssim_jax.data.readers import read_image, read_volume
from deepssim_jax.data.volume import SliceSpec, Unreadable
from tests.data.made import (
    SC,
    SYNTAXES,
    compressed_dicom,
    dicom_bytes,
    dicom_dataset,
    picture,
    volume,
    write_series,
)

WHOLE = None
CORONAL = SliceSpec.parse("coronal:1")


def images(folder: Path, spec: SliceSpec | None = WHOLE) -> list[np.ndarray]:
    return [read_image(r, spec=spec) for r in read_manifest(folder, role=Role.REAL).records]


def only(folder: Path, spec: SliceSpec | None = WHOLE) -> np.ndarray:
    (image,) = images(folder, spec)
    return image


def single(folder: Path, pixels: np.ndarray, **tags: object) -> np.ndarray:
    (folder / "a.dcm").write_bytes(dicom_bytes(pixels, **tags))
    return only(folder)


def item(**tags: object) -> Dataset:
    data = Dataset()
    for name, value in tags.items():
        setattr(data, name, value)
    return data


def test_a_header_read_the_short_way_is_that_of_a_data_set(tmp_path: Path) -> None:
    """Those of pydicom's own files, too; what is unusual is read by a data set alone."""
    write_series(tmp_path, volume(), EchoTime=4.5, ImageType=["ORIGINAL", "PRIMARY"])
    made = sorted(tmp_path.iterdir())
    (tmp_path / "several.dcm").write_bytes(dicom_bytes(np.stack([picture()] * 3)))
    (tmp_path / "text.dcm").write_bytes(b"no DICOM")
    samples = Path(pydicom.__file__).parent / "data" / "test_files"
    short = {}
    with quiet():
        for path in [*tmp_path.iterdir(), *sorted(samples.glob("*.dcm"))]:
            if (found := dicom.plain_header(path)) is not None:
                short[path] = found
                assert str(found) == str(dicom._header(path)), path.name
    assert set(made) == {path for path in short if path.parent == tmp_path}
    names = {path.name for path in short}
    assert {"CT_small.dcm", "MR_small.dcm", "MR_small_implicit.dcm"} <= names
    assert not names & {"MR_small_bigendian.dcm", "liver_1frame.dcm", "image_dfl.dcm", "rtplan.dcm"}
    assert short[made[0]]["ImagePositionPatient"] == ["0.0", "0.0", "0.0"]


def test_rescale_and_inverted_photometry(tmp_path: Path) -> None:
    found = single(
        tmp_path, picture(), RescaleSlope=2, RescaleIntercept=-100,
        PhotometricInterpretation="MONOCHROME1",
    )  # fmt: skip
    meant = 2.0 * picture() - 100
    np.testing.assert_allclose(found, meant.max() + meant.min() - meant)


def test_a_slope_alone_counts(tmp_path: Path) -> None:
    np.testing.assert_allclose(single(tmp_path, picture(), RescaleSlope="0.5"), picture() / 2)


def test_signed_values_of_twelve_bits(tmp_path: Path) -> None:
    signed = picture().astype(np.int16) - 1000
    np.testing.assert_allclose(
        single(tmp_path, signed & 0xFFF, BitsStored=12, HighBit=11, PixelRepresentation=1), signed
    )


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_is_looked_up(tmp_path: Path, bits: int) -> None:
    grey = np.random.default_rng(0).permutation(256)
    table = (grey * (257 if bits == 16 else 1)).astype("<u2" if bits == 16 else "u1").tobytes()
    tags: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        tags[f"{colour}PaletteColorLookupTableData"] = table
    found = single(tmp_path, np.argsort(grey).astype(np.uint8)[picture()], **tags)
    np.testing.assert_allclose(found, picture() * (257.0 if bits == 16 else 1.0), rtol=1e-4)


def test_a_modality_table_is_looked_up(tmp_path: Path) -> None:
    data = dicom_dataset(255 - picture())
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [256, 0, 16])
    table.add_new("LUTData", "US", [int(x) for x in np.arange(256)[::-1] * 16])
    table.ModalityLUTType = "US"
    data.ModalityLUTSequence = [table]
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    np.testing.assert_allclose(only(tmp_path), picture() * 16.0)


@pytest.mark.parametrize("vr", ["US", "SS"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_as_dark_as_the_darkest(tmp_path: Path, photometric: str, vr: str) -> None:
    meant = picture().astype(np.int16) * 4 + 100
    stored = 4095 - meant if photometric == "MONOCHROME1" else meant.copy()
    stored[:3] = -2000
    data = dicom_dataset(stored, PhotometricInterpretation=photometric)
    data.add_new("PixelPaddingValue", vr, -2000 if vr == "SS" else 65536 - 2000)
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    found = only(tmp_path)
    inner = found[3:] - found[3:].min()
    np.testing.assert_allclose(inner, meant[3:] - meant[3:].min(), atol=1e-3)
    assert (found[:3] == found[3:].min()).all()


def test_a_range_of_padding(tmp_path: Path) -> None:
    data = dicom_dataset(picture().astype(np.int16))
    data.add_new("PixelPaddingValue", "SS", 0)
    data.add_new("PixelPaddingRangeLimit", "SS", 20)
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    lowest = picture()[picture() > 20].min()
    np.testing.assert_array_equal(only(tmp_path), np.maximum(picture(), lowest))


@pytest.mark.parametrize(
    "tags",
    [
        {"PixelSpacing": [2, 1]},
        {"ImagerPixelSpacing": [0.4, 0.2]},
        {"PixelAspectRatio": [2, 1]},
    ],
)
def test_oblong_pixels_become_square(tmp_path: Path, tags: dict) -> None:
    ramp = np.arange(24, dtype=np.uint8)[:, None] * np.ones((1, 18), np.uint8)
    found = single(tmp_path, ramp, **tags)
    assert found.shape == (48, 18)
    # Row k of the new ones has its centre at (k + 1/2) / 2 - 1/2 of the old.
    wanted = (np.arange(48) + 0.5) / 2 - 0.5
    np.testing.assert_allclose(found[1:-1, 5], wanted[1:-1], atol=1e-4)


def test_a_series_is_sorted_by_position_not_by_name(tmp_path: Path) -> None:
    order = [3, 0, 4, 1, 2]
    write_series(tmp_path, volume()[order], ImagePositionPatient=lambda i: [0, 0, order[i]])
    np.testing.assert_array_equal(only(tmp_path), volume())
    np.testing.assert_array_equal(only(tmp_path, SliceSpec.parse("axial:0")), volume()[0])


def test_monochrome1_is_inverted_by_one_constant(tmp_path: Path) -> None:
    write_series(tmp_path, 4095 - volume(), PhotometricInterpretation="MONOCHROME1")
    found = only(tmp_path)
    np.testing.assert_allclose(found - found.min(), volume() - float(volume().min()))


def test_planes_and_echoes_of_one_series_stand_apart(tmp_path: Path) -> None:
    write_series(tmp_path, volume(), name="a{}.dcm", EchoTime=10)
    write_series(tmp_path, volume()[::-1] + np.uint16(500), name="b{}.dcm", EchoTime=80)
    write_series(
        tmp_path, volume()[:3], name="c{}.dcm", EchoTime=10,
        ImageOrientationPatient=[0, 1, 0, 0, 0, -1], ImagePositionPatient=lambda i: [i, 0, 0],
    )  # fmt: skip
    found = images(tmp_path)
    assert sorted(f.shape for f in found) == [(5, 8, 6), (5, 8, 6), (8, 6, 3)]
    stacks = [f for f in found if f.shape == (5, 8, 6)]
    assert any(np.array_equal(f, volume()) for f in stacks)
    assert any(np.array_equal(f, volume()[::-1] + 500.0) for f in stacks)


def test_images_of_one_place_without_a_difference(tmp_path: Path) -> None:
    write_series(tmp_path / "same", volume(), ImagePositionPatient=[0, 0, 0])
    write_series(tmp_path / "twice", volume(), name="a{}.dcm")
    write_series(tmp_path / "twice", volume() + np.uint16(1000), name="b{}.dcm")
    same = images(tmp_path / "same")
    assert [f.shape for f in same] == [(8, 6)] * 5
    assert sorted(float(f.min()) for f in same) == [float(f.min()) for f in volume()]
    first, second = sorted(images(tmp_path / "twice"), key=lambda f: float(f.min()))
    np.testing.assert_array_equal(first, volume())
    np.testing.assert_array_equal(second, volume() + 1000.0)


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("PatientID", "P{}"),
        ("StudyInstanceUID", "1.2.4.{}"),
        ("FrameOfReferenceUID", "1.2.5.{}"),
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.1"),  # CR
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.1.1"),  # DX
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.12.1"),  # XA
    ],
)
def test_no_volume_of_several_people_or_of_projections(
    tmp_path: Path, tag: str, value: str
) -> None:
    write_series(tmp_path, volume(), **{tag: lambda i: value.format(i)})
    found = read_manifest(tmp_path, role=Role.REAL)
    assert [len(r.parts) for r in found.records] == [0] * 5
    assert all("are those of DICOM headers" in note for note in found.notes)


def test_a_volume_of_each_of_two_people(tmp_path: Path) -> None:
    write_series(tmp_path, volume(6), PatientID=lambda i: f"P{i // 3}")
    found = read_manifest(tmp_path, role=Role.REAL)
    assert [len(r.parts) for r in found.records] == [3, 3]
    assert found.notes[0].startswith("6 DICOM files are taken as 2 volumes")


def test_images_of_one_template_are_counted_as_a_volume_and_a_manifest_parts_them(
    tmp_path: Path,
) -> None:
    """Nothing in their headers says that they are no volume."""
    write_series(tmp_path, volume(6), SOPClassUID=SC)
    found = read_manifest(tmp_path, role=Role.REAL)
    assert [len(r.parts) for r in found.records] == [6]
    note, patients = found.notes
    assert note.startswith("6 DICOM files are taken as 1 volume") and "manifest" in note
    table = tmp_path / "images.csv"
    table.write_text("path\n" + "".join(f"{i:02d}.dcm\n" for i in range(6)))
    apart = read_manifest(table, role=Role.REAL)
    assert [read_image(r, spec=None).shape for r in apart.records] == [(8, 6)] * 6
    assert apart.notes == (patients,)


def test_a_missing_slice_is_interpolated(tmp_path: Path) -> None:
    there = [0, 1, 3, 4]
    write_series(tmp_path, volume()[there], ImagePositionPatient=lambda i: [0, 0, 2.5 * there[i]])
    (record,) = read_manifest(tmp_path, role=Role.REAL).records
    found, spacing = read_volume(record)
    np.testing.assert_allclose(found, volume())  # the formula is linear from slice to slice
    np.testing.assert_allclose(spacing, [2.5, 1, 1])


@pytest.mark.parametrize("spacing", [None, [1], [0, 1]])
def test_a_series_of_unknown_spacing_is_refused(tmp_path: Path, spacing: list | None) -> None:
    write_series(tmp_path, volume(), PixelSpacing=spacing)
    with pytest.raises(Unreadable, match="Pixel Spacing"):
        images(tmp_path)


def enhanced(
    frames: np.ndarray, cosines: list, positions: list, scales: list | None = None
) -> Dataset:
    data = dicom_dataset(frames)
    data.SharedFunctionalGroupsSequence = [
        item(
            PixelMeasuresSequence=[item(PixelSpacing=[1, 1])],
            PlaneOrientationSequence=[item(ImageOrientationPatient=cosines)],
        )
    ]
    data.PerFrameFunctionalGroupsSequence = [
        item(PlanePositionSequence=[item(ImagePositionPatient=position)]) for position in positions
    ]
    for group, (slope, intercept) in zip(
        data.PerFrameFunctionalGroupsSequence, scales or [], strict=False
    ):
        group.PixelValueTransformationSequence = [
            item(RescaleSlope=str(slope), RescaleIntercept=str(intercept), RescaleType="US")
        ]
    return data


AXIAL_COSINES, CORONAL_COSINES = [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1]


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 4, 0, 1, 3]])
def test_frames_of_an_enhanced_file_lie_where_they_say(tmp_path: Path, order: list[int]) -> None:
    data = enhanced(volume()[order], AXIAL_COSINES, [[0, 0, z] for z in order])
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(only(tmp_path), volume())


def test_an_enhanced_coronal_file_with_a_scale_for_each_frame(tmp_path: Path) -> None:
    frames = volume()[::-1].transpose(1, 0, 2)
    scales = [(2.0 ** (i % 3 - 1), 10.0 * i) for i in range(8)]
    stored = np.stack([(f - b) / a for f, (a, b) in zip(frames.astype(float), scales, strict=True)])
    stored = np.round(stored).astype(np.int16)
    data = enhanced(stored, CORONAL_COSINES, [[0, y, 4] for y in range(8)], scales)
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    np.testing.assert_allclose(only(tmp_path), volume(), atol=1)
    np.testing.assert_allclose(only(tmp_path, CORONAL), frames[1], atol=1)


def test_two_volumes_of_an_enhanced_file(tmp_path: Path) -> None:
    frames = np.concatenate([volume(), volume() + np.uint16(1000)])
    data = enhanced(frames, AXIAL_COSINES, [[0, 0, z] for z in (*range(5), *range(5))])
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    manifest = read_manifest(tmp_path, role=Role.REAL)
    assert [r.image_id for r in manifest.records] == ["a.dcm#1", "a.dcm#2"]
    first, second = images(tmp_path)
    np.testing.assert_array_equal(first, volume())
    np.testing.assert_array_equal(second, volume() + 1000.0)


def test_frames_without_geometry_are_images(tmp_path: Path) -> None:
    (tmp_path / "cine.dcm").write_bytes(dicom_bytes(volume()))
    for found, wanted in zip(images(tmp_path), volume(), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("syntax", list(SYNTAXES))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_compressed_pixels_are_as_before(tmp_path: Path, syntax: str, dtype: type) -> None:
    pixels = picture().astype(dtype) * dtype(1 if dtype is np.uint8 else 200)
    (tmp_path / "a.dcm").write_bytes(compressed_dicom(syntax, pixels))
    np.testing.assert_array_equal(only(tmp_path), pixels)


def test_rle_and_gzip(tmp_path: Path) -> None:
    data = dicom_dataset(volume()[:, :, :])
    data.compress(pydicom.uid.RLELossless)
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    (tmp_path / "a.dcm.gz").write_bytes(gzip.compress(buffer.getvalue()))
    for found, wanted in zip(images(tmp_path), volume(), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("syntax", list(SYNTAXES))
def test_a_frame_of_another_size_than_its_file_is_refused(tmp_path: Path, syntax: str) -> None:
    data = pydicom.dcmread(io.BytesIO(compressed_dicom(syntax, picture())))
    data.Rows = 23
    data.save_as(tmp_path / "a.dcm")
    with pytest.raises(Unreadable):
        images(tmp_path)


def test_other_compression_is_named(tmp_path: Path) -> None:
    data = pydicom.dcmread(io.BytesIO(compressed_dicom("JPEG-LS", picture())))
    data.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
    data.save_as(tmp_path / "a.dcm")
    with pytest.raises(Unreadable, match="MPEG2"):
        images(tmp_path)
    buffer = io.BytesIO()
    data = dicom_dataset(picture())
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    data.save_as(buffer, enforce_file_format=True)
    (tmp_path / "a.dcm").write_bytes(buffer.getvalue())
    with pytest.raises(Unreadable, match="deflated"):
        images(tmp_path)


@pytest.mark.parametrize(
    ("name", "vr", "value"),
    [
        ("NumberOfFrames", "LO", "1A"), ("NumberOfFrames", "IS", "2147483647"),
        ("Rows", "US", [24, 24]), ("Rows", "LO", ""),
        ("RescaleSlope", "LO", "1,5"), ("RescaleSlope", "LO", "1\\2"), ("RescaleSlope", "LO", "nan"),
    ],
)  # fmt: skip
def test_a_bad_header_is_refused(tmp_path: Path, name: str, vr: str, value: object) -> None:
    data = dicom_dataset(picture())
    with pydicom.config.disable_value_validation():
        data[name] = pydicom.DataElement(name, vr, value)
        data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(Unreadable):
        images(tmp_path)


def test_no_name_from_the_header_becomes_an_id(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(dicom_bytes(picture()))
    assert "CANARY" not in repr(read_manifest(tmp_path, role=Role.REAL))


def test_the_patient_of_a_header_is_a_hash_and_comes_last(tmp_path: Path) -> None:
    for number, (name, issuer) in enumerate(
        [("1", ""), ("1", ""), ("2", ""), ("2", "H"), ("", "")]
    ):
        tags = {"PatientID": name, "IssuerOfPatientID": issuer}
        (tmp_path / f"p{number % 2}_{number}.dcm").write_bytes(
            dicom_bytes(picture() + number, **tags)
        )
    found = read_manifest(tmp_path, role=Role.REAL)
    people = {r.image_id[3:4]: r.subject_id for r in found.records}
    digest = hashlib.sha256(b"H\x002").hexdigest()[:12]
    assert people["0"] == people["1"] and people["4"] is None and people["3"] == f"dicom-{digest}"
    assert len(set(people.values())) == 4
    assert any(note.startswith("3 patients are those of DICOM headers") for note in found.notes)
    for forget, count in (("1", 2), ("2", 2), (people["2"], 1), (people["3"], 1)):
        left = read_manifest(tmp_path, role=Role.REAL, forget=Forget.of([forget]))
        # An id under every issuer.
        assert (left.images_left_out, len(left.records)) == (count, 5 - count)
    named = read_manifest(tmp_path, role=Role.REAL, subject_regex="^(p[01])_")
    assert {r.subject_id for r in named.records} == {"p0", "p1"}
    (tmp_path / "list.csv").write_text("path,subject_id\np0_0.dcm,A\np0_2.dcm,\n")
    listed = read_manifest(tmp_path / "list.csv", role=Role.REAL)
    assert [r.subject_id for r in listed.records] == ["A", people["2"]]


def test_one_patient_in_all_headers_is_a_placeholder(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number:02d}.dcm").write_bytes(dicom_bytes(picture() + number))
    found = read_manifest(tmp_path, role=Role.REAL)
    assert {r.subject_id for r in found.records} == {None}
    assert any("placeholder" in note for note in found.notes)


def test_a_damaged_file_is_listed(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"rubbish" * 20)
    with pytest.raises(Unreadable):
        images(tmp_path)


def test_a_file_without_pixels_is_no_image(tmp_path: Path) -> None:
    data = dicom_dataset(picture())
    for name in ("Rows", "Columns", "PixelData"):
        delattr(data, name)
    data.save_as(tmp_path / "report.dcm", enforce_file_format=True)
    (tmp_path / "a.dcm").write_bytes(dicom_bytes(picture()))
    found = read_manifest(tmp_path, role=Role.REAL)
    assert [r.image_id for r in found.records] == ["a.dcm"]
    assert [(u.name, u.reason) for u in found.unused] == [
        ("report.dcm", "a DICOM file without pixels")
    ]


@pytest.mark.parametrize("interpreter", [sys.executable, "/nowhere/python", "/bin/true"])
def test_headers_by_workers_are_those_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interpreter: str
) -> None:
    """Where a worker cannot be started or says nothing, its share is read here."""
    write_series(tmp_path / "grün \n series", volume(), EchoTime=3.5, PatientID="Zoë")
    (tmp_path / "frames.dcm").write_bytes(dicom_bytes(volume()))
    (tmp_path / "damaged.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 20)
    long = dicom_dataset(volume()[0])
    long.private_block(0x0029, "SCANNER", create=True).add_new(1, "OB", b"\0" * 40_000)
    long.save_as(tmp_path / "long.dcm", enforce_file_format=True)
    paths = sorted(tmp_path.rglob("*.dcm"))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(3), raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    monkeypatch.setattr(dicom_workers, "_LEAST", 2)
    monkeypatch.setattr("sys.executable", interpreter)
    here = {path: dicom.plain_header(path) for path in paths}
    assert dicom_workers.plain_headers(paths) == here
    assert sum(header is not None for header in here.values()) == len(volume()) + 1


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("name", ["a.dcm", "a"])
def test_a_file_that_begins_with_its_data_set(tmp_path: Path, name: str, implicit: bool) -> None:
    """As scanners wrote before 1993: no preamble, no file meta information."""
    data = pydicom.dcmread(io.BytesIO(dicom_bytes(picture())))
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, implicit
    pydicom.filewriter.write_dataset(buffer, Dataset(data))
    (tmp_path / name).write_bytes(buffer.getvalue())
    np.testing.assert_array_equal(only(tmp_path), picture())


@pytest.mark.parametrize(
    "kind",
    ["66.4", "66.7", "481.2"],
    ids=["segmentation", "label map", "dose"],
)
def test_arrays_about_images_are_no_images(tmp_path: Path, kind: str) -> None:
    data = dicom_bytes(picture(), SOPClassUID=f"1.2.840.10008.5.1.4.1.1.{kind}")
    (tmp_path / "a.dcm").write_bytes(data)
    (tmp_path / "b.dcm").write_bytes(dicom_bytes(picture()))
    found = read_manifest(tmp_path, role=Role.REAL)
    assert [r.image_id for r in found.records] == ["b.dcm"]
    assert [(u.name, u.reason) for u in found.unused] == [
        ("a.dcm", "a DICOM segmentation or dose grid, no image")
    ]


def test_a_damaged_slice_of_a_series_is_told_by_its_number(tmp_path: Path) -> None:
    write_series(tmp_path, volume())
    path = sorted(tmp_path.iterdir())[2]
    path.write_bytes(path.read_bytes()[:-20])
    count = len(list(tmp_path.iterdir()))
    with pytest.raises(Unreadable, match=f"slice 3 of its {count} is damaged or truncated"):
        images(tmp_path)


def test_a_large_intercept_leaves_the_picture_as_it_is(tmp_path: Path) -> None:
    pixels = np.arange(24 * 18, dtype=np.uint16).reshape(24, 18)
    found = single(tmp_path, pixels, RescaleSlope=1, RescaleIntercept=1e9)
    np.testing.assert_array_equal(found - found.min(), pixels)
    write_series(tmp_path / "series", volume(), RescaleSlope=1, RescaleIntercept=10**9)
    found = images(tmp_path / "series")[0]
    np.testing.assert_array_equal(found - found.min(), volume())


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "PALETTE COLOR"])
def test_more_pixels_than_one_image_has_are_no_channels(tmp_path: Path, photometric: str) -> None:
    data = {"PixelData": picture().tobytes() * 30, "PhotometricInterpretation": photometric}
    with pytest.raises(Unreadable, match="holds the pixels of 30 images .* declares one"):
        single(tmp_path, picture(), **data)
