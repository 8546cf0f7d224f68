"""Are copies of volumes found whatever a pipeline did to them? By kind of volume and of edit.

    python -m benchmarks.volume_edits --data=../shared/data --kind=heads --out=benchmarks/results

For each kind of volume, 40 people are the real side; every edit of `cases/volume_edits.py` makes
copies of some of them, and people who are not on the real side are the unrelated volumes. The points
and voxel levels run as in `deepssim replicas`: thresholds from the real side alone. The peer is what a
user writes in thirty lines: normalised cross-correlation of the gradient's magnitude by FFT on a grid
of 6 mm (of the field of view where no spacing is known), in 48 axis poses; it has no threshold, so it
gets the best one, that of the highest unrelated volume. A copy counts as found where the person (for
half another's, either of the two) is right. One record a kind goes into OUT/volume_edits.jsonl.
"""

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks.cases.records import dated, keep
from benchmarks.cases.volume_edits import EDITS, KINDS, Volume, edited, people
from benchmarks.kept import journal
from deepssim_jax.audit.replica_calibration import calibrate_levels, kind_of
from deepssim_jax.audit.replica_conclusion import weigh
from deepssim_jax.audit.replica_result import Kind
from deepssim_jax.data.whole_volume import VolumeSettings
from deepssim_jax.ops.volume_grid import Geometry, on_grid
from deepssim_jax.ops.volume_poses import POSES
from deepssim_jax.scoring.decide import clopper_pearson
from deepssim_jax.scoring.volume_match import Reference, match_volumes
from deepssim_jax.scoring.volume_measure import Alignment, MatchSettings
from deepssim_jax.scoring.volume_search import VolumeSide

DATA = flags.DEFINE_string("data", "../shared/data", "folder with brain3d/")
OUT = flags.DEFINE_string("out", None, "folder for volume_edits.jsonl; nothing is written without")
KIND = flags.DEFINE_multi_enum("kind", list(KINDS), list(KINDS), "kinds of volumes")
REFERENCES = flags.DEFINE_integer("references", 40, "people on the real side", lower_bound=20)
EACH = flags.DEFINE_integer("each", 2, "copies by edit", lower_bound=1)
UNRELATED = flags.DEFINE_integer("unrelated", 16, "people who are not on the real side")
SEED = flags.DEFINE_integer("seed", 0, "of everything that is drawn")
_GRID, _PEER_MM = 40, 6.0


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
    count = REFERENCES.value
    everyone = people(kind, count + UNRELATED.value, Path(DATA.value), rng)
    real, others = everyone[:count], everyone[count:]
    asked: list[Volume] = []
    truth: list[tuple[int, ...]] = []
    for edit in EDITS:
        for row in rng.choice(count, EACH.value, replace=False):
            donor = int((row + 7) % count)
            asked.append(edited(edit, real[row], real[donor], rng))
            truth.append((int(row), donor) if "half" in edit else (int(row),))
    asked += [edited("noise", other, other, rng) for other in others]
    queries, references = side(asked), side(real)
    settings = MatchSettings(candidates=1)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, journal(Path(folder)) as kept:
        known = Reference.of(references, alignment=Alignment.AFFINE, journal=kept)
        pairs = match_volumes(queries, known, settings=settings, journal=kept)
        evidence = calibrate_levels(
            known, settings=settings, embed=None, segment=None, journal=kept, seed=SEED.value,
            level=0.95, on_progress=lambda done, total, what: None,
        )  # fmt: skip
    weighed = weigh(pairs, references.groups, len(queries), evidence)
    spent = time.perf_counter() - begin
    thresholds = weighed.evidence.thresholds
    called = np.full((len(queries), len(thresholds)), -1)
    first = {}
    for column, (at, best) in enumerate(weighed.best.items()):
        first[at] = np.where(best.row >= 0, pairs["reference"][best.row], -1)
        for query in range(len(queries)):
            counts = at in weighed.evidence.counting
            if counts and kind_of(best.evidence[query], thresholds[at]) is Kind.REPLICA:
                called[query, column] = first[at][query]
    theirs = peer(queries, references)
    cut = theirs[len(truth) :].max()
    rows: dict[str, dict[str, int]] = {}
    for query, right in enumerate(truth):
        row = rows.setdefault(EDITS[query // EACH.value], {})
        found = {
            "n": True,
            "called": bool(np.isin(called[query], right).any()),
            "peer_first": int(theirs[query].argmax()) in right,
            "peer_called": int(theirs[query].argmax()) in right and theirs[query].max() > cut,
            **{f"{at.value}_first": int(first[at][query]) in right for at in first},
        }
        for name, hit in found.items():
            row[name] = row.get(name, 0) + int(hit)
    total = {name: sum(row[name] for row in rows.values()) for name in rows[EDITS[0]]}
    false = int((called[len(truth) :] >= 0).any(1).sum())
    shares = {name: _interval(total[name], total["n"]) for name in total if name != "n"} | {
        "false": _interval(false, len(others))
    }
    return {
        "kind": kind, "references": count, "seed": SEED.value, "edits": rows, "total": total,
        "unrelated": len(others), "false": false, "intervals": shares,
        "levels": {
            at.value: {"counts": t.counts, "controls": dict(t.recall_by_edit)}
            for at, t in thresholds.items()
        },
        "seconds": round(spent, 1),
        "command": f"python -m benchmarks.volume_edits --kind={kind} --references={count} "
        f"--each={EACH.value} --unrelated={len(others)} --seed={SEED.value}",
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
