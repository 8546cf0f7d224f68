"""Do synthetic images still serve? Networks trained on them, tested on real patients they never saw.

Contract: `Arm`s hold float32 images [n, s, s] in [0, 1]; every network gets the same number of images,
the same steps and the same seeds, and every test image the same degradation. Figures are those of
test images; statements are about patients (`scoring.equivalence`).
"""

import dataclasses
import enum
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np

from deepssim_jax.data import pipelines
from deepssim_jax.data.account import Account
from deepssim_jax.data.manifest import InputError, for_flag
from deepssim_jax.data.store import ImageStore
from deepssim_jax.ops.batches import in_batches
from deepssim_jax.ops.degradation import Task, degrade
from deepssim_jax.ops.ssim import ssim
from deepssim_jax.scoring.equivalence import Equivalence, by_patient, equivalence
from deepssim_jax.scoring.match import Progress
from deepssim_jax.training.restoration import RestorationSettings, restore, train_restorer
from deepssim_jax.typing import Array
from deepssim_jax.workspace import Workspace

if TYPE_CHECKING:
    import pandas

REFERENCE, UNTREATED, TEST = "real", "untreated", "test"
_BATCH = 16
_TEST_SEED = 2**31 - 1  # of the test images' noise: the same for every network


class Figure(enum.StrEnum):
    """How good a restored image is: dB for a range of 1, in [-1, 1], and on [0, 1]."""

    PSNR = "psnr"
    SSIM = "ssim"
    RMSE = "rmse"


MARGINS: Mapping[Figure, float] = {Figure.PSNR: 0.5, Figure.SSIM: 0.01, Figure.RMSE: 0.002}


@dataclasses.dataclass(frozen=True)
class UtilitySettings:
    """The budget of every network, how many of each kind, and what difference does not matter."""

    tasks: tuple[Task, ...] = tuple(Task)
    training: RestorationSettings = RestorationSettings()
    seeds: int = 3
    margins: Mapping[Figure, float] = dataclasses.field(default_factory=lambda: dict(MARGINS))
    level: float = 0.95


@dataclasses.dataclass(frozen=True)
class Result:
    """Networks of one arm at one task: figures [seeds, test images] each.

    `compared` is with the arm of real images, by figure; for that arm itself with the images as they were
    given, for which it is empty.
    """

    task: Task
    arm: str
    figures: Mapping[Figure, np.ndarray]
    patients: np.ndarray
    compared: Mapping[Figure, Equivalence]

    def of_patients(self, figure: Figure) -> np.ndarray:
        """Mean over seeds and images of each test patient."""
        return by_patient(self.figures[figure].mean(0), self.patients)


@dataclasses.dataclass(frozen=True)
class UtilityResult:
    """All results, and what they rest on.

    Every network learned from `images`, the size of the smallest arm; `given` has what each arm held;
    `accounts` what became of each side's files, the test's too, where they were files.
    """

    results: tuple[Result, ...]
    images: int
    given: Mapping[str, int]
    test_images: int
    test_patients: int
    settings: UtilitySettings
    accounts: Mapping[str, Account] = dataclasses.field(default_factory=dict)

    def withheld(self, task: Task, figure: Figure) -> str | None:
        """Why equivalence cannot be claimed by this figure, or None where it can.

        Networks that learned nothing are equal to each other. So the one of real images has to be
        better than no network at all by more than the difference that is said not to matter: the
        lower end of the interval of its gain has to lie above the margin.
        """
        (gain,) = (
            one.compared[figure]
            for one in self.results
            if one.task is task and one.arm == REFERENCE
        )
        low = -gain.high if figure is Figure.RMSE else gain.low
        if low > gain.margin:
            return None
        return (
            f"by {figure.value.upper()} the network that learned {task.value.replace('_', '-')} from real "
            f"images is not shown to be better than no network by more than the margin of "
            f"{gain.margin:g} (lower end of its gain {low:+.4f}), so being as good as it says nothing; "
            "train longer, or on more images"
        )

    def to_pandas(self) -> "pandas.DataFrame":
        """Every network's figures of every test image as a DataFrame, in the columns of `utility.csv`.

        Raises:
          ImportError: pandas is not installed.
        """
        from deepssim_jax.audit import utility_report  # which writes this result's files

        return utility_report.table(self).data_frame()

    def _repr_html_(self) -> str:
        """What was shown, and each kind of network's mean figures: what a notebook shows."""
        from deepssim_jax.audit import notebook, utility_report

        means = utility_report.means(self)
        return notebook.html(utility_report.answer(self), means, columns=means.columns)


def utility(
    arms: Mapping[str, np.ndarray],
    test: np.ndarray,
    patients: np.ndarray,
    *,
    settings: UtilitySettings = UtilitySettings(),
    on_progress: Progress = lambda done, total, what: None,
) -> UtilityResult:
    """Trains on every arm and tests on held-out patients.

    Args:
      arms: images [n, s, s] to learn from by name; `real` among them is what others are compared with.
      test: [m, s, s] of patients that are in no arm.
      patients: int [m], whose each is.
      settings: see `UtilitySettings`.
      on_progress: called with (steps done, steps in all, what).

    Raises:
      InputError: a test image is among the images to learn from, pixel by pixel.
      ValueError: there is no arm `real`, or fewer than three test patients.
    """
    if REFERENCE not in arms:
        raise ValueError(f"arms {sorted(arms)} must hold {REFERENCE!r}, to be compared with")
    _check_new(arms, test)
    count = min(len(images) for images in arms.values())
    chosen = {name: _drawn(images, count) for name, images in arms.items()}
    budget, done = settings.training, 0
    total = len(settings.tasks) * len(arms) * settings.seeds * budget.steps
    results: list[Result] = []
    for task in settings.tasks:
        given = _degraded(test, task)
        figures: dict[str, list[dict[Figure, np.ndarray]]] = {UNTREATED: [measure(test, given)]}
        for name, images in chosen.items():
            said = f"{task.value.replace('_', '-')}, {name}"
            for seed in range(settings.seeds):
                weights = train_restorer(
                    images,
                    task=task,
                    settings=budget,
                    seed=seed,
                    on_step=functools.partial(_say, on_progress, done, total, said),
                )
                restored = restore(weights, given, channels=budget.channels)
                figures.setdefault(name, []).append(measure(test, restored))
                done += budget.steps
        stacked = {
            name: {f: np.stack([run[f] for run in runs]) for f in Figure}
            for name, runs in figures.items()
        }
        results += [
            Result(task, name, values, patients, _compared(stacked, name, patients, settings))
            for name, values in stacked.items()
        ]
    people = len(np.unique(patients))
    given = {name: len(images) for name, images in arms.items()}
    return UtilityResult(tuple(results), count, given, len(test), people, settings)


