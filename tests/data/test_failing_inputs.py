"""The project's collection of inputs that once failed; the kinds are made by formula elsewhere."""

from pathlib import Path

import numpy as np
import pytest

from deepssim_jax.data.manifest import Role, read_manifest
from deepssim_jax.data.readers import read_image
from deepssim_jax.data.records import ArrayLayout, Record
from deepssim_jax.data.volume import SliceSpec, Unreadable

INPUTS = Path(__file__).resolve().parents[2].parent / "shared" / "failing_inputs"
pytestmark = pytest.mark.skipif(
    not INPUTS.exists(), reason="shared/failing_inputs is not beside the repository"
)


def records(name: str, **options) -> dict[str, Record]:
    found = read_manifest(INPUTS / name, role=Role.REAL, **options).records
    return {r.image_id: r for r in found if not r.path.name.startswith("truth")}


def alike(record: Record, truth: np.ndarray, spec: str = "axial:0.5") -> bool:
    """Whether an image is the truth up to a change of intensities that keeps its contrast."""
    image = read_image(record, spec=SliceSpec.parse(spec)).astype(float)
    if image.shape != truth.shape:
        return False
    spread = [np.std((x - x.min()) / np.ptp(x)) for x in (image, truth.astype(float))]
    return np.corrcoef(image.ravel(), truth.ravel())[0, 1] > 0.98 and spread[0] > spread[1] / 2


@pytest.mark.parametrize(
    "name",
    [
        "07_palette_color", "08_modality_lut", "09_pixel_padding", "10_tiff_as_pillow_reads_it",
        "12_exif_orientation", "13_complex_nifti", "14_oblong_pixels_in_one_dicom_file",
        "25_nifti2_and_2d_nifti", "30_one_hot_value",
    ],
)  # fmt: skip
def test_every_image_of_these_is_the_truth(name: str) -> None:
    truth = np.load(INPUTS / name / "truth.npy")
    found = records(name)
    assert found
    assert [r.image_id for r in found.values() if not alike(r, truth)] == []


def test_enhanced_files() -> None:
    folder = INPUTS / "03_enhanced_multiframe"
    for record in records(folder.name).values():
        coronal = record.path.name.startswith("per_frame")
        truth = "truth_per_frame_rescale_coronal.npy" if coronal else "truth.npy"
        spec = "coronal:0.5" if coronal else "axial:0.5"
        assert alike(record, np.load(folder / truth), spec), record.image_id


@pytest.mark.parametrize("name", ["04_series_of_mixed_planes", "05_series_with_two_echoes"])
def test_one_of_the_two_stacks_is_the_truth(name: str) -> None:
    found = records(name)
    truth = np.load(INPUTS / name / "truth.npy")
    assert len(found) == 2
    assert sum(alike(r, truth) for r in found.values()) == 1


def test_series_of_files_without_a_suffix() -> None:
    found = records("06_series_half_without_suffix")
    assert sorted(len(r.parts) for r in found.values()) == [3, 3, 24]
    (whole,) = [r for r in found.values() if len(r.parts) == 24]
    assert alike(whole, np.load(INPUTS / "06_series_half_without_suffix" / "truth.npy"))


def test_several_images_in_one_file() -> None:
    names = [name.partition("#")[0] for name in records("11_several_images_in_one_file")]
    assert {name: names.count(name) for name in names} == {
        "stack.tif": 8, "samples.npy": 8, "mask_first.npz": 1, "medmnist_like.npz": 8,
        "one_by_one_by.npy": 1,
    }  # fmt: skip


def test_images_of_one_template() -> None:
    found = records("15_dicom_images_from_one_template")
    assert sorted(max(len(r.parts), 1) for r in found.values()) == [1, 1, 1, 1, 1, 1, 6]


def test_no_file_is_ignored() -> None:
    mixed = read_manifest(INPUTS / "16_files_ignored_without_a_word" / "mixed", role=Role.REAL)
    assert not mixed.rejected and not mixed.unused
    assert mixed.counts.used == mixed.counts.found == 10
    bids = read_manifest(INPUTS / "16_files_ignored_without_a_word" / "bids", role=Role.REAL)
    assert (bids.counts.found, bids.counts.used) == (7, 6)


def test_bad_headers_are_refused_or_read() -> None:
    folder = INPUTS / "21_one_bad_dicom_header_ends_the_audit"
    refused = set()
    for kind in sorted(p.name for p in folder.iterdir() if p.is_dir()):
        for record in records(f"{folder.name}/{kind}").values():
            try:
                read_image(record, spec=SliceSpec.parse("axial:0.5"))
            except Unreadable:
                refused.add(kind)
    # Without an orientation, every file of the series is an image of its own.
    assert {p.name for p in folder.iterdir() if p.is_dir()} - refused == {
        "series_orientation_empty", "series_orientation_short"
    }  # fmt: skip


def test_monochrome1_series() -> None:
    (record,) = records("26_monochrome1_series").values()
    truth = np.load(INPUTS / "26_monochrome1_series" / "truth_coronal.npy")
    assert alike(record, truth, "coronal:0.5")


def test_manifests() -> None:
    for path in (INPUTS / "27_manifests").glob("*.csv"):
        (record,) = read_manifest(path, role=Role.REAL).records
        assert record.path.name == "0.png", path.name


def test_an_array_in_nibabels_order() -> None:
    name = "29_numpy_volume_in_array_order"
    truth = np.load(INPUTS / name / "truth.npy")
    for record in records(name, arrays=ArrayLayout.XYZ).values():
        assert alike(record, truth), record.image_id
    notes = read_manifest(INPUTS / name, role=Role.REAL).notes
    assert any("stacks of images; --arrays=zyx" in note for note in notes)


def test_the_reference_layout_with_a_stray_file() -> None:
    for kind in ("root", "stray"):
        root = INPUTS / "24_reference_layout_in_one_root" / kind
        real, synthetic = (read_manifest(root, role=r) for r in (Role.REAL, Role.SYNTHETIC))
        assert (len(real.records), len(synthetic.records)) == (24, 8)
        assert len(real.rejected) == (kind == "stray")
