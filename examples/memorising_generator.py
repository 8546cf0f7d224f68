"""A generator that memorises, and is caught.

A small latent diffusion model is trained on eight phantoms, far too few, until it repeats them. An audit
of what it draws, against 60 phantoms of which these eight are a part, names the ones it has learned by
heart. It takes several minutes.
"""

import csv
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from deepssim_jax.data.phantom_chests import chests

LEARNED, REAL = 8, 60
ROOT = Path(__file__).resolve().parent.parent


def run(*arguments: str) -> None:
    """Runs a command of the package."""
    command = [sys.executable, "-m", "deepssim_jax", *arguments]
    subprocess.run(command, check=True, capture_output=True)


def main() -> set[str]:
    """Trains on a few images, draws, audits, and prints whose images were found again."""
    images = np.asarray(chests(jax.random.key(9), REAL, size=(64, 64)))
    with tempfile.TemporaryDirectory() as work:
        root = Path(work)
        for i, image in enumerate(images):
            pixels = Image.fromarray(np.round(255 * np.clip(image, 0, 1)).astype(np.uint8))
            for name in ("real", "learned") if i < LEARNED else ("real",):
                (root / name).mkdir(exist_ok=True)
                pixels.save(root / name / f"p{i:02d}.png")
        config = f"--config={ROOT / 'configs' / 'ldm_laptop.py'}"
        learned = f"--config.images={root / 'learned'}"
        few = ("--config.held_out=0", "--config.validate_every=400")
        vae, ldm, drawn = (root / name for name in ("vae", "ldm", "drawn"))
        run("train_vae", f"{config}:vae", f"--workdir={vae}", learned, *few, "--config.steps=800")
        run(
            "train_ldm", f"{config}:ldm", f"--workdir={ldm}", learned, *few, "--config.steps=1600",
            f"--config.autoencoder={vae}",
        )  # fmt: skip
        run("generate", f"--workdir={ldm}", f"--out={drawn}", "--n=24")
        run(
            "audit", f"--real={root / 'real'}", f"--synthetic={drawn}", f"--out={root / 'audit'}",
            "--size=64",
        )  # fmt: skip
        with (root / "audit" / "nearest.csv").open() as file:
            rows = list(csv.DictReader(file))

    copies = [row for row in rows if row["label"] != "unrelated"]
    people = {row["real_id"][:3] for row in copies}
    taught = {f"p{i:02d}" for i in range(LEARNED)}
    print(f"copies found: {len({row['synthetic_id'] for row in copies})} of 24 images")
    print(
        f"of the {LEARNED} phantoms learned: {len(people & taught)}, of the others: {len(people - taught)}"
    )
    return people


if __name__ == "__main__":
    main()
