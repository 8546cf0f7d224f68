"""Each method against its definition, by NumPy and scikit-image."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from deepssim_jax.nn.encoder import load_encoder
from deepssim_jax.scoring import methods as rooms

skimage = pytest.importorskip("skimage.metrics", reason="scikit-image is the peer of SSIM")


def pictures(count: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((count, 128, 128))
    return sum(s * ndimage.gaussian_filter(noise, (0, s, s)) for s in (2, 6, 15)).astype(np.float32)


REAL, OTHER = pictures(5, 0), pictures(5, 1)
BLEND = 0.7 * REAL + 0.3 * OTHER
METHODS = rooms.methods(load_encoder())


@pytest.mark.parametrize("name", METHODS)
def test_a_copy_scores_above_a_blend_and_that_above_a_stranger(name: str) -> None:
    scores = [METHODS[name](REAL, x) for x in (REAL, BLEND, OTHER)]
    assert all(len(s) == len(REAL) for s in scores)
    assert scores[0].min() > scores[1].max() > scores[1].mean() > scores[2].mean(), scores


def test_ncc_is_pearson() -> None:
    expected = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(REAL, BLEND, strict=True)]
    np.testing.assert_allclose(METHODS["ncc"](REAL, BLEND), expected, atol=1e-5)


def test_l2_by_hand() -> None:
    """Three pixels of 0, 1, 2 against 0, 2, 1, one row each: units (0, 1, 2) / sqrt(5)."""
    a, b = (np.array([[row]], np.float32) for row in ([0.0, 1.0, 2.0], [0.0, 2.0, 1.0]))
    expected = 2 - np.sqrt(2 - 2 * (2 + 2) / 5)
    np.testing.assert_allclose(METHODS["l2"](a, b), [expected], atol=1e-6)


def test_ssim_is_that_of_the_reference_method() -> None:
    z = [(x - x.mean((1, 2), keepdims=True)) / x.std((1, 2), keepdims=True) for x in (REAL, BLEND)]
    expected = [
        skimage.structural_similarity(a, b, data_range=a.max() - a.min())
        for a, b in zip(*z, strict=True)
    ]
    np.testing.assert_allclose(METHODS["ssim"](REAL, BLEND), expected, atol=1e-5)


def test_a_cosine_takes_any_embedding() -> None:
    method = rooms.cosine(lambda images: images.mean(2))
    a, b = REAL.mean(2), BLEND.mean(2)
    expected = (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))
    np.testing.assert_allclose(method(REAL, BLEND), expected, rtol=1e-5)


class _Runtime(types.ModuleType):
    """In place of ONNX Runtime, which is no dependency: a network that averages pixels of a file."""

    def __init__(self, kind: str = "tensor(uint8)"):
        super().__init__("onnxruntime")
        self.kind, self.seen = kind, []

    def InferenceSession(self, path: str, providers: list[str]) -> "_Runtime":
        if not Path(path).is_file():
            raise RuntimeError("no such file")
        return self

    def get_inputs(self) -> list[types.SimpleNamespace]:
        shape = ["batch", "height", "width", 3]
        return [types.SimpleNamespace(name="image", type=self.kind, shape=shape)]

    def run(self, _: None, given: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.seen.append(given["image"])
        return [given["image"][..., 0].reshape(len(given["image"]), -1, 36).mean(1)]


def test_sscd_sees_whole_images_in_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runtime, file = _Runtime(), tmp_path / "sscd.onnx"
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    file.write_bytes(b"network")
    found = rooms.sscd(file)(100 + 7 * REAL)
    assert found.shape == (5, 36)
    assert runtime.seen[0].shape[1:] == (288, 288, 3) and runtime.seen[0].dtype == np.uint8
    for image, seen in zip(REAL, runtime.seen[0], strict=False):
        unit = 255 * (image - image.min()) / (image.max() - image.min())
        wanted = Image.fromarray(unit).resize((288, 288), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(seen[..., 1], np.asarray(wanted), atol=0.51)
    assert rooms.cosine(rooms.sscd(file))(REAL, 2 * REAL + 1).min() > 0.9999


def test_sscd_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "other.onnx"
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match="pip install onnxruntime"):
        rooms.sscd(file)
    monkeypatch.setitem(sys.modules, "onnxruntime", _Runtime("tensor(float)"))
    with pytest.raises(ValueError, match=r"other.onnx cannot be read .* no such file"):
        rooms.sscd(file)
    file.write_bytes(b"network")
    with pytest.raises(ValueError, match=r"must take one uint8 array \[n, h, w, 3\]"):
        rooms.sscd(file)
