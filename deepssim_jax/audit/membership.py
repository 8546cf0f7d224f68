"""How well one's own model gives its training images away.

Contract: a workdir of `train_ldm` with held-out patients; members are the images that it was trained
on, the others are those that it held out. Latents are the cached ones.
"""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.audit.generation import Generator
from deepssim_jax.diffusion import samplers
from deepssim_jax.scoring import membership
from deepssim_jax.scoring.membership import Attack, AttackSettings, MembershipFigures
from deepssim_jax.training import latents as latent_files
from deepssim_jax.training.diffusion_step import predictor
from deepssim_jax.typing import Array


def attack_model(
    workdir: str | Path,
    *,
    attacks: Sequence[Attack] = tuple(Attack),
    seed: int = 0,
    batch: int = 32,
    settings: AttackSettings = AttackSettings(),
) -> dict[Attack, MembershipFigures]:
    """Figures of each attack on a finished `train_ldm`.

    Args:
      workdir: of the training.
      attacks: which.
      seed: of the noise.
      batch: latents at a time.
      settings: times of the attacks.

    Raises:
      ValueError: the training is not finished, or held nobody out.
    """
    workdir = Path(workdir)
    model = Generator.load(workdir)
    found = latent_files.load_latents(workdir / "latents")
    scores = {attack: np.zeros(len(found.mean)) for attack in attacks}
    programs = {attack: _program(model, attack, settings) for attack in attacks}
    for start in range(0, len(found.mean), batch):
        count = len(found.mean[start : start + batch])
        # The last batch is filled up, so that every one is the same program.
        rows = np.minimum(np.arange(start, start + batch), start + count - 1)
        x = jnp.asarray(np.float32(found.scale) * found.mean[rows])
        told = None if model.conditions is None else jnp.asarray(model.conditions[rows])
        keys = samplers.image_keys(seed, jnp.asarray(rows, jnp.uint32))
        for attack, program in programs.items():
            values = program(model.denoiser_params, x, keys, told)
            scores[attack][start : start + count] = np.asarray(values)[:count]
    members = np.array([record.copies > 0 for record in model.records])
    return {
        a: membership.figures(values[members], values[~members]) for a, values in scores.items()
    }


def _program(model: Generator, attack: Attack, settings: AttackSettings) -> jax.stages.Wrapped:
    def run(params, x: Array, keys: Array, told: Array | None) -> Array:
        return membership.scores(
            predictor(model.denoiser, params),
            x,
            keys,
            attack=attack,
            schedule=model.schedule,
            condition=told,
            settings=settings,
        )

    return jax.jit(run)
