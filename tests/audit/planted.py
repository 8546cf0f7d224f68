"""Copies of real films, made by Pillow and SciPy alone: no code of the package takes part."""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

CHANGES = ("noise", "blur", "gamma", "jpeg", "mirror", "rotate", "shift", "zoom")


def make_copy(film: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, tuple[str, ...]]:
    """A film under two or three changes: noise up to 5 % of the range, blur, gamma 0.6 to 1.5, JPEG
    60, mirroring, rotation up to 10 degrees, shift up to 5 %, zoom 0.9 to 1.1."""
    image = film.astype(np.float64) / 255
    chosen = tuple(rng.choice(CHANGES, size=rng.integers(2, 4), replace=False))
    if "mirror" in chosen:
        image = image[:, ::-1]
    angle = np.deg2rad(rng.uniform(-10, 10)) if "rotate" in chosen else 0.0
    zoom = rng.uniform(0.9, 1.1) if "zoom" in chosen else 1.0
    shift = rng.uniform(-0.05, 0.05, 2) * len(image) if "shift" in chosen else np.zeros(2)
    if angle or zoom != 1 or shift.any():
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
        centre = (np.array(image.shape) - 1) / 2
        fill = rng.choice(["constant", "nearest", "reflect"])
        image = ndimage.affine_transform(
            image, turn, offset=centre - turn @ (centre + shift), order=1, mode=fill
        )
    if "blur" in chosen:
        image = ndimage.gaussian_filter(image, rng.uniform(0.5, 1.5))
    if "gamma" in chosen:
        image = np.clip(image, 0, 1) ** rng.uniform(0.6, 1.5)
    if "noise" in chosen:
        image = image + rng.normal(0, rng.uniform(0.01, 0.05), image.shape)
    out = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    if "jpeg" in chosen:
        buffer = io.BytesIO()
        Image.fromarray(out).save(buffer, "JPEG", quality=60)
        out = np.asarray(Image.open(buffer))
    return out, chosen


def write_films(
    source: Path, root: Path, *, real: int, copies: int, others: int | None, seed: int
) -> dict[str, str]:
    """Writes `real/` and `synthetic/` from films `<patient>_<number>.png`; patients never mix.

    Returns:
      The original of each copy: {synthetic id: real id}.
    """
    rng = np.random.default_rng(seed)
    films = sorted(source.glob("*.png"))
    patients = sorted({path.name.split("_")[0] for path in films})
    order = {p: i for i, p in enumerate(rng.permutation(patients))}
    films.sort(key=lambda path: (order[path.name.split("_")[0]], path.name))
    cut = real
    (root / "real").mkdir(parents=True)
    (root / "synthetic").mkdir()
    # The last patient of the real side stays whole by leaving the rest of the films out.
    last = films[cut - 1].name.split("_")[0]
    rest = [path for path in films[cut:] if path.name.split("_")[0] != last]
    for path in films[:cut]:
        (root / "real" / path.name).write_bytes(path.read_bytes())
    for path in rest[:others]:
        (root / "synthetic" / f"other_{path.name}").write_bytes(path.read_bytes())
    truth = {}
    for number, row in enumerate(rng.choice(cut, copies, replace=False)):
        film = np.asarray(Image.open(films[row]).convert("L"))
        name = f"copy_{number:03d}.png"
        Image.fromarray(make_copy(film, rng)[0]).save(root / "synthetic" / name)
        truth[name] = films[row].name
    return truth
