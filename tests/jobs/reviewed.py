"""Images of an audit that was never run, what it would have found, and pages of its pairs."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deepssim_jax.audit.audit import AuditSettings
from deepssim_jax.audit.result import Label, Match
from deepssim_jax.scoring.retrieval import Retrieval
from tests.jobs import made

SETTINGS = AuditSettings(size=64, plant=0, retrieval=Retrieval.ENCODER, subject_regex="^(p[0-9]+)_")
# How each copy lies on its original, by hand: mirroring, matrix, negative.
_STILL = (1.0, 0.0, 0.0, 1.0)
COPIES = {
    "mirrored": ("horizontal", _STILL, False),
    "turned": ("none", (0.0, -1.0, 1.0, 0.0), False),
    "darker": ("none", _STILL, False),
    "negative": ("none", _STILL, True),
}


def write_images(root: Path) -> None:
    """Twelve real images, four changed copies and six others."""
    for number in range(12):
        made.write(root / "real" / f"p{number:02d}_0.png", made.texture(number))
    for number, name in enumerate(COPIES):
        made.write(root / "synthetic" / f"c_{name}.png", made.CROWD[name](made.texture(number)))
    for number in range(50, 56):
        made.write(root / "synthetic" / f"s{number}.png", made.texture(number))


def matches() -> list[Match]:
    """What an audit of these images finds."""

    def match(synthetic: str, real: str, label: Label, **how: Any) -> Match:
        still = {"flip": "none", "rotation_deg": 0.0, "shift_y": 0.0, "shift_x": 0.0, "scale": 1.0}
        score = 0.5 if label is Label.UNRELATED else 0.98
        about = {"embedding_score": 0.9, "verified_score": score, "p_value": None, "q_value": None}
        return Match(synthetic, real, real[:3], label=label, **{**still, **about, **how})

    found = [
        match(
            f"c_{name}.png", f"p{number:02d}_0.png", Label.EXACT,
            flip=flip, matrix=matrix, negative=negative, points=90.0, evidence=2.5,
        )
        for number, (name, (flip, matrix, negative)) in enumerate(COPIES.items())
    ]  # fmt: skip
    others = [
        match(f"s{number}.png", "p11_0.png", Label.UNRELATED, evidence=0.01 * number)
        for number in range(50, 56)
    ]
    return found + others


def data_of(path: Path) -> dict:
    text = path.read_text().split('id="data">')[1].split("</script>")[0]
    return json.loads(text)


def picture(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))), float)
