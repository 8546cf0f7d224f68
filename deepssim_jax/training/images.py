"""Batches of single images, of files or of phantoms, and who is held out.

Contract: as `training.pairs`: a batch is a pure function of (seed, step), and negative steps are
for validation, of other patients. Images are float32 [n, h, w] in [0, 1].
"""

import dataclasses
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax import parallel
from deepssim_jax.data import phantom, pipelines
from deepssim_jax.data.anatomy import load_anatomy
from deepssim_jax.data.pictures import png
from deepssim_jax.data.pipelines import Batches
from deepssim_jax.data.store import ImageStore
from deepssim_jax.training.generator_config import SourceConfig
from deepssim_jax.typing import Array
from deepssim_jax.workspace import Access, Workspace

_LEVELS = np.float32(65535)
_AT_ONCE = 8
_PHANTOMS = "phantoms"


def unit(images: np.ndarray) -> np.ndarray:
    """Stored uint16 images as float32 in [0, 1]."""
    return images.astype(np.float32) / _LEVELS


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of a store: those to learn from and those held out."""

    training: np.ndarray
    held: np.ndarray

    @property
    def validation(self) -> np.ndarray:
        """What to validate on: held-out images, or the training ones where none are held out."""
        return self.held if len(self.held) else self.training


@dataclasses.dataclass(frozen=True)
class ImageMaker:
    """Makes batches of images of a store."""

    batch: int
    seed: int
    training: Batches[np.ndarray]
    validation: Batches[np.ndarray]

    @classmethod
    def of(cls, images: ImageStore, rows: Rows, *, batch: int, seed: int) -> "ImageMaker":
        """Every image of `rows` comes once an epoch."""
        parts = (
            pipelines.image_batches(images, part, batch=batch, seed=seed)
            for part in (rows.training, rows.validation)
        )
        return cls(batch, seed, *parts)

    def __call__(self, step: int) -> Array:
        """The batch of one step."""
        return jnp.asarray(unit(self.training[step] if step >= 0 else self.validation[-1 - step]))

    def names(self, step: int) -> str:
        """What this batch was made from."""
        return f"the images of seed {self.seed}, step {step}"


def open_source(
    config: SourceConfig,
    workspace: Workspace,
    *,
    on_progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> tuple[ImageStore, Rows]:
    """The images of a configuration, and which of them are held out.

    Raises:
      InputError: there is no image, or too few patients to hold some out.
    """
    source = config.images
    if not source:
        source = str(workspace.root / _PHANTOMS)
        _ensure_phantoms(config, workspace)
    images = pipelines.open_images(
        source,
        workspace,
        size=(config.size[0], config.size[1]),
        subject_regex=config.subject_regex or (None if config.images else "^(p[0-9]+)_"),
        on_progress=on_progress,
    )
    if not 0 <= config.held_out < 1:
        raise ValueError(f"held_out {config.held_out} must lie in [0, 1), for example 0.15")
    if not config.held_out:
        return images, Rows(np.arange(len(images)), np.arange(0))
    parts = pipelines.split_by_patient(images, seed=config.split_seed, share=config.held_out)
    return images, Rows(*parts)


def _ensure_phantoms(config: SourceConfig, workspace: Workspace) -> None:
    names = [f"{_PHANTOMS}/{_name(number)}" for number in range(config.phantoms)]
    if parallel.agreed(all(map(workspace.intact, names))):
        return
    made = phantom_pictures(config.phantoms, size=config.size, seed=config.phantom_seed)
    for name, content in made:
        workspace.write(f"{_PHANTOMS}/{name}", content, access=Access.SHARED)
    parallel.agreed(True)  # the others read when the first one has written


def _name(number: int) -> str:
    return f"p{number:04d}_t1.png"


def phantom_pictures(
    count: int, *, size: tuple[int, int], seed: int
) -> Iterator[tuple[str, bytes]]:
    """One T1 slice each of `count` people who do not exist: `p0000_t1.png` and so on, and its file.

    Person number i depends on (seed, i) alone.
    """
    anatomy = load_anatomy()
    for start in range(0, count, _AT_ONCE):
        key = jax.random.fold_in(jax.random.key(seed), start)
        people, scans, noise = jax.random.split(key, 3)
        images = phantom.slices(
            noise,
            phantom.sample_subjects(people, _AT_ONCE),
            phantom.sample_scans(scans, _AT_ONCE, contrast=phantom.Contrast.T1),
            size=(size[0], size[1]),
            anatomy=anatomy,
        )
        for number, image in enumerate(np.asarray(images)[: count - start], start):
            yield _name(number), png(image)
