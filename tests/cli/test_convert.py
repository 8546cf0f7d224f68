"""MONAI's networks to ours and back by command: every weight has its place, and what is missing is said."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from deepssim_jax.audit.generation import Generator, SamplingSettings
from deepssim_jax.cli.main import main
from deepssim_jax.interop import monai_networks, torch_files
from deepssim_jax.nn import network_file
from deepssim_jax.nn.autoencoder import AutoencoderSpec
from deepssim_jax.nn.network_file import Spec
from deepssim_jax.nn.unet import UNetSpec
from deepssim_jax.training.generator import AUTOENCODER, DENOISER, RECORDS
from tests.interop.test_monai_networks import CONDITIONED, PLAIN, close, merged, twin_of, weights

GROUPS = "--norm_num_groups=8"
VAE = AutoencoderSpec(channels=(16, 32, 32), blocks=1, groups=8)
UNET = [GROUPS, "--latent_scale=0.5", "--size=12,10", "--prediction=v"]


def convert(source: Path, out: Path, *more: str) -> int:
    return main(["convert", f"--source={source}", f"--out={out}", *more])


def theirs(folder: Path, spec: Spec) -> Path:
    path = folder / f"theirs-{type(spec).__name__}.safetensors"
    torch_files.write_state_dict(path, monai_networks.to_monai(spec, weights(spec)))
    return path


@pytest.mark.parametrize("spec", [VAE, PLAIN, CONDITIONED], ids=["vae", "plain", "conditioned"])
def test_the_specification_is_read_from_the_shapes(spec: Spec) -> None:
    heads = spec.heads if isinstance(spec, UNetSpec) else ()
    state_dict = monai_networks.to_monai(spec, weights(spec))
    assert monai_networks.spec_of(state_dict, groups=8, heads=heads) == spec


@pytest.mark.parametrize(
    ("spec", "more"),
    [
        (VAE, [GROUPS]),
        (PLAIN, [*UNET, "--num_head_channels=0,32,24"]),
        (CONDITIONED, [*UNET, "--num_head_channels=0,16,48"]),
    ],
    ids=["vae", "plain", "conditioned"],
)
def test_there_and_back_without_pytorch(
    tmp_path: Path, spec: Spec, more: list[str], capsys
) -> None:
    source, ours, back = (
        theirs(tmp_path, spec),
        tmp_path / "ours.safetensors",
        tmp_path / "b.safetensors",
    )
    assert convert(source, ours, *more) == 0
    found, state, card = network_file.load(ours, type(spec))
    assert found == spec and card["converted_from"] == source.name
    assert convert(ours, back, "--to=monai") == 0
    assert "groups" in capsys.readouterr().out
    one, other = (torch_files.read_state_dict(path) for path in (source, back))
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(other[name], value, err_msg=name)


def test_converted_networks_generate(tmp_path: Path) -> None:
    """What MONAI's files do not say is given by flags; the rest of the folder is for a user to write."""
    folder = tmp_path / "ldm"
    assert convert(theirs(tmp_path, VAE), folder / AUTOENCODER, GROUPS) == 0
    heads = "--num_head_channels=0,32,24"
    assert (
        convert(theirs(tmp_path, PLAIN), folder / DENOISER, *UNET, heads, "--betas=0.001,0.02") == 0
    )
    with pytest.raises(ValueError, match="holds no records.csv, which train_ldm writes"):
        Generator.load(folder)
    (folder / RECORDS).write_text("image_id,subject_id,copies,sha256\na.png,a,1,x\n")
    model = Generator.load(folder)
    assert (model.scale, model.size) == (0.5, (12, 10))
    assert (model.schedule.first, model.schedule.last) == (0.001, 0.02)
    assert model.schedule.prediction.value == "v"
    made = model.images([0], seed=0, settings=SamplingSettings(steps=2, batch=1))
    assert made.shape == (1, 12, 10) and np.isfinite(made).all()


def test_all_that_does_not_fit_is_one_message(tmp_path: Path, capsys) -> None:
    source, ours = theirs(tmp_path, PLAIN), tmp_path / "o.safetensors"
    changed = torch_files.read_state_dict(source)
    for number in range(12):
        changed[f"surplus.{number}"] = np.zeros(1, np.float32)
    changed["out.2.conv.weight"] = changed["out.2.conv.weight"][:2]
    del changed["out.0.bias"]
    source.write_bytes(safetensors.numpy.save(changed))
    assert convert(source, ours, *UNET, "--num_head_channels=8") == 2
    said = capsys.readouterr().err
    assert all(f"surplus.{number}: unknown" in said for number in range(12))
    assert "out.0.bias: missing" in said
    assert "out.2.conv.weight: (2, 16, 3, 3) in the file, (3, 16, 3, 3)" in said
    assert not ours.exists()


