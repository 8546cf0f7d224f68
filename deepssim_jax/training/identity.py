"""What a training is of: its settings and its data, written down once in its workspace.

A workdir goes on only with the same ones. How long it runs and how often it looks and saves may
change, and where files lie: what is in them counts.
"""

import dataclasses
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from deepssim_jax import parallel
from deepssim_jax.data.account import INPUTS
from deepssim_jax.data.store import ImageStore
from deepssim_jax.workspace import Workspace, sha256

_MAY_CHANGE = {"steps", "epochs", "validate_every", "checkpoint_every", "fsdp", "remat"}
# Fields that name a file or a folder, or a network that ships with the package.
_FILES = {"table", "initial", "features"}
_FOLDERS = {"images", "autoencoder"}
_FLAG, _TRAINING = "--workdir", "training"


def open_workdir(
    workdir: str | Path,
    *,
    command: str,
    inputs: Mapping[str, str | Path],
    reads: Mapping[str, str | Path] | None = None,
) -> AbstractContextManager[Workspace]:
    """Claims a training's folder; see `Workspace.open`."""
    return Workspace.open(
        workdir,
        command=command,
        inputs=inputs,
        reads=reads,
        flag=_FLAG,
        processes=parallel.processes(),
    )


def check_settings(workspace: Workspace, config: object) -> None:
    """Refuses the workdir of a training that has begun with another configuration.

    Raises:
      WorkspaceError: naming every field that differs.
    """
    workspace.check(_TRAINING, _facts(config), flag=_FLAG)


def _facts(config: object) -> dict[str, object]:
    facts: dict[str, object] = {}
    for field in dataclasses.fields(config):  # type: ignore[arg-type]  # configs are dataclasses
        value = getattr(config, field.name)
        if field.name in _FILES and Path(str(value)).is_file():
            facts[f"--config.{field.name}"] = sha256(Path(value))
        elif field.name in _FOLDERS:
            facts[f"--config.{field.name}"] = "given" if value else "none"
        elif field.name not in _MAY_CHANGE:
            facts[f"--config.{field.name}"] = value
    return facts


def bind(
    workspace: Workspace,
    config: object,
    images: ImageStore | None,
    *,
    autoencoder: Path | None = None,
    others: Mapping[str, object] = {},
) -> None:
    """Makes a workdir that of this configuration, of these images (of phantoms, made as training goes
    on, if None), of this autoencoder's file and of other facts by what messages call them; called when
    training begins. `inputs.json` then says which files were not read.

    Raises:
      WorkspaceError: it is of others.
    """
    facts: dict[str, object] = {"images": "phantoms" if images is None else images.fingerprint}
    if images is not None:
        facts["number of images"] = len(images)
    if autoencoder is not None:
        facts["autoencoder"] = sha256(autoencoder)
    workspace.bind(_TRAINING, _facts(config) | facts | dict(others), flag=_FLAG)
    if images is not None:
        workspace.write(INPUTS, images.account.file)
