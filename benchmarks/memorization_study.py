"""What a generator remembers, and what an audit finds of it: duplication x length x patients.

    python benchmarks/memorization_study.py --vae=runs/laptop_vae --work=/tmp/study --small \
        --out=benchmarks/results
    python benchmarks/memorization_study.py --config=configs/ldm.py --vae=runs/vae --work=runs/study \
        --patients=16,64,256,1024 --steps=20000,100000 --duplication=none,low,high \
        --images=4096 --controls=1000 --out=benchmarks/results

The second is the whole study, for accelerators; without `--config` networks are a laptop's. Each
cell trains a denoiser on one image each of its own number of people, phantoms or those of the folder
`--real`, draws images, audits them against the images that it was trained on, with other people held
out, and attacks the model by membership inference. Who was copied is known by construction. A cell
whose record is there is not made again, and one that was stopped goes on. One JSON line a cell goes
into OUT/memorization.jsonl; `--small` runs two tiny cells in minutes, for the machinery and not for
its numbers.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags

from benchmarks.cases.patients import copy_one_image_each, write_manifest
from benchmarks.cases.records import keep
from benchmarks.kept import open_images
from benchmarks.methods.set_level import frechet, set_figures
from deepssim_jax.audit.audit import AuditSettings, audit
from deepssim_jax.audit.generation import Generator, TrainingRecord, Wanted, generate
from deepssim_jax.audit.membership import attack_model
from deepssim_jax.audit.result import Label
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.scoring.diversity import diversity
from deepssim_jax.training.generator import train_denoiser
from deepssim_jax.training.generator_config import LdmConfig
from deepssim_jax.training.images import unit

_VAE = flags.DEFINE_string("vae", None, "workdir of a finished train_vae", required=True)
_WORK = flags.DEFINE_string("work", None, "folder of trainings, images and audits", required=True)
_OUT = flags.DEFINE_string("out", None, "folder for memorization.jsonl; none is written without")
_LAPTOP = Path(__file__).resolve().parent.parent / "configs" / "ldm_laptop.py:ldm"
_CONFIG = config_flags.DEFINE_config_file("config", str(_LAPTOP), "FILE[:ARG] of the denoiser")
_REAL = flags.DEFINE_string("real", None, "folder of real images; phantoms if not given")
_SUBJECT_REGEX = flags.DEFINE_string("subject_regex", None, "the patient in a name in that folder")
_PATIENTS = flags.DEFINE_list("patients", ["16", "512"], "people learned from")
_STEPS = flags.DEFINE_list("steps", ["3000"], "steps of training")
_DUPLICATION = flags.DEFINE_list("duplication", ["none"], "none, low, high")
_IMAGES = flags.DEFINE_integer("images", 128, "images drawn of each model", lower_bound=2)
_CONTROLS = flags.DEFINE_integer(
    "controls",
    64,
    "people held out, for the audit's control and the attacks",
    lower_bound=2,
)
_SMALL = flags.DEFINE_bool("small", False, "two tiny cells")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training."""

    duplication: str
    steps: int
    patients: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.duplication}-{self.steps}-{self.patients}"


def setting(cell: Cell, base: LdmConfig, folder: Path) -> tuple[LdmConfig, Path]:
    """What is trained, and the folder of its images; of real ones it holds copies."""
    people = cell.patients + _CONTROLS.value
    config = dataclasses.replace(
        base,
        autoencoder=_VAE.value,
        held_out=_CONTROLS.value / people,
        duplication=cell.duplication,
        steps=cell.steps,
    )
    if _REAL.value is None:
        return dataclasses.replace(config, phantoms=people), folder / "ldm" / "phantoms"
    regex = _SUBJECT_REGEX.value
    copy_one_image_each(Path(_REAL.value), folder / "real", people=people, subject_regex=regex)
    chosen = folder / "real"
    return dataclasses.replace(config, images=str(chosen), subject_regex=regex or ""), chosen