def test_a_part_of_a_network_is_refused() -> None:
    for names in (["quant_conv_mu.conv.weight"], ["time_embed.0.weight", "conv_in.conv.weight"]):
        part = {name: np.zeros((3, 3, 1, 1), np.float32) for name in names}
        with pytest.raises(ValueError, match="missing; the file holds only a part"):
            monai_networks.spec_of(part, groups=8, heads=[8])
    with pytest.raises(ValueError, match="neither AutoencoderKL nor DiffusionModelUNet"):
        monai_networks.spec_of({}, groups=8)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([], "does not say --norm_num_groups, --num_head_channels, --latent_scale, --size, --pred"),
        ([*UNET, "--num_head_channels=8,8"], "must have one entry a level"),
        ([*UNET, "--num_head_channels=7"], "do not part into heads of 7"),
        ([*UNET[1:], "--num_head_channels=8", "--norm_num_groups=5"], "multiples of groups 5"),
        ([*UNET, "--num_head_channels=8,x"], "--num_head_channels=8,x must be numbers"),
        ([*UNET[:2], UNET[3], "--num_head_channels=8", "--size=12"], "--size=12 must be 2 numbers"),
        ([*UNET, "--num_head_channels=8", "--betas=0.02,0.01"], "--betas=0.02,0.01 must rise"),
        (["--to=monai"], "holds no autoencoder or U-Net of this package"),
    ],
)
def test_what_is_missing_or_wrong_is_named(
    tmp_path: Path, more: list[str], words: str, capsys
) -> None:
    assert convert(theirs(tmp_path, PLAIN), tmp_path / "o.safetensors", *more) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "o.safetensors").exists()


@pytest.mark.filterwarnings("ignore")
def test_pytorchs_files_of_monais_networks(tmp_path: Path) -> None:
    """Saved by PyTorch, converted, run: MONAI's values; and back into MONAI's networks."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (the bench extra)")
    pytest.importorskip("monai", reason="MONAI is not installed (the bench extra)")
    torch.manual_seed(0)
    autoencoder, unet = twin_of(VAE), twin_of(PLAIN)
    for twin, name, more in (
        (autoencoder, AUTOENCODER, [GROUPS]),
        (unet, DENOISER, [*UNET, "--num_head_channels=0,32,24"]),
    ):
        torch.save({"state_dict": twin.state_dict()}, tmp_path / "theirs.pt")
        assert convert(tmp_path / "theirs.pt", tmp_path / name, *more) == 0
        assert convert(tmp_path / name, tmp_path / "back.pth", "--to=monai") == 0
        back = torch.load(tmp_path / "back.pth", weights_only=True)
        assert list(back) and twin.load_state_dict(back, strict=True)
    spec, state, _ = network_file.load(tmp_path / AUTOENCODER, AutoencoderSpec)
    images = np.random.default_rng(1).uniform(size=(2, 24, 16)).astype(np.float32)
    ours = jax.jit(lambda x: merged(spec, state).encode(x))(images)
    wanted = autoencoder.encode(torch.from_numpy(images[:, None]))
    for our, their in zip(ours, wanted, strict=True):
        close(our, their)
    spec, state, card = network_file.load(tmp_path / DENOISER, UNetSpec)
    assert json.loads(card["size"]) == [12, 10] and float(card["latent_scale"]) == 0.5
    x = np.random.default_rng(2).standard_normal((2, 12, 8, 3)).astype(np.float32)
    times = np.array([3, 870])
    said = unet(torch.from_numpy(x.transpose(0, 3, 1, 2)), torch.from_numpy(times))
    close(jax.jit(lambda x, times: merged(spec, state)(x, times))(x, times), said)


@pytest.mark.filterwarnings("ignore")
def test_an_autoencoder_with_attention_is_refused(tmp_path: Path, capsys) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (the bench extra)")
    nets = pytest.importorskip("monai.networks.nets", reason="MONAI is not installed (bench extra)")
    twin = nets.AutoencoderKL(
        spatial_dims=2,
        channels=(8, 16),
        num_res_blocks=1,
        attention_levels=(False, False),
        latent_channels=3,
        norm_num_groups=8,
    )
    torch.save(twin.state_dict(), tmp_path / "theirs.pt")
    assert convert(tmp_path / "theirs.pt", tmp_path / "o.safetensors", GROUPS) == 2
    assert "attn.to_q.weight: unknown" in capsys.readouterr().err
