"""Are copies of volumes found whatever a pipeline did to them? By kind of volume and of edit.

    python -m benchmarks.volume_edits --data=../shared/data --kind=heads --out=benchmarks/results

For each kind of volume, 40 people are the real side; every edit of `cases/volume_edits.py` makes
copies of some of them; people who are not on the real side are the unrelated volumes, and further scans
of those who are the rescans. All are written as NIfTI files and go through `deepssim replicas`:
thresholds from the real side alone. The peer is what a
user writes in thirty lines: normalised cross-correlation of the gradient's magnitude by FFT on a grid
of 6 mm (of the field of view where no spacing is known), in 48 axis poses; it has no threshold, so it
gets the best one, that of the highest unrelated volume. A copy counts as found where the person (for
half another's, either of the two) is right. One record a kind goes into OUT/volume_edits.jsonl.
"""

import contextlib
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

import deepssim_jax as ds
from benchmarks.cases.records import dated, keep
from benchmarks.cases.volume_edits import (
    BEND_MM,
    EDITS,
    KINDS,
    Volume,
    coarser,
    copies,
    edited,
    people,
    write,
)
from deepssim_jax.audit.replica_result import Kind, VolumeMatch
from deepssim_jax.data.whole_volume import VolumeSettings
from deepssim_jax.ops.volume_grid import Geometry, on_grid
from deepssim_jax.ops.volume_poses import POSES
from deepssim_jax.scoring.decide import clopper_pearson
from deepssim_jax.scoring.volume_search import Level, VolumeSide
from deepssim_jax.scoring.volume_sides import Modality

DATA = flags.DEFINE_string("data", "../shared/data", "folder with brain3d/")
OUT = flags.DEFINE_string("out", None, "folder for volume_edits.jsonl; nothing is written without")
KIND = flags.DEFINE_multi_enum("kind", list(KINDS), list(KINDS), "kinds of volumes")
REFERENCES = flags.DEFINE_integer("references", 40, "people on the real side", lower_bound=20)
EACH = flags.DEFINE_integer("each", 2, "copies by edit", lower_bound=1)
UNRELATED = flags.DEFINE_integer("unrelated", 16, "people who are not on the real side")
SPACING = flags.DEFINE_float(
    "spacing_mm", None, "make all volumes as coarse as this first", lower_bound=0
)
SEED = flags.DEFINE_integer("seed", 0, "of everything that is drawn")
WORK = flags.DEFINE_string("work", None, "folder in which the files and the report stay")
_GRID, _PEER_MM = 40, 6.0
# Of the others no label maps are made.
MODALITY = {"heads": Modality.MR}


def side(volumes: list[Volume]) -> VolumeSide:
    """As `deepssim replicas` holds them."""
    settings = VolumeSettings()
    stored, geometry = zip(*(settings.fitted(v.values, v.spacing) for v in volumes), strict=True)
    pixels, known = np.stack(stored), np.stack(geometry)
    return VolumeSide(
        take=lambda rows: pixels[rows],
        shape=settings.size,
        groups=np.unique([v.person for v in volumes], return_inverse=True)[1].astype(np.int32),
        geometry=Geometry(known[:, :3], known[:, 3]),
    )


@jax.jit
def _edges(volume: jax.Array, box: jax.Array, step: jax.Array) -> jax.Array:
    seen, held = on_grid(volume, box, step, size=_GRID)
    strength = jnp.sqrt(sum(g**2 for g in jnp.gradient(seen))) * held
    strength = strength - strength.mean()
    return strength / jnp.maximum(jnp.linalg.norm(strength), 1e-9)


def peer(queries: VolumeSide, references: VolumeSide) -> np.ndarray:
    """[queries, references]: the largest correlation over poses and shifts."""

    def edges(volumes: VolumeSide) -> np.ndarray:
        steps = volumes.geometry.steps(_GRID, _GRID * _PEER_MM)[:, 0]
        pixels = volumes.take(np.arange(len(volumes))).astype(np.float32)
        rows = zip(pixels, volumes.geometry.box, steps, strict=True)
        return np.stack([np.asarray(_edges(*map(jnp.asarray, row))) for row in rows])

    spectra = jnp.conj(jnp.fft.rfftn(jnp.asarray(edges(references)), axes=(1, 2, 3)))

    @jax.jit
    def best(field: jax.Array) -> jax.Array:
        found = jnp.fft.irfftn(jnp.fft.rfftn(field)[None] * spectra, (_GRID,) * 3, axes=(1, 2, 3))
        return found.max((1, 2, 3))

    out = np.zeros((len(queries), len(references)))
    for row, field in enumerate(edges(queries)):
        for pose in POSES:
            order = np.argmax(np.abs(pose), axis=1)
            flips = [axis for axis in range(3) if pose[axis, order[axis]] < 0]
            turned = np.flip(np.transpose(field, order), flips)
            out[row] = np.maximum(out[row], np.asarray(best(jnp.asarray(turned.copy()))))
    return out


