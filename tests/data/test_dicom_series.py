"""DICOM made here: which files and frames make a volume, in which order."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from deepssim_jax.data.manifest import Role, read_manifest
from deepssim_jax.data.readers import read_image, read_volume
from deepssim_jax.data.volume import SliceSpec, Unreadable
from tests.data.dicom_folders import images, only
from tests.data.made import (
    SC,
    dicom_bytes,
    dicom_dataset,
    volume,
    write_series,
)

CORONAL = SliceSpec.parse("coronal:1")


def item(**tags: object) -> Dataset:
    data = Dataset()
    for name, value in tags.items():
        setattr(data, name, value)
    return data


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


def test_a_damaged_slice_of_a_series_is_told_by_its_number(tmp_path: Path) -> None:
    write_series(tmp_path, volume())
    path = sorted(tmp_path.iterdir())[2]
    path.write_bytes(path.read_bytes()[:-20])
    count = len(list(tmp_path.iterdir()))
    with pytest.raises(Unreadable, match=f"slice 3 of its {count} is damaged or truncated"):
        images(tmp_path)
