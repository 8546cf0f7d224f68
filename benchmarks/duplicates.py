"""How `duplicates` does on folders of real images into which copies were planted.

    python -m benchmarks.duplicates --images=../shared/data/pictures/ct_head --work=TMP --out=OUT

One image in ten gets a copy under one of 20 changes, under a name of its own. A planted copy is found if
it is in a group with its original. Pairs that hold no planted copy are listed by name, to be looked at:
public sets hold doubles that nobody has written down. One line a folder goes into OUT/duplicates.jsonl.
"""

from pathlib import Path

import numpy as np
from absl import app, flags
from PIL import Image

import deepssim_jax as ds
from benchmarks.cases.records import dated, keep
from deepssim_jax.data.edits import EDITS
from deepssim_jax.data.kinds import read_kind
from deepssim_jax.scoring.decide import clopper_pearson

CHANGES = (
    "rotation 15 degrees", "rotation by any angle", "quarter turns 1", "left to right", "upside down",
    "crop 20 % of both sides", "crop 30 % at one edge", "zoom 0.75", "zoom 1.5", "aspect 0.8",
    "shift 10 %", "JPEG 30", "JPEG 10", "gamma 0.6", "gamma 1.7", "window of half the range",
    "negative", "noise 0.05", "text", "part 40 %, moved",
)  # fmt: skip
_IMAGES = flags.DEFINE_multi_string("images", None, "folders", required=True)
_WORK = flags.DEFINE_string(
    "work", None, "folder for images and work; a stopped run goes on", required=True
)
_SHARE = flags.DEFINE_float("share", 0.1, "of the images get a copy")
_SEED = flags.DEFINE_integer("seed", 0, "of what is copied how")
_OUT = flags.DEFINE_string("out", None, "folder for the records; none are written without")
_PLANTED = "planted_"


def _write(path: Path, image: np.ndarray) -> None:
    Image.fromarray(np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(path)


def plant(source: str, folder: Path, *, share: float, seed: int) -> dict[str, tuple[str, str]]:
    """Writes a source's images and copies; returns (original, change) by the copy's name."""
    kind = read_kind(source, name=Path(source).name, side=1024)
    rng = np.random.default_rng(seed)
    edits = [edit for name in CHANGES for edit in EDITS if edit.name == name]
    assert len(edits) == len(CHANGES)
    for name, image in zip(kind.image_ids, kind.images, strict=True):
        _write(folder / Path(name).name, image)
    count = round(share * len(kind))
    planted = {}
    turn = rng.permutation(len(edits))
    for number, row in enumerate(rng.choice(len(kind), count, replace=False).tolist()):
        edit = edits[turn[number % len(edits)]]
        donor = kind.images[int(rng.integers(len(kind)))]
        name = f"{_PLANTED}{number:04d}.png"
        _write(folder / name, edit.make(kind.images[row], donor=donor, rng=rng).image)
        planted[name] = (Path(kind.image_ids[row]).name, edit.name)
    return planted


def main(argv: list[str]) -> None:
    """Runs every folder, prints what was found and keeps a record of each."""
    del argv
    for source in _IMAGES.value:
        place = Path(_WORK.value) / Path(source).name
        folder = place / "images"
        folder.mkdir(parents=True, exist_ok=True)
        planted = plant(source, folder, share=_SHARE.value, seed=_SEED.value)
        result = ds.duplicates(folder, out=place / "found")
        group = {x.image_id: x.group for x in result.groups}
        missed = [
            change
            for name, (original, change) in planted.items()
            if name not in group or group[name] != group.get(original)
        ]
        pairs = [p for p in result.pairs if p.evidence is not None]
        pairs = [p for p in pairs if not {p.first_id[:8], p.second_id[:8]} & {_PLANTED}]
        share = clopper_pearson(len(planted) - len(missed), len(planted))
        counts = result.counts
        record = {
            "images": Path(source).name, "count": counts["images"], "seed": _SEED.value,
            "planted": len(planted), "found": share.count, "low": share.low, "high": share.high,
            "missed": missed, "equal_pairs": counts["same_file"] + counts["same_pixels"],
            "other_pairs": len(pairs), "similar": counts["similar"], "thresholds": dict(result.thresholds),
        }  # fmt: skip
        print(record)
        for pair in pairs:
            print(
                f"  {pair.first_id} {pair.second_id} evidence {pair.evidence:.2f} points "
                f"{pair.points:.0f} score {pair.verified_score:.3f}"
            )
        keep(dated(record), _OUT.value, "duplicates")


if __name__ == "__main__":
    app.run(main)
