"""A folder becomes images of their own aspect on [0, 1], with patients, and a reason for the rest."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepssim_jax.data.kinds import read_kind
from deepssim_jax.data.manifest import InputError


def save(path: Path, image: np.ndarray) -> None:
    Image.fromarray(image.astype(np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    shapes = {"a_0": (60, 90), "b_0": (200, 100), "c_0": (48, 48), "e_0": (64, 64)}
    images = {name: rng.integers(10, 200, shape) for name, shape in shapes.items()}
    for name, image in images.items():
        save(tmp_path / f"{name}.png", image)
    save(tmp_path / "a_1.png", rng.integers(0, 255, (60, 60)))
    save(tmp_path / "d_0.png", images["e_0"])  # the picture of e under another patient
    save(tmp_path / "narrow_0.png", rng.integers(0, 255, (20, 100)))
    save(tmp_path / "flat_0.png", np.full((64, 64), 7))
    return tmp_path


def test_images_keep_their_aspect_and_patients_their_images(folder: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    kind = read_kind(
        folder,
        name="noise",
        side=100,
        subject_regex="^([a-z]+)_",
        on_progress=lambda *c: calls.append(c),
    )
    shapes = {i: x.shape for i, x in zip(kind.image_ids, kind.images, strict=True)}
    assert shapes == {
        "a_0.png": (60, 90), "a_1.png": (60, 60), "b_0.png": (100, 50), "c_0.png": (48, 48),
        "d_0.png": (64, 64), "e_0.png": (64, 64),
    }  # fmt: skip
    for image in kind.images:
        assert image.dtype == np.float32 and image.min() == 0 and image.max() == 1
    assert kind.patients.dtype == np.int32
    assert kind.patients.tolist() == [0, 0, 1, 2, 3, 3]  # d and e show the same picture
    reasons = {r.image_id: r.reason for r in kind.rejected}
    assert set(reasons) == {"narrow_0.png", "flat_0.png"}
    assert "20 x 100 pixels; edits need 48" in reasons["narrow_0.png"]
    assert calls[-1] == (8, 8, "reading noise images")
    a_0 = np.asarray(Image.open(folder / "a_0.png"), float)
    assert np.allclose(kind.images[0], (a_0 - a_0.min()) / np.ptp(a_0), atol=1e-6)


def test_without_a_pattern_every_image_is_a_patient(folder: Path) -> None:
    assert read_kind(folder, name="noise", side=256).patients.tolist() == [0, 1, 2, 3, 4, 4]


def test_a_folder_without_an_image_is_refused_with_a_reason(tmp_path: Path) -> None:
    save(tmp_path / "flat.png", np.full((64, 64), 7))
    with pytest.raises(InputError, match="no image can be used.*constant"):
        read_kind(tmp_path, name="flat", side=256)
