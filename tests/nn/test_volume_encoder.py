"""The encoder of whole volumes: against the same network in PyTorch, its pairs, and its use."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import deepssim_jax as ds
from deepssim_jax.cli.exit_codes import ExitCode
from deepssim_jax.cli.main import main
from deepssim_jax.data import anatomy
from deepssim_jax.data.phantom_heads import angiograms
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.nn.convnext import ConvNeXtSpec
from deepssim_jax.nn.embedder import Embedder, EmbedderSpec, Head
from deepssim_jax.nn.volume_embedding import embed_volumes
from deepssim_jax.ops.augment import AugmentConfig
from deepssim_jax.ops.intensity import zscore
from deepssim_jax.training import similarity
from deepssim_jax.training.pairs import ECHO, PairBatch, PairMaker
from deepssim_jax.training.step import OptimizerConfig, Trainer

SMALL = ConvNeXtSpec(
    channels=1, depths=(1, 1, 1, 1), dims=(8, 12, 16, 24), layer_scale=0.1, space=3, kernel=3
)
SPEC = EmbedderSpec(SMALL, Head.MULTISCALE, hidden=20, dim=16, dropout=0.0, resolution=32)


@pytest.fixture(scope="module")
def maker() -> PairMaker:
    return PairMaker(
        anatomy=anatomy.procedural(),
        seed=3,
        batch=16,
        size=16,
        augment=AugmentConfig.volumes(),
        space=3,
    )


def in_torch(weights: dict, x):
    """Unit rows [n, dim] of volumes [n, d, h, w], by torch's own layers and our names."""
    from torch.nn import functional as f

    def norm(x, name: str, epsilon: float = 1e-6):
        return f.layer_norm(
            x, x.shape[-1:], weights[f"{name}.scale"], weights[f"{name}.bias"], epsilon
        )

    def linear(x, name: str):
        return x @ weights[f"{name}.kernel"] + weights[f"{name}.bias"]

    x, pooled = x[..., None], []
    for stage, width in enumerate(SMALL.dims):
        at, patch = f"backbone.stages.{stage}", 2 if stage else 4
        x = norm(x, f"{at}.norm") if stage else x
        kernel = weights[f"{at}.patches.linear.kernel"].reshape(*(patch,) * 3, x.shape[-1], width)
        x = f.conv3d(x.movedim(-1, 1), kernel.permute(4, 3, 0, 1, 2), stride=patch).movedim(1, -1)
        x = x + weights[f"{at}.patches.linear.bias"]
        x = x if stage else norm(x, f"{at}.norm")
        block = f"{at}.blocks.0"
        kernel = weights[f"{block}.depthwise"].movedim(-1, 0)[:, None]
        y = f.conv3d(x.movedim(-1, 1), kernel, padding=1, groups=width).movedim(1, -1)
        y = norm(y + weights[f"{block}.depthwise_bias"], f"{block}.norm")
        y = linear(f.gelu(linear(y, f"{block}.expand")), f"{block}.project")
        x = x + y * weights[f"{block}.scale"]
        p = weights[f"pools.{stage}.p"]
        pooled.append(x.clamp(min=1e-6).pow(p).mean((1, 2, 3)).pow(1 / p))
    import torch

    hidden = linear(norm(torch.cat(pooled, -1), "norm", 1e-5), "first")
    return f.normalize(linear(f.gelu(hidden), "second"), dim=-1)


def test_loss_and_gradients_equal_those_of_torch() -> None:
    torch = pytest.importorskip("torch", reason="the convert extra is not installed")
    trainer = Trainer.create(SPEC, OptimizerConfig())
    state = trainer.init(0)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 32, 32, 32)).astype(np.float32)
    target = rng.uniform(size=3).astype(np.float32)
    batch = PairBatch(*map(jnp.asarray, (a, 0.6 * a + 0.8 * b, target)))
    (loss, _), gradients = jax.value_and_grad(trainer.loss, has_aux=True)(
        state.params, state.stats, batch, state.step
    )
    weights = {
        name: torch.tensor(np.asarray(value), requires_grad=True)
        for name, value in encoders.named(state.params).items()
    }
    rows = [in_torch(weights, torch.tensor(np.asarray(side))) for side in (batch.a, batch.b)]
    theirs = (((rows[0] * rows[1]).sum(-1) - torch.tensor(target)) ** 2).mean()
    theirs.backward()
    assert float(loss) == pytest.approx(theirs.item(), rel=1e-4)
    largest = max(float(w.grad.abs().max()) for w in weights.values())
    for name, ours in encoders.named(gradients).items():
        expected = weights[name].grad.numpy()
        scale = max(np.abs(expected).max(), 1e-3 * largest)
        np.testing.assert_allclose(ours / scale, expected / scale, atol=1e-4, err_msg=name)