def manifest(folder: Path, name: str, records: Sequence[TrainingRecord]) -> Path:
    """A list of some of the images of a folder."""
    return write_manifest(
        folder / f"{name}.csv", [(r.image_id, r.image_id, r.subject_id) for r in records]
    )


def features(folder: Path, store: Path, *, size: tuple[int, int]) -> np.ndarray:
    """Embeddings [n, d] of a folder of images by the shipped encoder."""
    images = open_images(folder, store, size=size)
    values = unit(images.take(np.arange(len(images))))
    return encoders.embed(encoders.load_encoder("default"), values)


def run(cell: Cell, base: LdmConfig, work: Path) -> dict[str, object]:
    """Trains, draws, audits and attacks; see the module."""
    started = time.time()
    folder = work / cell.name
    config, images = setting(cell, base, folder)
    train_denoiser(config, folder / "ldm", on_notice=print)
    trained = time.time() - started
    model = Generator.load(folder / "ldm")
    made = folder / "generated"
    generate(model, made, Wanted(_IMAGES.value))
    real, control = (
        manifest(images, name, [r for r in model.records if chosen(r)])
        for name, chosen in (
            ("learned", lambda r: r.copies > 0),
            ("control", lambda r: r.copies == 0),
        )
    )
    found = audit(
        real,
        made,
        holdout=control,
        out=folder / "audit",
        settings=AuditSettings(
            size=min(AuditSettings().size, max(64, max(config.size) // 32 * 32))
        ),
    )
    exact = {m.subject_id for m in found.nearest if m.label is Label.EXACT}
    learned, held, drawn = (
        features(side, folder / f"store_{name}", size=config.size)
        for name, side in (("real", real), ("control", control), ("made", made))
    )
    variety, judged = diversity(learned, drawn), set_figures(learned, held, drawn)
    attacks = {}
    for attack, figures in attack_model(model).items():
        attacks[attack.value] = {
            "area": round(figures.area, 4),
            "members": figures.members,
            "held_out": figures.held_out,
            **{
                f"detected_at_{rate:g}": [round(p.value, 4), round(p.low, 4), round(p.high, 4)]
                for rate, p in figures.detected
            },
        }
    return {
        **dataclasses.asdict(cell),
        "real": Path(_REAL.value).name if _REAL.value else "phantoms",
        "images": _IMAGES.value,
        "verdict": found.verdict.value,
        "classes": dict(found.classes),
        "copy_rate": [found.copy_rate.value, found.copy_rate.low, found.copy_rate.high],
        "patients_exposed": found.subjects_exposed,
        "patients_copied_exactly": len(exact),
        "holdout_called": found.holdout_rate.value if found.holdout_rate else None,
        "extraction": [list(pair) for pair in found.exposure],
        "frechet": round(frechet(learned, drawn), 4),
        "precision": round(variety.precision, 4),
        "recall": round(variety.recall, 4),
        "coverage": round(variety.coverage, 4),
        "set_level": dataclasses.asdict(judged),
        "membership": attacks,
        "train_s": round(trained),
        "whole_s": round(time.time() - started),
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # each checkpoint would say so in ten lines
    work = Path(_WORK.value)
    config: LdmConfig = _CONFIG.value
    cells = [
        Cell(duplication, int(steps), int(patients))
        for duplication in _DUPLICATION.value
        for steps in _STEPS.value
        for patients in _PATIENTS.value
    ]
    if _SMALL.value:
        small = config.smoke()
        config = dataclasses.replace(small, batch=8)
        cells = [Cell("none", 4, 8), Cell("high", 4, 8)]
    for cell in cells:
        path = work / cell.name / "record.json"
        if not path.exists():
            record = run(cell, config, work)
            path.write_text(json.dumps(record) + "\n")
            keep(record, _OUT.value, "memorization")
        print(path.read_text(), end="", flush=True)


if __name__ == "__main__":
    app.run(main)
