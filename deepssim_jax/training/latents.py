"""Latents of a store of images, made once and kept on disk; batches of them, and who is how often
among them.

Contract: a folder of `latents-00000.npy` (float32 [m, h, w, 2 c]: mean, then deviation, of a run of
images in their order) and, when all are there, `latents.json` with the measured scale. A batch is a
pure function of (seed, step), and negative steps are for validation, of other patients.
"""

import dataclasses
import enum
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from deepssim_jax import parallel
from deepssim_jax.data import pipelines
from deepssim_jax.data.pipelines import Batches
from deepssim_jax.data.store import ImageStore
from deepssim_jax.files import write_array, write_bytes
from deepssim_jax.nn import network_file
from deepssim_jax.nn.autoencoder import AutoencoderSpec
from deepssim_jax.training.diffusion_step import LatentBatch
from deepssim_jax.training.images import Rows, unit

_RUN = 256
_AT_ONCE = 8


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
    folder: Path,
    rows: np.ndarray,
    on_progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Latents:
    """Encodes every image that is not encoded yet, and measures the scale on `rows`.

    Args:
      images: the store.
      spec: of the autoencoder.
      params: its weights.
      folder: where the latents lie; one of other images or weights is made anew.
      rows: the training images.
      on_progress: called with (images done, images in all, what).
    """
    digest = hashlib.sha256(images.fingerprint.encode())
    for name, tensor in sorted(network_file.to_tensors(params).items()):
        digest.update(name.encode() + np.ascontiguousarray(tensor).tobytes())
    mark = digest.hexdigest()[:16]
    graph = network_file.blueprint(spec)[0]

    @jax.jit
    def encode(params: nnx.State, batch: jax.Array) -> jax.Array:
        mean, deviation = nnx.merge(graph, params, copy=True).encode(batch)
        return jnp.concatenate([mean, deviation], -1)

    def made() -> bool:
        for number, start in enumerate(range(0, len(images), _RUN)):
            stop = min(start + _RUN, len(images))
            path = folder / f"{mark}-{number:05d}.npy"
            if not path.exists():
                batches = [
                    np.asarray(encode(params, _padded(images, first, min(first + _AT_ONCE, stop))))
                    for first in range(start, stop, _AT_ONCE)
                ]
                write_array(path, np.concatenate(batches)[: stop - start])
            on_progress(stop, len(images), "encoding images")
        return True

    parallel.first_alone(made)
    mean, deviation = _read(folder, mark)
    # The variance of what is drawn: that of the means, and that around them (eq. of total variance).
    variance = mean[rows].var(dtype=np.float64) + (deviation[rows].astype(np.float64) ** 2).mean()
    latents = Latents(mean, deviation, float(1 / np.sqrt(variance)))
    card = {"images": len(images), "scale": latents.scale, "weights": mark}
    write_bytes(folder / "latents.json", json.dumps(card).encode())
    return latents


def load_latents(folder: Path) -> Latents:
    """The latents that `cache_latents` made last.

    Raises:
      ValueError: there are none, or they are not complete.
    """
    card = folder / "latents.json"
    if not card.is_file():
        raise ValueError(
            f"there are no latents in {folder.parent.name!r}; run train_ldm to its end"
        )
    fields = json.loads(card.read_text())
    mean, deviation = _read(folder, fields["weights"])
    if len(mean) != fields["images"]:
        raise ValueError(
            f"{len(mean)} of {fields['images']} latents are there; run train_ldm again"
        )
    return Latents(mean, deviation, fields["scale"])


def _read(folder: Path, mark: str) -> tuple[np.ndarray, np.ndarray]:
    paths = sorted(folder.glob(f"{mark}-*.npy"))
    found = np.concatenate([np.load(path, allow_pickle=False) for path in paths])
    mean, deviation = np.split(found, 2, axis=-1)
    return mean, deviation


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
