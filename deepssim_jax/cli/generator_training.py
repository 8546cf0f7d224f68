"""What the trainings of a generator's two networks have in common on the command line."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from deepssim_jax.cli import console
from deepssim_jax.cli.exit_codes import ExitCode
from deepssim_jax.cli.progress import progress

if TYPE_CHECKING:  # at run time it would load JAX before --help is answered
    from deepssim_jax.training.generator import Trained


def run(train: "Callable[..., Trained]", config: object, workdir: str, *, at_once: int) -> ExitCode:
    """Trains to the end, with `at_once` images in the devices at a time, and says what came of it."""
    from deepssim_jax import parallel

    parallel.use_cores(at_once)
    with progress(unit="steps") as on_progress:
        trained = train(config, Path(workdir), on_progress=on_progress, on_notice=console.error)
    shown = [(name, f"{value:.4f}") for name, value in trained.figures.items()]
    held = trained.account.images - trained.images
    learned = [("images learned from", trained.images), ("images held out", held)]
    console.finish([*trained.account.rows(), *learned, *shown], written=[trained.path])
    return ExitCode.DONE
