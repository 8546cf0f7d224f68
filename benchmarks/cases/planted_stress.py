"""Pairs planted into a folder's images, scored by several methods: the run that benchmarks share."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.kept import COMMAND, open_images
from deepssim_jax.audit import stress
from deepssim_jax.data.planted_pairs import Setting
from deepssim_jax.scoring.methods import Method
from deepssim_jax.workspace import Workspace


def scored(
    real: str,
    work: Path,
    *,
    methods: Mapping[str, Method],
    settings: Sequence[str],
    subject_regex: str | None,
    seed: int,
) -> stress.StressResult:
    """Plants, scores, writes what `stress` writes into `work`/found, and prints the table."""
    images = open_images(real, work / "images", size=(256, 256), subject_regex=subject_regex)
    found = stress.stress(
        images.take(np.arange(len(images))),
        images.patients(),
        methods=methods,
        settings=stress.StressSettings(
            tuple(Setting(name) for name in dict.fromkeys(settings)), seed=seed
        ),
        on_progress=lambda done, total, what: print(f"{what}: {done} of {total}", flush=True),
    )
    with Workspace.open(work / "found", command=COMMAND) as workspace:
        stress.write(found, workspace, image_ids=images.image_ids)
    print(stress.table(found.outcomes))
    return found
