"""SSCD sees what its authors advise, by a stand-in for ONNX Runtime, and says what is missing."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from benchmarks.methods import sscd
from deepssim_jax.scoring.methods import cosine

REAL = ndimage.gaussian_filter(
    np.random.default_rng(0).standard_normal((5, 128, 128)), (0, 3, 3)
).astype(np.float32)


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
    found = sscd.embedding(file)(100 + 7 * REAL)
    assert found.shape == (5, 36)
    assert runtime.seen[0].shape[1:] == (288, 288, 3) and runtime.seen[0].dtype == np.uint8
    for image, seen in zip(REAL, runtime.seen[0], strict=False):
        unit = 255 * (image - image.min()) / (image.max() - image.min())
        wanted = Image.fromarray(unit).resize((288, 288), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(seen[..., 1], np.asarray(wanted), atol=0.51)
    assert cosine(sscd.embedding(file))(REAL, 2 * REAL + 1).min() > 0.9999


def test_sscd_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "other.onnx"
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match="pip install onnxruntime"):
        sscd.embedding(file)
    monkeypatch.setitem(sys.modules, "onnxruntime", _Runtime("tensor(float)"))
    with pytest.raises(ValueError, match=r"other.onnx cannot be read .* no such file"):
        sscd.embedding(file)
    file.write_bytes(b"network")
    with pytest.raises(ValueError, match=r"must take one uint8 array \[n, h, w, 3\]"):
        sscd.embedding(file)
