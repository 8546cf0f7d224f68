"""Stress test: which copies of these images would an audit find?

`deepssim stress` makes copies of phantoms under a few kinds of edits, searches for each among all
of them, and reports what is found at a fixed rate of false matches. Give it your own folder instead.
"""

import csv
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from deepssim_jax.data.phantom_chests import chests

GROUPS = ("rotation", "crop", "negative", "part")


def main() -> Counter[str]:
    """Makes the images, runs the test, and prints a line for each kind of edit."""
    images = np.asarray(chests(jax.random.key(3), 60, size=(128, 128)))
    with tempfile.TemporaryDirectory() as work:
        folder, out = Path(work) / "images", Path(work) / "stress"
        folder.mkdir()
        for i, image in enumerate(images):
            pixels = np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{i:03d}.png")
        command = [sys.executable, "-m", "deepssim_jax", "stress", f"--real={folder}"]
        command += [f"--out={out}", "--setting=edits", "--methods=audit", "--copies=2"]
        command += [f"--groups={','.join(GROUPS)}"]
        subprocess.run(command, check=True, capture_output=True)
        with (out / "edits.csv").open() as file:
            rows = list(csv.DictReader(file))

    found, copies = Counter[str](), Counter[str]()
    for row in rows:
        found[row["group"]] += int(row["found"])
        copies[row["group"]] += int(row["of"])
    for group in GROUPS:
        print(f"{group}: {found[group]} of {copies[group]} copies found")
    (alarms,) = (row for row in rows if row["edit"] == "false alarms")
    print(f"other images called copies: {alarms['found']} of {alarms['of']}")
    return found


if __name__ == "__main__":
    main()
