"""How well one's own model gives its training images away.

Contract: a workdir of `train_ldm`; members are the images that it was trained on, the others those
that it held out. Latents are the cached ones. Scores are kept batch by batch where a folder is
given for them, so that work that was stopped goes on to the same figures.
"""

import functools
import hashlib
from collections.abc import Collection, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from deepssim_jax.audit.generation import Generator
from deepssim_jax.audit.result import Coverage, Membership
from deepssim_jax.diffusion import samplers
from deepssim_jax.scoring import membership
from deepssim_jax.scoring.match import Progress
from deepssim_jax.scoring.membership import Attack, AttackSettings, MembershipFigures
from deepssim_jax.training.diffusion_step import predictor
from deepssim_jax.typing import Array
from deepssim_jax.workspace import Section


def fingerprint(model: Generator) -> str:
    """Of all that a score depends on.

    Raises:
      ValueError: the model's folder does not hold the latents of its records.
    """
    digest = hashlib.sha256(model.weights_hash.encode())
    condition = model.conditions
    for array in (model.latents, _members(model), *([] if condition is None else [condition])):
        digest.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _members(model: Generator) -> np.ndarray:
    """bool [n]: which records were trained on."""
    return np.array([record.copies > 0 for record in model.records])


def attack_model(
    model: Generator,
    *,
    seed: int = 0,
    batch: int = 32,
    level: float = 0.95,
    journal: Section | None = None,
    on_progress: Progress = lambda done, total, what: None,
) -> dict[Attack, MembershipFigures]:
    """Figures of each attack.

    Args:
      model: the model.
      seed: of the noise.
      batch: latents at a time.
      level: of the intervals.
      journal: keeps finished batches; its inputs must tell the model. None keeps nothing.
      on_progress: called with (images done, images in all, what).

    Raises:
      ValueError: the training held nobody out, or the folder does not hold its latents.
    """
    attacks = tuple(Attack)
    programs = {attack: _program(model, attack) for attack in attacks}
    parts, total = [], len(model.latents)
    for start in range(0, total, batch):
        make = functools.partial(_scores, model, programs, start, seed=seed, batch=batch)
        how = [attacks, AttackSettings(), seed, start, batch]
        parts.append(make() if journal is None else journal.step("scores", how, make))
        on_progress(min(start + batch, total), total, "membership inference")
    of_attack = dict(zip(attacks, np.concatenate(parts, axis=1), strict=True))
    members = _members(model)
    return {
        attack: membership.figures(values[members], values[~members], level=level)
        for attack, values in of_attack.items()
    }


def infer_membership(
    model: Generator,
    *,
    audited: Collection[str],
    journal: Section,
    seed: int,
    level: float,
    on_progress: Progress,
) -> Membership:
    """What an audit says of a model.

    Args:
      model: the model.
      audited: SHA-256 of the files on the audit's real side.
      journal: keeps finished batches; its inputs must tell the model.
      seed: of the noise.
      level: coverage of the intervals.
      on_progress: as for `attack_model`.
    """
    learned = {record.sha256 for record in model.records if record.copies}
    known = learned & set(audited)
    members = len(model.trained)
    held_out = len(model.records) - members
    figures: Mapping[Attack, MembershipFigures] = {}
    if held_out:
        figures = attack_model(
            model, seed=seed, level=level, journal=journal, on_progress=on_progress
        )
    coverage = Coverage.ALL if known == learned else Coverage.SOME if known else Coverage.NONE
    return Membership(figures, members, held_out, level, coverage, model.weights_hash)


def _scores(
    model: Generator,
    programs: Mapping[Attack, jax.stages.Wrapped],
    start: int,
    *,
    seed: int,
    batch: int,
) -> np.ndarray:
    """Of one batch, float32 [attacks, images]."""
    count = len(model.latents[start : start + batch])
    # The last batch is filled up, so that every one is the same program.
    rows = np.minimum(np.arange(start, start + batch), start + count - 1)
    condition = model.conditions
    given = (
        jnp.asarray(model.latents[rows]),
        samplers.image_keys(jax.random.key(seed), jnp.asarray(rows, jnp.uint32)),
        None if condition is None else jnp.asarray(condition[rows]),
    )
    found = [program(model.denoiser_params, *given) for program in programs.values()]
    return np.stack([np.asarray(values, np.float32)[:count] for values in found])


def _program(model: Generator, attack: Attack) -> jax.stages.Wrapped:
    def run(params, x: Array, keys: Array, condition: Array | None) -> Array:
        return membership.scores(
            predictor(model.denoiser, params),
            x,
            keys,
            attack=attack,
            schedule=model.schedule,
            condition=condition,
        )

    return jax.jit(run)
