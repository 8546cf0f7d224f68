"""Pairs from a user's own images, or from a table of them, with the similarity to be learned.

Contract: as `training.pairs`: a batch is a pure function of (seed, step), and negative steps are
for validation, of other patients.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.data import pipelines
from deepssim_jax.data.pipelines import Batches, PairTable
from deepssim_jax.data.store import ImageStore
from deepssim_jax.ops import registration, ssim
from deepssim_jax.ops.augment import AugmentConfig
from deepssim_jax.ops.intensity import zscore
from deepssim_jax.ops.search_grid import SearchGrid
from deepssim_jax.training.pairs import (
    Echoes,
    PairBatch,
    altered,
    bent,
    mixed,
    moved_apart,
    step_key,
)
from deepssim_jax.training.similarity import similarity_aligned
from deepssim_jax.typing import Array

_CANDIDATES = 3


@dataclasses.dataclass(frozen=True)
class ImagePairs:
    """Pairs made of single images: changed copies of one, and neighbours aligned with it.

    Of three candidates for each image the one is taken whose SSIM lies in an emptier bin of 0.1,
    so that all similarities are about equally frequent.
    """

    batch: int
    seed: int
    augment: AugmentConfig
    training: Batches[np.ndarray]
    validation: Batches[np.ndarray]
    _echoes: Echoes = dataclasses.field(
        default_factory=Echoes, init=False, compare=False, repr=False
    )

    @classmethod
    def of(
        cls, images: ImageStore, *, batch: int, seed: int, augment: AugmentConfig
    ) -> "ImagePairs":
        """Splits by patient; see `pipelines.split_by_patient` for the error."""
        parts = pipelines.batches_by_patient(images, batch=batch, seed=seed)
        return cls(batch, seed, augment, *parts)

    def __call__(self, step: int) -> PairBatch:
        """The batch of one step."""
        made = self._echoes.of(step, self._made)
        return moved_apart(step_key(self.seed, step), made, config=self.augment)

    def _made(self, number: int) -> PairBatch:
        images = self.training[number] if number >= 0 else self.validation[-1 - number]
        return _from_images(step_key(self.seed, number, made=True), jnp.asarray(images))

    def names(self, step: int) -> str:
        """What this batch was made from."""
        return f"the images of seed {self.seed}, step {step}"


@jax.jit
def _from_images(key: Array, images: Array) -> PairBatch:
    n = len(images)
    keys = jax.random.split(key)
    a = zscore(images)
    neighbour = jnp.roll(a, 1, axis=0)
    # What two people's images have in common counts after alignment (DeepSSIM++, section 3).
    found = registration.locate(neighbour, a, grid=SearchGrid())
    aligned = zscore(found.aligned)

    def candidate(key: Array) -> tuple[Array, Array]:
        kind, mix, bend, alter = jax.random.split(key, 4)
        choice = jax.random.choice(kind, 5, (n,), p=jnp.array([0.15, 0.2, 0.2, 0.2, 0.25]))
        changed = mixed(mix, a, aligned), bent(bend, a), altered(alter, a)
        kinds = jnp.stack([a, *changed, aligned])
        b = zscore(kinds[choice, jnp.arange(n)])
        return b, ssim.ssim(a, b, data_range="first", reduction="none")

    candidates, similarity = jax.lax.map(candidate, jax.random.split(keys[0], _CANDIDATES))
    place = jnp.clip(jnp.floor(10 * similarity), 0, 9).astype(jnp.int32)
    count = jax.nn.one_hot(place, 10).sum((0, 1))
    chosen = jax.random.categorical(keys[1], -jnp.log(count[place]), axis=0)
    b = candidates[chosen, jnp.arange(n)]
    every = similarity_aligned(a, b)
    return PairBatch(a, b, jnp.diagonal(every), every)


@dataclasses.dataclass(frozen=True)
class TablePairs:
    """Pairs whose SSIM stands in a table of the reference format."""

    batch: int
    seed: int
    augment: AugmentConfig
    table: PairTable
    training: Batches[dict[str, np.ndarray]]
    validation: Batches[dict[str, np.ndarray]]

    @classmethod
    def of(
        cls, table: Path, images: ImageStore, *, batch: int, seed: int, augment: AugmentConfig
    ) -> "TablePairs":
        """Reads the splits "train" and "valid"; see `PairTable.read` for the errors."""
        train, valid = (PairTable.read(table, images, split=s) for s in ("train", "valid"))
        data = (part.batches(batch=batch, seed=seed) for part in (train, valid))
        return cls(batch, seed, augment, train, *data)

    @property
    def batches_an_epoch(self) -> int:
        """Steps in which every pair is seen about once."""
        return max(1, len(self.table) // self.batch)

    def __call__(self, step: int) -> PairBatch:
        """The batch of one step."""
        part = self.training[step] if step >= 0 else self.validation[-1 - step]
        a, b, target = (jnp.asarray(part[name]) for name in ("a", "b", "ssim"))
        if step < 0:  # validation is on the images as they are, as published
            return PairBatch(zscore(a), zscore(b), target)
        pairs = PairBatch(zscore(a), zscore(b), target)
        return moved_apart(step_key(self.seed, step), pairs, config=self.augment)

    def names(self, step: int) -> str:
        """The keys of this batch."""
        rows = np.asarray(self.training[step]["row"])
        return "the pairs " + ", ".join(" / ".join(self.table.keys[row]) for row in rows)
