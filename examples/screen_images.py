"""Screening: what of a folder of synthetic images may leave?

Ten of the synthetic phantoms are copies of training phantoms. `deepssim filter` withholds them, writes
the others anew under numbers, and adds a certificate, which `deepssim verify` checks.
"""

import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
from PIL import Image
from scipy import ndimage

from deepssim_jax.data.phantom_chests import chests


def write(folder: Path, name: str, image: np.ndarray) -> None:
    """Writes an image on [0, 1] as an 8-bit PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)).save(folder / name)


def run(*arguments: str) -> None:
    """Runs a command of the package."""
    command = [sys.executable, "-m", "deepssim_jax", *arguments]
    subprocess.run(command, check=True, capture_output=True)


def main() -> set[str]:
    """Makes the images, screens them, and prints what left."""
    images = np.asarray(chests(jax.random.key(5), 80, size=(128, 128)))
    with tempfile.TemporaryDirectory() as work:
        root = Path(work)
        for i, image in enumerate(images[:60]):
            write(root / "training", f"patient{i:02d}.png", image)
        for i, image in enumerate(images[:10]):
            turned = ndimage.rotate(image, 90 + i, reshape=False, order=1, mode="nearest")
            write(root / "synthetic", f"copy{i:02d}.png", turned)
        for i, image in enumerate(images[60:]):
            write(root / "synthetic", f"other{i:02d}.png", image)
        share = root / "share"
        real = f"--real={root / 'training'}"
        run("filter", real, f"--synthetic={root / 'synthetic'}", f"--out={share}")
        run("verify", str(share), real)
        with (root / "share.work" / "released.csv").open() as file:
            released = {row["source"] for row in csv.DictReader(file)}
        said = json.loads((share / "certificate.json").read_text())

    print(f"judged: {said['candidates']['judged']}, released: {len(released)}")
    print(f"copies released: {sum(name.startswith('copy') for name in released)} of 10")
    return released


if __name__ == "__main__":
    main()
