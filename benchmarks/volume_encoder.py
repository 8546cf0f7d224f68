"""Is the original the closest volume by its embedding, whatever a pipeline did to the copy?

    python -m benchmarks.volume_encoder --encoder=runs/volume/encoder.safetensors --out=benchmarks/results

Copies as in `benchmarks/volume_edits.py`, embedded as `deepssim replicas` embeds them: as slices through
the encoder of images that ships, and whole by each ENCODER, in the same run. Of every edit, the copies
whose closest of the references is their own person (for half another's, either of the two).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from absl import app, flags

import deepssim_jax as ds
from benchmarks.cases.records import dated, keep
from benchmarks.cases.volume_edits import EDITS, KINDS, copies, people
from benchmarks.volume_edits import MODALITY
from deepssim_jax.data.whole_volume import VolumeSettings
from deepssim_jax.nn.volume_embedding import embed_volumes
from deepssim_jax.scoring.decide import clopper_pearson
from deepssim_jax.scoring.volume_sides import Modality

ENCODER = flags.DEFINE_multi_string("encoder", [], "encoders beside the one that ships")


def measure(kind: str) -> dict[str, object]:
    """The record of one kind of volume."""
    given = flags.FLAGS
    rng = np.random.default_rng([given.seed, KINDS.index(kind)])
    everyone = people(kind, given.references, given.unrelated, Path(given.data), rng)
    asked, truth = copies(everyone, given.each, rng)
    settings, modality = VolumeSettings(), MODALITY.get(kind, Modality.OTHER)
    grid = ds.ReplicaSettings().grid
    stored = [
        modality.contrast(np.stack([settings.fitted(v.values, v.spacing)[0] for v in some]), grid)
        for some in (asked, everyone.real)
    ]
    first: dict[str, dict[str, int]] = {}
    for path in (None, *ENCODER.value):
        encoder = ds.load_encoder(path) if path else ds.load_encoder()
        queries, references = (embed_volumes(encoder, volumes) for volumes in stored)
        closest = (queries @ references.T).argmax(1)
        hits = np.array([int(found in rows) for found, rows in zip(closest, truth, strict=True)])
        name = Path(path).parent.name if path else "slices"
        first[name] = dict(zip(EDITS, hits.reshape(len(EDITS), -1).sum(1).tolist(), strict=True))
    total = {name: sum(row.values()) for name, row in first.items()}
    return {
        "kind": kind, "references": len(everyone.real), "seed": given.seed, "copies": len(truth),
        "by_edit": given.each, "first": first, "total": total,
        "intervals": {
            name: [round(x, 3) for x in (found.value, found.low, found.high)]
            for name, found in ((n, clopper_pearson(t, len(truth))) for n, t in total.items())
        },
        "command": f"python -m benchmarks.volume_encoder --kind={kind} --references={len(everyone.real)} "
        f"--each={given.each} --seed={given.seed}" + "".join(f" --encoder={p}" for p in ENCODER.value),
    }  # fmt: skip


def main(_: list[str]) -> None:
    for kind in flags.FLAGS.kind:
        record = dated(measure(kind))
        for name, row in record["first"].items():
            print(f"{kind:9s} {name:12s} {record['total'][name]} of {record['copies']} {row}")
        keep(record, flags.FLAGS.out, "volume_encoder")


if __name__ == "__main__":
    app.run(main)
