"""Weights from files: converted there and back, ImageNet backbones, and what does not fit."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from deepssim_jax.cli.main import main
from deepssim_jax.interop import torch_files, torchvision
from deepssim_jax.interop.reference_networks import renamed
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.nn.convnext import ConvNeXtSpec
from deepssim_jax.nn.embedder import Embedder, EmbedderSpec, Head
from tests.interop.test_reference_networks import filled

SMALL = ConvNeXtSpec(channels=3, depths=(1, 1, 1, 1), dims=(8, 12, 16, 24))


@pytest.fixture(scope="module")
def published(golden_dir: Path, tmp_path_factory) -> tuple[Path, dict[str, np.ndarray]]:
    weights = filled(golden_dir / "reference_networks" / "deepssim_v2_state_dict.json")
    path = tmp_path_factory.mktemp("published") / "v2.safetensors"
    path.write_bytes(safetensors.numpy.save(weights))
    return path, weights


def test_convert_there_and_back_keeps_every_weight(published, tmp_path: Path) -> None:
    source, weights = published
    ours, back = tmp_path / "ours.safetensors", tmp_path / "back.safetensors"
    assert main(["convert", f"--source={source}", f"--out={ours}"]) == 0
    assert encoders.load_encoder(ours).spec == EmbedderSpec.tiny()
    assert main(["convert", f"--source={ours}", f"--out={back}", "--to=reference"]) == 0
    found = torch_files.read_state_dict(back)
    assert found.keys() == weights.keys()
    for name, value in weights.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_what_convert_cannot_take_is_an_input_error(published, tmp_path: Path, capsys) -> None:
    source, weights = published
    del weights["gem_a.p"]
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(safetensors.numpy.save(weights))
    for args, words in (
        ([f"--source={broken}", f"--out={tmp_path}/o.safetensors"], "gem_a.p: missing"),
        (
            [f"--source={tmp_path}/no.pt", f"--out={tmp_path}/o.safetensors"],
            "there is no such file",
        ),
        ([f"--source={source}", f"--out={tmp_path}/o.pth"], ".safetensors"),
    ):
        assert main(["convert", *args]) == 2
        assert words in capsys.readouterr().err
    assert not list(tmp_path.glob("o.*"))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("scripted", [False, True])
def test_pytorch_files_are_read_without_unpickling(tmp_path: Path, scripted: bool) -> None:
    torch = pytest.importorskip("torch", reason="the convert extra is not installed")
    layer, path = torch.nn.Linear(3, 2), tmp_path / "w.pt"
    if scripted:
        torch.jit.script(layer).save(str(path))
    else:
        torch.save({"state_dict": layer.state_dict()}, path)
    found = torch_files.read_state_dict(path)
    np.testing.assert_array_equal(found["weight"], layer.weight.detach().numpy())
    torch.save({"a": Path("x")}, path)
    with pytest.raises(ValueError, match="neither"):
        torch_files.read_state_dict(path)
    torch_files.write_state_dict(tmp_path / "b.pth", found)
    again = torch.load(tmp_path / "b.pth", weights_only=True)
    np.testing.assert_array_equal(again["bias"].numpy(), found["bias"])


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_imagenet_weights_give_a_grey_image_the_same_response(channels: int) -> None:
    """Whatever the number of input channels, a repeated grey image passes the stem alike."""
    donor = Embedder(EmbedderSpec(SMALL, Head.POOLED, hidden=8, dim=4, dropout=0), rngs=nnx.Rngs(3))
    names = renamed(encoders.from_module(donor))
    state = {
        n.replace("feature_extractor.", "features."): v
        for n, v in names.items()
        if n.startswith("feature_extractor.")
    } | {"classifier.2.weight": np.zeros((5, 24), np.float32)}
    backbone = ConvNeXtSpec(channels, SMALL.depths, SMALL.dims)
    model = Embedder(EmbedderSpec(backbone, Head.MULTISCALE, hidden=8, dim=4), rngs=nnx.Rngs(0))
    before = np.asarray(model.first.kernel[...])
    torchvision.load_backbone(model, state)
    grey = np.random.default_rng(0).normal(size=(2, 32, 32, 1)).astype(np.float32)
    ours = model.backbone(np.repeat(grey, channels, axis=-1))
    theirs = donor.backbone(np.repeat(grey, 3, axis=-1))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    np.testing.assert_array_equal(model.first.kernel[...], before)
    del state["features.1.0.layer_scale"]
    with pytest.raises(ValueError, match=r"features.1.0.layer_scale: missing"):
        torchvision.load_backbone(model, state)


def test_torchvision_numbers_its_parts_as_deepssim_does(golden_dir: Path) -> None:
    listing = golden_dir / "reference_networks" / "deepssim_v1_state_dict.json"
    published = {n for n, _ in json.loads(listing.read_text()) if n.startswith("feature_extractor")}
    model = nnx.eval_shape(lambda: Embedder(EmbedderSpec.base(), rngs=nnx.Rngs(0)))
    graph = encoders.Encoder(*nnx.split(model), EmbedderSpec.base())
    from deepssim_jax.interop.reference_networks import backbone_names

    ours = {n.replace("features.", "feature_extractor.") for n, _ in backbone_names(graph).values()}
    assert ours == published
