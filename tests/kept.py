"""What tests do with files: workspaces in a line, and pictures on the disk."""

import contextlib
import csv
import functools
import io
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from flax import nnx

from deepssim_jax.cli.main import main
from deepssim_jax.data import pipelines
from deepssim_jax.data.pictures import png
from deepssim_jax.data.store import ImageStore
from deepssim_jax.nn.convnext import ConvNeXtSpec
from deepssim_jax.nn.embedder import Embedder, EmbedderSpec, Head
from deepssim_jax.nn.encoder import Encoder, from_module
from deepssim_jax.training import loop
from deepssim_jax.training.images import phantom_pictures
from deepssim_jax.training.loop import LoopConfig
from deepssim_jax.workspace import Section, Workspace
from deepssim_jax.workspace.files import write_bytes

T = TypeVar("T")
# As few features as a network can have: what it is asked for here is not what it has learned.
SMALL_EMBEDDER = EmbedderSpec(
    ConvNeXtSpec(channels=1, depths=(1, 1, 1, 1), dims=(4, 6, 8, 10), layer_scale=0.5),
    Head.MULTISCALE,
    hidden=12,
    dim=8,
    dropout=0.0,
)


@functools.cache
def small_encoder() -> Encoder:
    """An encoder of random weights that compiles in a fraction of the shipped one's time."""
    return from_module(Embedder(SMALL_EMBEDDER, rngs=nnx.Rngs(1)))


def within(folder: Path, work: Callable[[Workspace], T], *, command: str = "test") -> T:
    """The outcome of some work in a workspace of this folder."""
    with Workspace.open(folder, command=command) as workspace:
        return work(workspace)


def deepssim(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A command and what it printed, in this process: another one takes 15 s to come to an audit."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        status = main([*map(str, arguments)])
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), errors.getvalue())


def rows(path: Path) -> list[dict[str, str]]:
    """Those of a table."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def share_secret(folder: Path, *, command: str) -> None:
    """Begins an output folder whose aliases are those of every other one that is begun so."""
    with (
        Workspace.open(folder, command=command) as workspace,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("deepssim_jax.workspace.workspace.secrets.token_bytes", bytes)
        workspace.secret()


@contextlib.contextmanager
def journal(folder: Path) -> Iterator[Section]:
    """A section of a workspace of this folder."""
    with Workspace.open(folder, command="test") as workspace:
        yield workspace.section("test")


def write_png(path: Path, image: np.ndarray) -> None:
    """Writes an image [h, w] of values in [0, 1] as an 8-bit PNG."""
    write_bytes(path, png(image))


def sheet(pictures: np.ndarray, rows: int, columns: int, pad: int, value: float) -> np.ndarray:
    """float32: pictures [n, h, w] laid out as torchvision's `make_grid` does, with a margin around it."""
    height, width = (side + pad for side in pictures.shape[1:])
    out = np.full((rows * height + pad, columns * width + pad), value, np.float32)
    for place in range(rows * columns):
        top, left = pad + place // columns * height, pad + place % columns * width
        out[top : top + height - pad, left : left + width - pad] = pictures[place]
    return out


def write_phantoms(folder: Path, count: int, *, size: tuple[int, int], seed: int) -> None:
    """Writes people who do not exist, as a training without images does."""
    for name, content in phantom_pictures(count, size=size, seed=seed):
        write_bytes(folder / name, content)


def open_images(source: Path, folder: Path, **how: Any) -> ImageStore:
    """`pipelines.open_images` into a workspace of this folder."""
    return within(folder, lambda workspace: pipelines.open_images(source, workspace, **how))


def train(job: Any, maker: Any, config: LoopConfig, folder: Path, **how: Any) -> tuple[Any, dict]:
    """`training.loop.train` in a workspace of this folder."""
    return within(folder, lambda workspace: loop.train(job, maker, config, workspace, **how))
