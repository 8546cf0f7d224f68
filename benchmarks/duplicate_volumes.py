"""How `duplicates` does on folders of volumes into which copies were planted.

    python -m benchmarks.duplicate_volumes --data=../shared/data --kind=heads --out=benchmarks/results

The volumes and the changes are those of `volume_edits.py`: people, second scans of some of them, and a copy
under each change. A planted copy is found if it is in a group with its original, and listed if it is
at least named as similar to it; two scans of one person are no duplicates, and similar. Half of another's
volume is found with either of the two. One line a kind goes into OUT/duplicate_volumes.jsonl.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from absl import app, flags

import deepssim_jax as ds
from benchmarks.cases.records import dated, keep
from benchmarks.cases.volume_edits import EDITS, KINDS, copies, people, write
from deepssim_jax.scoring.decide import clopper_pearson

_DATA = flags.DEFINE_string("data", "../shared/data", "folder with brain3d/")
_OUT = flags.DEFINE_string("out", None, "folder for the records; none are written without")
_KIND = flags.DEFINE_multi_enum("kind", list(KINDS), list(KINDS), "kinds of volumes")
_PEOPLE = flags.DEFINE_integer("people", 40, "people with a volume each", lower_bound=20)
_EACH = flags.DEFINE_integer("each", 1, "copies by edit", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "of everything that is drawn")


def measure(kind: str, folder: Path) -> dict[str, object]:
    """The record of one kind of volume."""
    rng = np.random.default_rng([_SEED.value, KINDS.index(kind)])
    everyone = people(kind, _PEOPLE.value, _PEOPLE.value // 4, Path(_DATA.value), rng)
    known = [*everyone.real, *everyone.unrelated, *everyone.rescans]
    images = folder / "images"
    images.mkdir()
    for row, volume in enumerate(known):
        write(volume, images / f"{row:03d}.nii.gz", kind=kind)
    asked, originals_of = copies(everyone, _EACH.value, rng)
    truth: dict[str, tuple[str, set[str]]] = {}
    for number, (volume, originals) in enumerate(zip(asked, originals_of, strict=True)):
        name = f"copy{number:03d}.nii.gz"
        write(volume, images / name, kind=kind)
        truth[name] = EDITS[number // _EACH.value], {f"{row:03d}.nii.gz" for row in originals}
    result = ds.duplicates(images, out=folder / "found")
    group = {x.image_id: x.group for x in result.groups}
    missed = [
        edit
        for name, (edit, originals) in truth.items()
        if name not in group or group[name] not in {group.get(o) for o in originals}
    ]
    similar = [(p.first_id, p.second_id) for p in result.similar]
    listed = [
        edit
        for name, (edit, originals) in truth.items()
        if edit in missed and any(name in pair and originals & set(pair) for pair in similar)
    ]
    pairs = [(p.first_id, p.second_id) for p in result.pairs]
    people_of = [volume.person.split(" ")[0] or f"other {row}" for row, volume in enumerate(known)]
    whose = {f"{row:03d}.nii.gz": person for row, person in enumerate(people_of)}

    def apart(ids: list[tuple[str, str]]) -> list[str]:
        """Of other people, and no planted copy among them."""
        return [f"{a} {b}" for a, b in ids if not {a, b} & set(truth) and whose[a] != whose[b]]

    def scans(ids: list[tuple[str, str]]) -> int:
        return sum(not {a, b} & set(truth) and whose[a] == whose[b] for a, b in ids)

    share = clopper_pearson(len(truth) - len(missed), len(truth))
    return dated({
        "kind": kind, "people": len(everyone.real), "unrelated": len(everyone.unrelated),
        "rescans": len(everyone.rescans), "seed": _SEED.value, "planted": share.total,
        "found": share.count, "low": share.low, "high": share.high, "missed": missed,
        "listed": listed, "other_pairs": apart(pairs), "scans_called": scans(pairs),
        "similar": len(similar), "other_similar": apart(similar), "scans_similar": scans(similar),
    })  # fmt: skip


def main(argv: list[str]) -> None:
    """Measures every kind, prints what was found and keeps a record of each."""
    del argv
    for kind in _KIND.value:
        with tempfile.TemporaryDirectory() as folder:
            record = measure(kind, Path(folder))
        print(record, flush=True)
        keep(record, _OUT.value, "duplicate_volumes")


if __name__ == "__main__":
    app.run(main)
