"""Look-up: which image of a folder is a single image a copy of?

A folder of chest phantoms is prepared once. Then a crop of one of them, and a phantom that is not in
the folder, are looked up as arrays.
"""

import tempfile
from pathlib import Path

import jax
import numpy as np
from PIL import Image

import deepssim_jax as ds
from deepssim_jax.data.phantom_chests import chests


def main() -> list[ds.LookupAnswer]:
    """Prepares the index, looks two images up, and prints the answers."""
    images = np.asarray(chests(jax.random.key(2), 33, size=(128, 128)))
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "images"
        folder.mkdir()
        for i, image in enumerate(images[:32]):
            Image.fromarray(np.round(255 * image).astype(np.uint8)).save(folder / f"{i:02d}.png")
        ds.index(folder, out=Path(work) / "index")
        prepared = ds.open_index(Path(work) / "index")
        queries = {"crop of 05.png": images[5, 16:116, 10:110], "another phantom": images[32]}
        answers = [ds.lookup(image, index=prepared)[0] for image in queries.values()]

    for name, answer in zip(queries, answers, strict=True):
        found = [f"{m.image_id} ({m.how.value})" for m in answer.matches]
        print(f"{name}: {', '.join(found) or 'no match'}")
    return answers


if __name__ == "__main__":
    main()
