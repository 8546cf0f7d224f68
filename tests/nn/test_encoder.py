"""Networks and their files."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

import deepssim_jax as ds
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.nn.convnext import ConvNeXtSpec
from deepssim_jax.nn.embedder import Embedder, EmbedderSpec, Head
from tests.kept import small_encoder


@pytest.fixture(scope="module")
def shipped() -> ds.Encoder:
    return ds.load_encoder("default")


def images(n: int = 5, size: int = 96) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, size, size)).astype(np.float32).cumsum(1)


def parameters(spec: EmbedderSpec) -> int:
    return sum(int(np.prod(shape)) for shape in encoders.tensor_shapes(spec).values())


def test_specifications_have_the_published_sizes() -> None:
    """ConvNeXt-Base and -Tiny have 87.6 and 27.8 million parameters without their classifiers."""
    assert parameters(EmbedderSpec.base()) == pytest.approx(88.2e6, rel=0.01)
    assert parameters(EmbedderSpec.tiny()) == pytest.approx(29.3e6, rel=0.01)
    assert 3.5e6 < parameters(EmbedderSpec.nano()) < 4.5e6


def test_the_shipped_file_is_small_and_safe() -> None:
    path = Path(encoders.__file__).parent.parent / "weights" / "nano.safetensors"
    assert path.stat().st_size <= 16_000_000
    assert (path.parent / "README.md").read_text().startswith("# nano.safetensors")


def test_embeddings_know_neither_batch_nor_scale(shipped: ds.Encoder) -> None:
    """Of the shipped network; in another batch, which is another program, of a small one."""
    given, small = images(), small_encoder()
    found = ds.embed(shipped, given)
    assert found.shape == (5, 256) and found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    few = ds.embed(small, given[:, :64, :64], batch_size=2)
    np.testing.assert_allclose(few, ds.embed(small, given[:, :64, :64]), atol=1e-5)
    np.testing.assert_allclose(ds.embed(shipped, 7 * given + 100), found, atol=1e-4)
    np.testing.assert_allclose(ds.embed(shipped, given[::-1]), found[::-1], atol=1e-5)
    assert ds.embed(shipped, given[:0]).shape == (0, 256)


def test_wrong_shapes_say_the_remedy(shipped: ds.Encoder) -> None:
    with pytest.raises(ValueError, match="needs a leading axis"):
        ds.embed(shipped, images()[0])


def test_the_same_encoder_makes_the_same_file(shipped: ds.Encoder, tmp_path: Path) -> None:
    """Whatever the order of its card, which the library shuffles; so its hash names the network."""
    card = {name: f"{name} \u00e9" for name in "qwertzuiopasdfghjkl"}
    paths = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    encoders.save_encoder(paths[0], shipped, card=card)
    encoders.save_encoder(paths[1], shipped, card=dict(reversed(card.items())))
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with safetensors.safe_open(paths[0], framework="numpy") as file:
        assert card.items() <= file.metadata().items()
    found = safetensors.numpy.load_file(paths[0])
    for name, value in encoders.to_tensors(shipped).items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_a_file_that_does_not_fit_is_refused_with_everything_wrong(
    shipped: ds.Encoder, tmp_path: Path
) -> None:
    good = tmp_path / "good.safetensors"
    encoders.save_encoder(good, shipped, card={})
    tensors = safetensors.numpy.load_file(good)
    with safetensors.safe_open(good, framework="numpy") as file:
        metadata = file.metadata()
    del tensors["first.bias"]
    tensors["extra"] = np.zeros(1, np.float32)
    tensors["second.bias"] = np.zeros(3, np.float32)
    bad = tmp_path / "bad.safetensors"
    safetensors.numpy.save_file(tensors, bad, metadata=metadata)
    with pytest.raises(ValueError, match=r"first.bias: missing; extra: unknown; second.bias"):
        ds.load_encoder(bad)
    (tmp_path / "text.safetensors").write_text("not safetensors")
    with pytest.raises(ValueError, match=r"text\.safetensors"):
        ds.load_encoder(tmp_path / "text.safetensors")
    with pytest.raises(ValueError, match=r"missing\.safetensors"):
        ds.load_encoder(tmp_path / "missing.safetensors")


def test_files_give_back_what_was_saved(shipped: ds.Encoder, tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    encoders.save_encoder(path, shipped, card={"data": "none"})
    loaded = ds.load_encoder(path)
    assert loaded.spec == shipped.spec
    assert dataclasses.asdict(loaded.spec) == dataclasses.asdict(EmbedderSpec.nano())
    np.testing.assert_array_equal(ds.embed(loaded, images()), ds.embed(shipped, images()))


def test_mirrorings_have_one_embedding() -> None:
    """The mean of four views, each by the network as it was trained."""
    made = small_encoder()
    spec = dataclasses.replace(made.spec, mirrored=True)
    mirrored = encoders.from_params(spec, made.state)
    single = encoders.from_params(dataclasses.replace(spec, mirrored=False), made.state)
    x = images(5, 64)
    found = ds.embed(mirrored, x)
    turned = (x, x[:, :, ::-1], x[:, ::-1], x[:, ::-1, ::-1])
    mean = np.mean([ds.embed(single, view) for view in turned], axis=0)
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean, axis=1)[:, None], atol=1e-5)
    for view in turned:
        np.testing.assert_allclose(ds.embed(mirrored, view), found, atol=1e-5)


def test_values_of_either_sign_are_pooled_by_themselves() -> None:
    """As a ReLU of both signs and a mean of third powers give it."""
    backbone = ConvNeXtSpec(channels=1, depths=(1, 1, 1, 1), dims=(6, 6, 8, 10))
    spec = EmbedderSpec(backbone, Head.MULTISCALE, hidden=12, dim=8, dropout=0, signed=True)
    model = Embedder(spec, rngs=nnx.Rngs(1))
    # In one program: operation by operation there are a hundred to be compiled.
    stages, found = jax.jit(lambda x: (model.backbone(x[..., None]), model(x)))(images(3, 64))
    stages = [np.asarray(stage, np.float64) for stage in stages]
    parts = [sign * stage for stage in stages for sign in (1, -1)]
    pooled = np.concatenate(
        [np.cbrt((np.maximum(p, 1e-6) ** 3).mean((1, 2))) for p in parts], axis=1
    )
    assert pooled.shape == (3, 2 * (6 + 6 + 8 + 10)) and (pooled > 1e-3).mean() > 0.8
    x = model.norm(pooled.astype(np.float32))
    expected = model.second(jax.nn.gelu(model.first(x), approximate=False))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_family_of_another_version_is_named(shipped: ds.Encoder, tmp_path: Path) -> None:
    tensors = {name: np.asarray(x) for name, x in encoders.to_tensors(shipped).items()}
    spec = {**encoders._fields(shipped.spec), "family": "efficientnet"}
    path = tmp_path / "lite0.safetensors"
    safetensors.numpy.save_file(tensors, path, metadata={"spec": json.dumps(spec)})
    with pytest.raises(
        ValueError, match="the family 'efficientnet', and this version has convnext"
    ):
        ds.load_encoder(path)


def test_specifications_that_cannot_work() -> None:
    with pytest.raises(ValueError, match="four mirrorings"):
        dataclasses.replace(EmbedderSpec.volume(), mirrored=True)
    with pytest.raises(ValueError, match="gains nothing by signs"):
        dataclasses.replace(EmbedderSpec.base(), signed=True)
