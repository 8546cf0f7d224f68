"""Latents of a store of images, made once and kept on disk; batches of them, and who is how often
among them.

Contract: `latents.npy` (float32 [n, h, w, 2 c]: mean, then deviation, of the images in their order)
and, when it is there, `latents.json` with the measured scale. A batch is a
pure function of (seed, step), and negative steps are for validation, of other patients.
"""

import dataclasses
import enum
import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from deepssim_jax.data import pipelines
from deepssim_jax.data.pipelines import Batches
from deepssim_jax.data.store import ImageStore
from deepssim_jax.nn import network_file
from deepssim_jax.nn.autoencoder import AutoencoderSpec
from deepssim_jax.training.diffusion_step import LatentBatch
from deepssim_jax.training.images import Rows, unit
from deepssim_jax.workspace import Workspace, check_written, key_of
from deepssim_jax.workspace.files import array_bytes

_RUN = 256
_AT_ONCE = 8
_ARRAY, _CARD = "latents/latents.npy", "latents/latents.json"


class Duplication(enum.StrEnum):
    """How often images are repeated, to provoke memorization."""

    NONE = "none"
    LOW = "low"
    HIGH = "high"


class DuplicationRange(enum.StrEnum):
    """Whose numbers: those that the published code draws, or those that its paper names."""

    CODE = "code"
    PAPER = "paper"


_MOST = {
    (Duplication.LOW, DuplicationRange.CODE): 4,
    (Duplication.LOW, DuplicationRange.PAPER): 5,
    (Duplication.HIGH, DuplicationRange.CODE): 14,
    (Duplication.HIGH, DuplicationRange.PAPER): 15,
}


def copies(
    count: int, *, duplication: Duplication, whose: DuplicationRange, seed: int
) -> np.ndarray:
    """How often each of `count` images is in the training data, int64 [count], uniform from 1 on."""
    if duplication is Duplication.NONE:
        return np.ones(count, np.int64)
    most = _MOST[duplication, whose]
    return np.random.default_rng([seed, 1]).integers(1, most + 1, count)


@dataclasses.dataclass(frozen=True)
class Latents:
    """Mean and deviation [n, h, w, c] of every image, not scaled; `scale` makes the variance 1."""

    mean: np.ndarray
    deviation: np.ndarray
    scale: float


def cache_latents(
    images: ImageStore,
    spec: AutoencoderSpec,
    params: nnx.State,
    *,
    workspace: Workspace,
    rows: np.ndarray,
    on_progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Latents:
    """Encodes every image that is not encoded yet, and measures the scale on `rows`.

    Args:
      images: the store.
      spec: of the autoencoder.
      params: its weights.
      workspace: where the latents are kept, by the images and weights, and left in `latents/`.
      rows: the training images.
      on_progress: called with (images done, images in all, what).
    """
    weights = key_of(network_file.to_tensors(params))
    graph = network_file.blueprint(spec)[0]

    @jax.jit
    def encode(params: nnx.State, batch: jax.Array) -> jax.Array:
        mean, deviation = nnx.merge(graph, params, copy=True).encode(batch)
        return jnp.concatenate([mean, deviation], -1)

    def block(rows: np.ndarray) -> np.ndarray:
        start, stop = int(rows[0]), int(rows[-1]) + 1
        batches = [
            np.asarray(encode(params, _padded(images, first, min(first + _AT_ONCE, stop))))
            for first in range(start, stop, _AT_ONCE)
        ]
        return np.concatenate(batches)[: stop - start]

    found = workspace.by_rows(
        "latents",
        [images.fingerprint, weights],
        block,
        count=len(images),
        block=_RUN,
        on_progress=on_progress,
        what="encoding images",
    )
    mean, deviation = np.split(found, 2, axis=-1)
    # The variance of what is drawn: that of the means, and that around them (eq. of total variance).
    variance = mean[rows].var(dtype=np.float64) + (deviation[rows].astype(np.float64) ** 2).mean()
    latents = Latents(mean, deviation, float(1 / np.sqrt(variance)))
    card = {"images": len(images), "scale": latents.scale, "weights": weights}
    if not workspace.intact(_ARRAY):
        workspace.write(_ARRAY, array_bytes(found))
    workspace.write(_CARD, json.dumps(card).encode())
    return latents


def load_latents(workdir: Path) -> Latents:
    """The latents that `cache_latents` left in the folder of a training.

    Raises:
      ValueError: there are none, they are not complete, or were changed.
    """
    card = workdir / _CARD
    if not card.is_file():
        raise ValueError(f"there are no latents in {workdir.name!r}; run train_ldm to its end")
    check_written(workdir, (_ARRAY, _CARD), command="train_ldm")
    fields = json.loads(card.read_text(encoding="utf-8"))
    found = np.load(workdir / _ARRAY, allow_pickle=False)
    mean, deviation = np.split(found, 2, axis=-1)
    if len(mean) != fields["images"]:
        raise ValueError(
            f"{len(mean)} of {fields['images']} latents are there; run train_ldm again"
        )
    return Latents(mean, deviation, fields["scale"])


def _padded(images: ImageStore, start: int, stop: int) -> np.ndarray:
    rows = np.minimum(np.arange(start, start + _AT_ONCE), stop - 1)
    return unit(images.take(rows))


@dataclasses.dataclass(frozen=True)
class LatentMaker:
    """Makes batches of scaled latents."""

    batch: int
    seed: int
    latents: Latents
    condition: np.ndarray | None
    training: Batches[np.ndarray]
    validation: Batches[np.ndarray]

    @classmethod
    def of(
        cls,
        latents: Latents,
        rows: Rows,
        *,
        condition: np.ndarray | None,
        copies: np.ndarray,
        batch: int,
        seed: int,
    ) -> "LatentMaker":
        """Every training image comes as often an epoch as `copies`, one number a row, says."""
        repeated = np.repeat(rows.training, copies)
        parts = (
            pipelines.row_batches(part, batch=batch, seed=seed)
            for part in (repeated, rows.validation)
        )
        return cls(batch, seed, latents, condition, *parts)

    def __call__(self, step: int) -> LatentBatch:
        """The batch of one step."""
        rows = self.training[step] if step >= 0 else self.validation[-1 - step]
        scale = np.float32(self.latents.scale)
        return LatentBatch(
            jnp.asarray(scale * self.latents.mean[rows]),
            jnp.asarray(scale * self.latents.deviation[rows]),
            None if self.condition is None else jnp.asarray(self.condition[rows]),
        )

    def names(self, step: int) -> str:
        """What this batch was made from."""
        return f"the images of seed {self.seed}, step {step}"
