"""A workdir is of one training: of these images, settings and seed; what differs is named."""

import dataclasses
import json
import signal
from pathlib import Path

import numpy as np
import pytest

from deepssim_jax.data.pipelines import open_images
from deepssim_jax.training import identity
from deepssim_jax.training.generator_config import LdmConfig
from deepssim_jax.training.loop import _uninterrupted
from deepssim_jax.workspace import Workspace, WorkspaceError
from tests.kept import within, write_png


def folder_of(root: Path, name: str, seed: int) -> Path:
    """Five images of noise."""
    values = np.random.default_rng(seed).uniform(size=(5, 24, 24))
    for number, image in enumerate(values):
        write_png(root / name / f"{number:02d}.png", image)
    return root / name


def begun(workdir: Path, config: LdmConfig) -> None:
    """As a training begins: settings are looked at first, and bound with the data."""

    def begin(workspace: Workspace) -> None:
        identity.check_settings(workspace, config)
        images = open_images(config.images, workspace, size=config.size)
        autoencoder = Path(config.autoencoder) / "a.safetensors"
        identity.bind(workspace, config, images, autoencoder=autoencoder)

    within(workdir, begin, command="train_ldm")


@pytest.fixture
def config(tmp_path: Path) -> LdmConfig:
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "a.safetensors").write_bytes(b"weights")
    images = str(folder_of(tmp_path, "images", 0))
    return LdmConfig(images=images, autoencoder=str(tmp_path / "vae"), size=(24, 24))


def test_the_same_goes_on_longer_and_from_elsewhere(tmp_path: Path, config: LdmConfig) -> None:
    begun(tmp_path / "w", config)
    moved = str((tmp_path / "images").rename(tmp_path / "moved"))
    begun(tmp_path / "w", dataclasses.replace(config, images=moved, steps=5, checkpoint_every=1))


def test_what_was_not_read_is_listed_and_a_refused_try_leaves_the_list(
    tmp_path: Path, config: LdmConfig
) -> None:
    (Path(config.images) / "03.png").write_bytes(b"no image")
    begun(tmp_path / "w", config)
    said = json.loads((tmp_path / "w" / "inputs.json").read_text())
    assert (said["files_found"], said["images_read"], said["not_read"]) == (5, 4, 1)
    assert said["files"][0][0] == "03.png"
    with pytest.raises(WorkspaceError):
        begun(tmp_path / "w", dataclasses.replace(config, images=str(folder_of(tmp_path, "o", 1))))
    assert json.loads((tmp_path / "w" / "inputs.json").read_text()) == said


CHANGES = [
    ({"seed": 1}, r"--config.seed \(0 there, 1 now\)\. Take another folder"),
    ({"learning_rate": 0.1}, r"--config.learning_rate \(2.5e-05 there, 0.1 now\)"),
    ({"batch": 4, "split_seed": 2}, r"--config.batch .*; --config.split_seed "),
    ({"duplication": "high"}, r"--config.duplication \(none there, high now\)"),
]


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_other_settings_are_refused_by_name(tmp_path: Path, config, change, words) -> None:
    begun(tmp_path / "w", config)
    with pytest.raises(
        WorkspaceError,
        match=f"--workdir='w' is of another {words}" if words.startswith("training") else words,
    ):
        begun(tmp_path / "w", dataclasses.replace(config, **change))


def test_other_images_and_another_autoencoder_are_refused(tmp_path: Path, config) -> None:
    begun(tmp_path / "w", config)
    other = str(folder_of(tmp_path, "others", 1))
    with pytest.raises(WorkspaceError, match=r"images \([0-9a-f]{8}\.\.\. there"):
        begun(tmp_path / "w", dataclasses.replace(config, images=other))
    (tmp_path / "vae" / "a.safetensors").write_bytes(b"others")
    with pytest.raises(WorkspaceError, match="another training: autoencoder "):
        begun(tmp_path / "w", config)


def test_a_try_that_never_began_binds_nothing(tmp_path: Path, config) -> None:
    within(tmp_path / "w", lambda w: identity.check_settings(w, config), command="train_ldm")
    begun(tmp_path / "w", dataclasses.replace(config, seed=5))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_the_new_state_has_its_name(number: signal.Signals) -> None:
    """The step donates the old state: between the call and its name there is no other one."""

    def step(state: str) -> str:
        signal.raise_signal(number)
        return f"{state}, and a step"

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(number, interrupt)
    state = "begun"
    try:
        with pytest.raises(KeyboardInterrupt), _uninterrupted():
            state = step(state)
        assert state == "begun, and a step"
        assert signal.getsignal(number) is interrupt
    finally:
        signal.signal(number, before)
