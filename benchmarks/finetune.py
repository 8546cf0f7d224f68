"""What ten minutes on one's own images are worth.

    python benchmarks/finetune.py --data=../shared/data --out=benchmarks/results

Half of the patients' films train (`configs/finetune.py`); on the other half the shipped encoder and the
tuned one are measured as in `retrieval.py`. One record goes into OUT/finetune.jsonl.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from absl import app, flags

from benchmarks import retrieval
from benchmarks.cases.films import image_of, patient_of
from benchmarks.cases.records import dated, keep
from deepssim_jax.nn.encoder import load_encoder

ROOT = Path(__file__).resolve().parent.parent
_KEEP = flags.DEFINE_string("keep", None, "folder for the training's files; temporary without")


def halves(films: list[Path], seed: int) -> tuple[list[Path], list[Path]]:
    """Films of one half of the patients, and of the other."""
    patients = sorted({patient_of(path) for path in films})
    order = np.random.default_rng(seed).permutation(patients)
    first = set(order[: len(order) // 2])
    sides: tuple[list[Path], list[Path]] = ([], [])
    for path in films:
        sides[patient_of(path) not in first].append(path)
    return sides


def main(_: list[str]) -> None:
    flags.FLAGS[retrieval.ALIGNED.name].value = False
    data = Path(retrieval.DATA.value)
    train, test = halves(sorted((data / "cxr").glob("*.png")), retrieval.SEED.value)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(_KEEP.value or folder)
        (root / "films").mkdir(parents=True, exist_ok=True)
        for path in train:
            shutil.copy(path, root / "films")
        command = [sys.executable, "-m", "deepssim_jax", "train_encoder"]
        command += [f"--config={ROOT}/configs/finetune.py", f"--config.images={root / 'films'}"]
        command += ["--config.subject_regex=^([0-9]+)_", f"--workdir={root / 'run'}"]
        begin = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - begin
        images = np.stack([image_of(path) for path in test])
        results = {}
        for name in ("default", str(root / "run" / "encoder.safetensors")):
            key = "shipped" if name == "default" else "tuned"
            results[key] = retrieval.measure(images, load_encoder(name))
            print(f"\n{key}, {len(test)} films of other patients, training took {seconds:.0f} s")
            print("Spearman {:.3f} ({:.3f} to {:.3f})".format(*results[key]["spearman"]))
            print(retrieval.table(results[key]), flush=True)
    record: dict[str, object] = {
        "training_films": len(train),
        "training_s": round(seconds),
        "seed": retrieval.SEED.value,
        **results,
    }
    keep(dated(record), retrieval.OUT.value, "finetune")


if __name__ == "__main__":
    app.run(main)
