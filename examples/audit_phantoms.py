"""Audit: which synthetic images are copies of real ones?

Chest phantoms are the real images. Half of the synthetic images are made from them, mirrored and
rotated; the other half are phantoms of their own. The truth is known, so the audit can be checked.
"""

import tempfile
from pathlib import Path

import jax
import numpy as np
from PIL import Image
from scipy import ndimage

import deepssim_jax as ds
from deepssim_jax.data.phantom_chests import chests


def write(folder: Path, name: str, image: np.ndarray) -> None:
    """Writes an image on [0, 1] as an 8-bit PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)).save(folder / name)


def main() -> ds.AuditResult:
    """Makes the images, audits them, and prints what was found."""
    images = np.asarray(chests(jax.random.key(0), 60, size=(128, 128)))
    real, others = images[:48], images[48:]
    with tempfile.TemporaryDirectory() as work:
        root = Path(work)
        for i, image in enumerate(real):
            write(root / "real", f"patient{i:02d}.png", image)
        for i, image in enumerate(real[:12]):
            turned = ndimage.rotate(image[:, ::-1], 7, reshape=False, order=1, mode="nearest")
            write(root / "synthetic", f"copy{i:02d}.png", turned)
        for i, image in enumerate(others):
            write(root / "synthetic", f"other{i:02d}.png", image)
        result = ds.audit(root / "real", root / "synthetic", settings=ds.AuditSettings(plant=48))

    rate = result.copy_rate
    print(f"verdict: {result.verdict.value}")
    print(f"copies: {rate.count} of {rate.total} ({rate.low:.0%} to {rate.high:.0%})")
    for match in result.pairs[:3]:
        print(f"{match.synthetic_id} is a copy of {match.real_id}: {match.verified_score:.2f}")
    return result


if __name__ == "__main__":
    main()
