"""Small folders with duplicates whose groups are known, made of random textures."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage


def texture(seed: int, side: int = 160) -> np.ndarray:
    """float64 [side, side] on [0, 1]: blobs of many sizes, different for each seed."""
    rng = np.random.default_rng(seed)
    fields = [
        ndimage.gaussian_filter(rng.normal(size=(side, side)), sigma) * sigma
        for sigma in (1.5, 3, 6, 12)
    ]
    total = np.sum(fields, 0)
    return (total - total.min()) / (total.max() - total.min())


def write(path: Path, image: np.ndarray, **how: object) -> None:
    """As an 8-bit picture in the format of the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(path, **how)


CROWD = {
    "mirrored": lambda x: x[:, ::-1],
    "upside_down": lambda x: x[::-1],
    "turned": lambda x: np.rot90(x),
    "turned_more": lambda x: np.rot90(x, 3),
    "transposed": lambda x: x.T,
    "negative": lambda x: 1 - x,
    "darker": lambda x: 0.6 * x,
    "gamma": lambda x: x**1.5,
    "cropped": lambda x: x[16:-16, 16:-16],
    "larger": lambda x: ndimage.zoom(x, 1.3, order=1),
    "tilted": lambda x: ndimage.rotate(x, 12, reshape=False, mode="nearest", order=1),
    "smoothed": lambda x: ndimage.gaussian_filter(x, 0.8),
}


def write_splits(root: Path) -> dict[str, set[str]]:
    """Writes `train` (40 images) and `test` (8); returns the groups by what was done.

    Names are `<patient>_<n>`, and the train split has an image that holds next to nothing.
    """
    train, test = root / "train", root / "test"
    for number in range(24):
        write(train / f"p{number:02d}_0.png", texture(number))
    shutil.copyfile(train / "p01_0.png", train / "p01_1.png")
    write(train / "p02_1.png", texture(2), compress_level=1)
    for name, change in CROWD.items():
        write(train / f"p03_{name}.png", change(texture(3)))
    blank = np.zeros((160, 160))
    blank[70:90, 70:90] = 1
    write(train / "p24_0.png", blank)
    for number in range(30, 36):
        write(test / f"p{number}_0.png", texture(number))
    write(test / "p04_9.jpg", texture(4)[:, ::-1], quality=60)
    write(test / "p77_0.png", ndimage.rotate(texture(5), 20, reshape=False, mode="nearest"))
    write(test / "p06_5.png", texture(60))  # another image of a patient of the train split
    return {
        "same file": {"train/p01_0.png", "train/p01_1.png"},
        "same pixels": {"train/p02_0.png", "train/p02_1.png"},
        "crowd": {"train/p03_0.png", *(f"train/p03_{name}.png" for name in CROWD)},
        "across": {"train/p04_0.png", "test/p04_9.jpg"},
        "two patients": {"train/p05_0.png", "test/p77_0.png"},
    }
