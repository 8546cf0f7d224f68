"""Duplicates: which images of a data set are copies of each other, also between its splits?

A test split contains two images of the training split: one resized and relit, one with equal pixels.
"""

import tempfile
from pathlib import Path

import jax
import numpy as np
from PIL import Image

import deepssim_jax as ds
from deepssim_jax.data.phantom_chests import chests


def main() -> ds.DuplicatesResult:
    """Makes two splits, searches them, and prints the groups."""
    images = np.asarray(chests(jax.random.key(1), 48, size=(128, 128)))
    pictures = [Image.fromarray(np.round(255 * image).astype(np.uint8)) for image in images]
    with tempfile.TemporaryDirectory() as work:
        train, test = Path(work) / "train", Path(work) / "test"
        train.mkdir()
        test.mkdir()
        for i, picture in enumerate(pictures[:32]):
            picture.save(train / f"{i:02d}.png")
        for i, picture in enumerate(pictures[32:]):
            picture.save(test / f"{i:02d}.png")
        pictures[3].resize((160, 160)).point(lambda x: int(0.8 * x + 20)).save(test / "relit.png")
        pictures[7].save(test / "again.bmp")
        result = ds.duplicates(train, against=[test])

    for image in result.groups:
        print(f"group {image.group}: {image.image_id} ({image.split}){' keep' * image.kept}")
    for pair in result.pairs:
        print(f"{pair.first_id} and {pair.second_id}: {pair.how.value}")
    return result


if __name__ == "__main__":
    main()