def _say(on_progress: Progress, before: int, total: int, what: str, step: int) -> None:
    on_progress(before + step, total, what)


def measure(clean: np.ndarray, restored: np.ndarray) -> dict[Figure, np.ndarray]:
    """Figures [n] of restored images [n, s, s], clipped to [0, 1]."""
    restored = np.clip(restored, 0, 1)
    error = ((restored - clean) ** 2).mean((1, 2))

    def similarity(a: Array, b: Array) -> Array:
        return ssim(a, b, data_range=1.0, reduction="none")

    return {
        Figure.PSNR: -10 * np.log10(np.maximum(error, 1e-12)),
        Figure.SSIM: np.asarray(in_batches(similarity, clean, restored, size=_BATCH)),
        Figure.RMSE: np.sqrt(error),
    }


def _drawn(images: np.ndarray, count: int) -> np.ndarray:
    rows = np.sort(np.random.default_rng(0).permutation(len(images))[:count])
    return images[rows]


def _degraded(test: np.ndarray, task: Task) -> np.ndarray:
    """Each test image [m, s, s] by its own key, whatever others there are."""
    key = jax.random.key(_TEST_SEED)

    @jax.jit
    @jax.vmap
    def one(row: Array, image: Array) -> Array:
        return degrade(jax.random.fold_in(key, row), image[None], task=task)[0]

    return np.asarray(in_batches(one, np.arange(len(test)), test, size=_BATCH))


def _compared(
    stacked: Mapping[str, Mapping[Figure, np.ndarray]],
    name: str,
    patients: np.ndarray,
    settings: UtilitySettings,
) -> dict[Figure, Equivalence]:
    if name == UNTREATED:
        return {}
    reference = UNTREATED if name == REFERENCE else REFERENCE
    return {
        figure: equivalence(
            stacked[reference][figure].mean(0),
            values.mean(0),
            patients=patients,
            margin=settings.margins[figure],
            level=settings.level,
        )
        for figure, values in stacked[name].items()
    }


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Images float32 [n, s, s] on [0, 1] to learn from, by arm, test images [m, s, s] with their patients
    int [m], and what became of every side's files.
    """

    arms: dict[str, np.ndarray]
    test: np.ndarray
    patients: np.ndarray
    accounts: dict[str, Account]


def read_arms(
    folders: Mapping[str, str | Path],
    test: str | Path,
    work: Workspace,
    *,
    size: int,
    subject_regex: str | None = None,
    on_progress: Progress = lambda done, total, what: None,
) -> Inputs:
    """Reads every arm and the test.

    Args:
      folders: folder or manifest of each arm.
      test: real images of patients that are in none of them.
      work: keeps decoded images.
      size: side that all are brought to.
      subject_regex: finds the patient in the name of a real file.
      on_progress: called with (images read, images in all, what).

    Raises:
      InputError: a test image is among the images to learn from, pixel by pixel at this size, or its
        patient among those of the real ones.
    """
    if size < 32 or size % 4:
        raise ValueError(f"size {size} must be a multiple of 4 and at least 32, for example 64")

    def read(name: str, source: str | Path) -> ImageStore:
        try:
            return pipelines.open_images(
                source,
                work,
                size=(size, size),
                subject_regex=subject_regex if name in (REFERENCE, TEST) else None,
                on_progress=on_progress,
            )
        except InputError as error:
            raise for_flag(error, f"--{name}") from error

    stores = {name: read(name, source) for name, source in folders.items()}
    held_out = read(TEST, test)
    arms, tested = {name: _unit(images) for name, images in stores.items()}, _unit(held_out)
    _check_new(arms, tested)
    known = set(stores[REFERENCE].subject_ids) - {None}
    both = known & set(held_out.subject_ids)
    if both:
        raise InputError(
            f"{len(both)} patients of --test are in --{REFERENCE}, too: choose others, or the test says "
            "how well the network remembers"
        )
    accounts = {name: images.account for name, images in {**stores, TEST: held_out}.items()}
    return Inputs(arms, tested, held_out.patients(), accounts)


def _unit(images: ImageStore) -> np.ndarray:
    return images.take(np.arange(len(images))).astype(np.float32) / 65535


def _check_new(arms: Mapping[str, np.ndarray], test: np.ndarray) -> None:
    """Raises InputError if a network would learn from a test image, whatever its file was like."""
    held_out = {np.ascontiguousarray(image).tobytes() for image in test}
    for name, images in arms.items():
        if shared := sum(np.ascontiguousarray(image).tobytes() in held_out for image in images):
            raise InputError(
                f"--test shares images with --{name}: {shared:,} of these have the pixels of a test image, "
                "and a test must be new to the network; take them out of one of the two"
            )
