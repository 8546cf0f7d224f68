"""A generator that repeats its training images, and releases of what it and others offer."""

import csv
import dataclasses
import hashlib
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from deepssim_jax.audit import certificate
from deepssim_jax.audit.generation import SamplingSettings, TrainingRecord, Wanted
from deepssim_jax.audit.guard import Guard, GuardSettings
from deepssim_jax.audit.safeguard import filter_folder, generate_guarded
from deepssim_jax.data.pictures import ImageFormat
from deepssim_jax.workspace import Workspace

SETTINGS = GuardSettings(size=64, subject_regex=r"^(p\d+)_")


def change(image: np.ndarray, kind: str) -> np.ndarray:
    """By SciPy alone, so that nothing which detects a copy also made it."""
    rng = np.random.default_rng(len(kind))
    y, x = np.mgrid[: len(image), : len(image)] / len(image)
    match kind:
        case "exact":
            return image
        case "shifted":
            return np.roll(image, 1, axis=1)
        case "mirrored":
            return image[:, ::-1]
        case "rotated":
            return ndimage.rotate(image, 10, reshape=False, order=1, mode="nearest")
        case "gamma":
            return image**0.7
        case "noise":
            return image + 0.05 * rng.standard_normal(image.shape)
        case "local":
            spot = np.exp(-((y - 0.4) ** 2 + (x - 0.6) ** 2) / (2 * 0.08**2))
            return image + 0.5 * spot * image.max()
    raise ValueError(kind)


KINDS = ("exact", "shifted", "mirrored", "rotated", "gamma", "noise", "local")


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.clip(image, 0, 1) * 255).round().astype(np.uint8)).save(path)


@dataclasses.dataclass
class Memorizer:
    """Stands for a generator: every second image is a training image, changed."""

    training: np.ndarray
    novel: np.ndarray
    records: tuple[TrainingRecord, ...]
    drawn: list[int] = dataclasses.field(default_factory=list)
    conditions: None = None
    weights_hash: str = "0" * 64

    @property
    def trained(self) -> np.ndarray:
        return np.arange(len(self.records))

    def records_of(self, indices: Sequence[int], *, seed: int) -> np.ndarray:
        return np.asarray(indices) % len(self.records)

    def images(
        self,
        indices: Sequence[int],
        *,
        seed: int,
        settings: SamplingSettings,
        records: Sequence[int] | None = None,
    ) -> np.ndarray:
        self.drawn += [int(i) for i in indices]
        out = [
            change(self.training[i // 2], KINDS[i // 2 % len(KINDS)])
            if i % 2 == 0
            else self.novel[i // 2 % len(self.novel)]
            for i in indices
        ]
        return np.clip(np.stack(out), 0, 1).astype(np.float32)


def pixels(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(p), float) / 255 for p in sorted(folder.glob("*.png"))])


def memorizer(cohort: Path) -> Memorizer:
    files = sorted((cohort / "training").glob("*.png"))
    records = tuple(
        TrainingRecord(p.name, p.name[:5], 1, hashlib.sha256(p.read_bytes()).hexdigest())
        for p in files
    )
    return Memorizer(pixels(cohort / "training"), pixels(cohort / "others"), records)


def release(
    generator,
    guard: Guard,
    folder: Path,
    *,
    n: int = 8,
    budget: int = 40,
    residual_pairs: int = 200,
    image_format: ImageFormat = ImageFormat.PNG,
):
    with shared(folder) as workspace:
        return generate_guarded(
            generator,
            guard,
            workspace,
            Wanted(n, image_format=image_format, budget=budget),
            settings=SamplingSettings(batch=6),
            residual_pairs=residual_pairs,
        )


def shared(folder: Path):
    """The workspace of images to be given away, whose kept work lies beside it."""
    return Workspace.open(folder / "share", command="generate", work=folder / "work")


def filtered(source: Path, guard: Guard, folder: Path, *, residual_pairs: int = 48, **how):
    with shared(folder) as workspace:
        return filter_folder(source, guard, workspace, residual_pairs=residual_pairs, **how)


def written(folder: Path) -> dict[str, str]:
    """Which image of those offered each released file is."""
    with (folder / "work" / "released.csv").open(newline="") as file:
        return {row["path"]: row["source"] for row in csv.DictReader(file)}


def hide(patient: np.ndarray, novel: np.ndarray, folder: Path) -> int:
    """Writes another person's image in files that hold a patient's beside it; says how many."""
    folder.mkdir()
    Image.fromarray(novel).save(folder / "plain.png")
    layered = Image.fromarray(novel).convert("RGBA")
    layered.putalpha(Image.fromarray(patient // 128 * 255))
    layered.save(folder / "cut.png")
    end = io.BytesIO()
    Image.fromarray(patient).save(end, "PNG")
    for name in ("after.png", "after.jpg"):
        Image.fromarray(novel).save(folder / name)
        (folder / name).write_bytes((folder / name).read_bytes() + end.getvalue())
    with (folder / "twice.npy").open("wb") as file:
        np.save(file, novel)
        np.save(file, patient)
    exif = Image.Exif()
    exif[0x010E] = "p0003_t1"
    Image.fromarray(novel).save(folder / "told.jpg", exif=exif)
    return 6


def without_limits(guard: Guard) -> Guard:
    """One that refuses nothing."""
    thresholds = dataclasses.replace(
        guard.limits.thresholds, local=1e9, partial=(1e9,) * len(guard.limits.thresholds.partial)
    )
    limits = dataclasses.replace(guard.limits, max_ssim=2.0, max_cosine=2.0, thresholds=thresholds)
    return dataclasses.replace(guard, limits=limits)


def write_some(cohort: Path, folder: Path) -> None:
    """Six images of other people."""
    folder.mkdir(exist_ok=True)
    for path in sorted((cohort / "others").iterdir())[:6]:
        shutil.copy(path, folder)


def rewrite(share: Path, change) -> None:
    """Edits a certificate as someone who can hash would."""
    path = share / certificate.NAME
    said = json.loads(path.read_text())
    change(said)
    said["digest"] = certificate.digest(said)
    path.write_text(json.dumps(said))