def test_targets_are_the_ssim_of_volumes() -> None:
    rng = np.random.default_rng(1)
    a, b = (np.asarray(zscore(rng.random((4, 16, 16, 16)), spatial_dims=3)) for _ in range(2))
    found = np.asarray(similarity.similarity_in_place(a, b))
    for row in range(4):
        expected = ds.ssim(
            np.repeat(a[row : row + 1], 4, 0),
            b,
            data_range="first",
            reduction="none",
            spatial_dims=3,
        )
        np.testing.assert_allclose(found[row], expected, atol=1e-5)


def test_pairs_of_volumes_are_a_function_of_their_step(maker: PairMaker) -> None:
    several = [maker(5 + step) for step in range(0, 4 * ECHO, ECHO)]
    first, other = several[:2]
    again = dataclasses.replace(maker)(5)
    assert first.a.shape == (16, 16, 16, 16) and first.all is not None
    np.testing.assert_array_equal(first.a, again.a)
    assert np.abs(np.asarray(first.a) - np.asarray(other.a)).max() > 0.1
    targets = np.concatenate([np.asarray(batch.target) for batch in several])
    assert targets.max() == pytest.approx(1.0, abs=1e-4) and targets.min() < 0.5
    still = dataclasses.replace(maker, augment=AugmentConfig())(5)  # nothing is moved apart
    expected = ds.ssim(still.a, still.b, data_range="first", reduction="none", spatial_dims=3)
    np.testing.assert_allclose(still.target, expected, atol=1e-4)
    np.testing.assert_array_equal(first.target, still.target)


def test_volumes_are_embedded_whole_at_any_size(tmp_path: Path) -> None:
    encoder = encoders.from_module(Embedder(SPEC, rngs=nnx.Rngs(0)))
    encoders.save_encoder(tmp_path / "volume.safetensors", encoder, card={})
    encoder = ds.load_encoder(tmp_path / "volume.safetensors")
    assert encoder.spec == SPEC
    volumes = np.random.default_rng(0).random((11, 40, 36, 44)).astype(np.float32)
    found = embed_volumes(encoder, volumes)
    assert found.shape == (11, 16)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(embed_volumes(encoder, 3 * volumes + 5), found, atol=1e-4)
    with pytest.raises(ValueError, match=r"must be \[n, d, h, w\], volumes"):
        ds.embed(encoder, volumes[0])


def test_a_network_for_volumes_is_no_auditor_of_images(tmp_path: Path, capsys) -> None:
    encoder = encoders.from_module(Embedder(SPEC, rngs=nnx.Rngs(0)))
    encoders.save_encoder(tmp_path / "volume.safetensors", encoder, card={})
    rng = np.random.default_rng(0)
    for side in ("real", "synthetic"):
        (tmp_path / side).mkdir()
        for i in range(3):
            np.save(tmp_path / side / f"{i}.npy", rng.random((64, 64)))
    code = main(
        [
            *("audit", f"--real={tmp_path / 'real'}"),
            *(f"--synthetic={tmp_path / 'synthetic'}", f"--out={tmp_path / 'out'}"),
            f"--encoder={tmp_path / 'volume.safetensors'}",
        ]
    )
    assert code == 2
    assert "embeds volumes" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["images=somewhere", "initial=default", "augment=stress"])
def test_settings_that_belong_to_images_are_refused(change: str, tmp_path: Path, capsys) -> None:
    config = Path(__file__).resolve().parents[2] / "configs" / "deepssim_volume.py"
    argv = ["train_encoder", f"--config={config}:smoke", f"--workdir={tmp_path}"]
    assert main([*argv, f"--config.{change}"]) == 2
    assert change.split("=")[0] in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_trains_it_and_replicas_takes_it(tmp_path: Path, capsys) -> None:
    config = Path(__file__).resolve().parents[2] / "configs" / "deepssim_volume.py"
    train = ["train_encoder", f"--config={config}:smoke", f"--workdir={tmp_path / 'run'}"]
    assert main(train) == 0 and "phantom volumes" in capsys.readouterr().out
    for side, seed in (("real", 0), ("synthetic", 1)):
        (tmp_path / side).mkdir()
        volumes = angiograms(jax.random.key(seed), 4, size=(32, 32, 32)).volumes
        for number, volume in enumerate(np.asarray(volumes)):
            np.save(tmp_path / side / f"{number}.npy", volume)
    search = [
        *("replicas", f"--real={tmp_path / 'real'}", f"--synthetic={tmp_path / 'synthetic'}"),
        *(f"--out={tmp_path / 'out'}", "--size=32", "--modality=angiography"),
        f"--encoder={tmp_path / 'run' / 'encoder.safetensors'}",
    ]
    assert main(search) == ExitCode.INCONCLUSIVE  # four volumes carry no verdict
    assert (tmp_path / "out" / "report.html").exists()


def test_published_specifications_are_for_images() -> None:
    for spec in (EmbedderSpec.base(), EmbedderSpec.tiny(), EmbedderSpec.nano()):
        assert (spec.backbone.space, spec.backbone.kernel) == (2, 7)
    with pytest.raises(dataclasses.FrozenInstanceError):
        SPEC.dim = 3  # type: ignore[misc]
