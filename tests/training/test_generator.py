"""The two trainings from a configuration to a folder that generates, and what they refuse."""

import csv
import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import ldm, ldm_laptop, vae
from deepssim_jax import parallel
from deepssim_jax.audit.generation import Generator, SamplingSettings
from deepssim_jax.audit.membership import attack_model
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.nn import network_file
from deepssim_jax.nn.autoencoder import AutoencoderSpec
from deepssim_jax.nn.discriminator import DiscriminatorSpec
from deepssim_jax.training import generator as generators
from deepssim_jax.training.autoencoder_step import AutoencoderJob
from deepssim_jax.training.generator import train_autoencoder, train_denoiser
from deepssim_jax.training.generator_config import AutoencoderConfig, LdmConfig
from deepssim_jax.workspace import Workspace
from tests.training.test_generator_data import pictures

SMALL = AutoencoderSpec(channels=(8, 16, 16), blocks=1, groups=8)


def denoiser_config(**changes: object) -> LdmConfig:
    return dataclasses.replace(LdmConfig().smoke(), **changes)


def table(folder: Path, count: int) -> Path:
    rows = [f"{i:02d}.png,{20 + 5 * i},{'FM'[i % 2]}" for i in range(count)]
    path = folder / "table.csv"
    path.write_text("\n".join(["image_id,age,sex", *rows]) + "\n")
    return path


@pytest.fixture
def autoencoder(tmp_path: Path) -> Path:
    """The workdir of a train_vae that learned nothing."""
    job = AutoencoderJob.create(SMALL)
    shapes = jax.eval_shape(lambda: job.init(0)).params
    params = jax.tree.map(lambda x: np.full(x.shape, 0.01, np.float32), shapes)
    network_file.save(tmp_path / "vae" / generators.AUTOENCODER, SMALL, params, card={})
    return tmp_path / "vae"


def test_without_an_autoencoder_nothing_begins(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be the workdir of a finished train_vae"):
        train_denoiser(denoiser_config(autoencoder=str(tmp_path)), tmp_path / "ldm")


def test_an_autoencoder_that_was_changed_is_refused(tmp_path: Path, autoencoder: Path) -> None:
    content = (autoencoder / generators.AUTOENCODER).read_bytes()
    with Workspace.open(tmp_path / "own", command="train_vae", flag="--workdir") as workspace:
        workspace.write(generators.AUTOENCODER, content)
    (tmp_path / "own" / generators.AUTOENCODER).write_bytes(content[:-1] + b"x")
    config = denoiser_config(autoencoder=str(tmp_path / "own"))
    with pytest.raises(ValueError, match=r"its autoencoder\.safetensors was changed"):
        train_denoiser(config, tmp_path / "ldm")
    assert not (tmp_path / "ldm").exists()


def test_a_missing_column_or_table_is_said_before_anything_is_computed(
    tmp_path: Path, autoencoder: Path
) -> None:
    config = denoiser_config(
        autoencoder=str(autoencoder),
        images=str(pictures(tmp_path, 4)),
        condition="variables",
        columns=("age", "weight"),
        table=str(table(tmp_path, 4)),
    )
    with pytest.raises(ValueError, match="table.csv has no column weight among the"):
        train_denoiser(config, tmp_path / "ldm")
    config = dataclasses.replace(config, table="")
    with pytest.raises(ValueError, match="condition 'variables' needs --config.table"):
        train_denoiser(config, tmp_path / "ldm")
    with pytest.raises(ValueError, match="batch 8 must be a multiple of accumulate 3 x 8 devices"):
        train_denoiser(dataclasses.replace(config, accumulate=3), tmp_path / "ldm")


@pytest.mark.parametrize("kind", ["variables", "text"])
def test_a_workdir_goes_on_with_the_same_conditions_alone(
    tmp_path: Path, autoencoder: Path, monkeypatch, kind: str
) -> None:
    """The images' own table tells them, or files that it names: neither is a file of the configuration."""
    folder = pictures(tmp_path, 4)
    listing = tmp_path / "images.csv"

    def write(age: int) -> None:
        rows = [f"{folder}/{i:02d}.png,{age + i},e{i}.npy" for i in range(4)]
        listing.write_text("\n".join(["path,age,embedding", *rows]) + "\n")
        for i in range(4):
            np.save(tmp_path / f"e{i}.npy", np.array([age, i], np.float32))

    class Begun(Exception):
        pass

    def begin(*_: object, **__: object) -> None:
        raise Begun

    monkeypatch.setattr(generators, "cache_latents", begin)
    config = denoiser_config(
        autoencoder=str(autoencoder),
        images=str(listing),
        condition=kind,
        columns=("age",),
        size=(24, 20),
    )
    for _ in range(2):
        write(20)
        with pytest.raises(Begun):
            train_denoiser(config, tmp_path / "ldm")
    write(30)  # every age moved alike: standardised, they are the same numbers
    with pytest.raises(ValueError, match=r"another training: conditions of the images \(.* there"):
        train_denoiser(config, tmp_path / "ldm")


def test_the_autoencoders_step_is_one_program_on_eight_devices() -> None:
    """Traced, not run: a sharding that does not fit is an error then."""
    job = AutoencoderJob.create(
        SMALL, critic=DiscriminatorSpec(8, 2), features=encoders.load_encoder("default"), half=True
    )
    mesh = parallel.data_mesh(8)
    with parallel.using(mesh):
        everywhere, spread = parallel.replicated(mesh), parallel.batch_sharding(mesh)
        state = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere),
            jax.eval_shape(lambda: job.init(0)),
        )
        images = jax.ShapeDtypeStruct((16, 31, 29), np.float32, sharding=spread)
        after, metrics = jax.eval_shape(job.step, state, images, job.features)
    assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(lambda x: x.shape, state)
    assert {"perceptual", "adversarial", "critic"} <= metrics.keys()


def test_configurations_name_what_they_know() -> None:
    assert isinstance(vae.get_config("smoke"), AutoencoderConfig)
    assert ldm.get_config().channels == (256, 512, 768)
    assert isinstance(ldm_laptop.get_config("ldm_smoke"), LdmConfig)
    for module in (vae, ldm, ldm_laptop):
        with pytest.raises(ValueError, match="'other'"):
            module.get_config("other")


@pytest.mark.slow
def test_from_images_to_images(tmp_path: Path) -> None:
    """Both trainings, conditioned and duplicated, drawing, and the attacks."""
    images = str(pictures(tmp_path, 12))
    first = dataclasses.replace(AutoencoderConfig().smoke(), images=images, size=(24, 20))
    trained = train_autoencoder(first, tmp_path / "vae")
    assert trained.path.is_file() and trained.images == 10
    config = denoiser_config(
        autoencoder=str(tmp_path / "vae"),
        images=images,
        size=(24, 20),
        condition="variables",
        table=str(table(tmp_path, 12)),
        duplication="high",
    )
    train_denoiser(config, tmp_path / "ldm")
    with (tmp_path / "ldm" / generators.RECORDS).open(newline="") as file:
        copies = [int(row["copies"]) for row in csv.DictReader(file)]
    assert copies.count(0) == 2 and max(copies) > 4
    model = Generator.load(tmp_path / "ldm")
    found = model.images([0, 1, 2], seed=0, settings=SamplingSettings(steps=2, batch=1))
    assert found.shape == (3, 24, 20) and np.isfinite(found).all()
    figures = attack_model(model)
    assert all(f.members == 10 and f.held_out == 2 for f in figures.values())