def measure(kind: str) -> dict[str, object]:
    """The record of one kind of volume."""
    rng = np.random.default_rng([SEED.value, KINDS.index(kind)])
    everyone = people(kind, REFERENCES.value, UNRELATED.value, Path(DATA.value), rng)
    if SPACING.value is not None:
        everyone = coarser(everyone, SPACING.value)
    real = everyone.real
    asked, truth = copies(everyone, EACH.value, rng)
    others = [edited("noise", v, v, rng) for v in everyone.unrelated]
    again = [edited("noise", v, v, rng) for v in everyone.rescans]
    queries = [*asked, *others, *again]
    with contextlib.ExitStack() as stack:
        folder = Path(WORK.value or stack.enter_context(tempfile.TemporaryDirectory())) / kind
        for name, volumes in (("real", real), ("synthetic", queries)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            for i, v in enumerate(volumes):
                whose = f"{v.person.split(' ')[0]}_" if name == "real" else ""
                write(v, folder / name / f"{whose}{i:03d}.nii.gz", kind=kind)
        begin = time.perf_counter()
        settings = ds.ReplicaSettings(
            subject_regex="^(.+)_", modality=MODALITY.get(kind, Modality.OTHER)
        )
        result = ds.replicas(
            folder / "real", folder / "synthetic", out=folder / "out", settings=settings
        )
        spent = time.perf_counter() - begin
    if len(result.matches) < len(queries):
        raise ValueError(f"not all {len(queries)} copies could be read: {result.exclusions[0]}")
    people_of = [v.person.split(" ")[0] for v in real]

    def right(match: VolumeMatch, level: Level, rows: tuple[int, ...]) -> bool:
        found = match.levels.get(level)
        return found is not None and found.subject_id in {people_of[row] for row in rows}

    theirs = peer(side(queries), side(real))
    cut = theirs[len(truth) :].max()
    rows: dict[str, dict[str, int]] = {}
    for query, wanted in enumerate(truth):
        row, match = rows.setdefault(EDITS[query // EACH.value], {}), result.matches[query]
        calls = [at for at, found in match.levels.items() if found.kind is Kind.REPLICA]
        named = people_of[int(theirs[query].argmax())] in {people_of[row] for row in wanted}
        found = {
            "n": True,
            "called": match.kind is Kind.REPLICA and any(right(match, at, wanted) for at in calls),
            "same_person": match.kind is Kind.SAME_PERSON,
            "peer_first": named,
            "peer_called": named and theirs[query].max() > cut,
            **{f"{at.value}_first": right(match, at, wanted) for at in result.thresholds},
        }
        for name, hit in found.items():
            row[name] = row.get(name, 0) + int(hit)
    total = {name: sum(row[name] for row in rows.values()) for name in rows[EDITS[0]]}
    wrong = [m.kind is Kind.REPLICA for m in result.matches[len(truth) :]]
    false, rescans = sum(wrong[: len(others)]), sum(wrong[len(others) :])
    shares = {name: _interval(total[name], total["n"]) for name in total if name != "n"} | {
        "false": _interval(false, len(others))
    }
    return {
        "kind": kind, "spacing_mm": SPACING.value, "bend_mm": BEND_MM,
        "references": len(real), "seed": SEED.value,
        "edits": rows, "total": total,
        "unrelated": len(others), "false": false, "intervals": shares,
        "rescans": len(again), "rescans_called": rescans, "verdict": result.verdict.value,
        "levels": {
            at.value: {"counts": t.counts, "controls": dict(t.recall_by_edit)}
            for at, t in result.thresholds.items()
        },
        "seconds": round(spent, 1),
        "command": f"python -m benchmarks.volume_edits --kind={kind} --references={REFERENCES.value} "
        f"--each={EACH.value} --unrelated={len(others)} --seed={SEED.value}"
        + (f" --spacing_mm={SPACING.value:g}" if SPACING.value is not None else ""),
    }  # fmt: skip


def _interval(hits: int, total: int) -> list[float]:
    found = clopper_pearson(hits, total)
    return [round(x, 3) for x in (found.value, found.low, found.high)]


def main(_: list[str]) -> None:
    for kind in KIND.value:
        record = dated(measure(kind))
        for edit, row in record["edits"].items():
            print(f"{kind:9s} {edit:26s} {row}", flush=True)
        print(
            kind, record["total"], "false", record["false"], "of", record["unrelated"], flush=True
        )
        keep(record, OUT.value, "volume_edits")


if __name__ == "__main__":
    app.run(main)
