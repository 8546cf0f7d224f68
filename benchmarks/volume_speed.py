"""How long volumes take: reading and describing heads, and looking volumes up in any pose.

    python -m benchmarks.volume_speed --out=benchmarks/results

Two cases. `read`: heads of 256 x 256 x 256 as `.nii.gz` of 16 bits, read and described as `deepssim
replicas --modality=mr` does (embedding by slices, tissues), with their keypoints. `search`: volumes of
64 x 64 x 64 looked up among others in any pose and measured, the references' keypoints included. A few
distinct volumes are made and repeated, because making them takes longer than what is measured; those that
are searched lie in a file that is mapped, as a job has them. Seconds of wall and of CPU are both there: the
machine may be shared. `peak_mib` is the most memory of the process's own, without pages of files, which the
system may take back. One record a case goes into OUT/volume_speed.jsonl.
"""

import contextlib
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import nibabel
import numpy as np
from absl import app, flags
from scipy import ndimage

from benchmarks.cases.records import dated, keep
from benchmarks.kept import COMMAND, journal
from deepssim_jax.data import phantom, phantom_heads
from deepssim_jax.data.manifest import Role, read_manifest
from deepssim_jax.data.preprocess import quantize
from deepssim_jax.data.whole_volume import VolumeSettings
from deepssim_jax.nn.encoder import encoder_hash, load_encoder
from deepssim_jax.nn.volume_embedding import embed_volumes
from deepssim_jax.ops.volume_grid import Geometry
from deepssim_jax.scoring.volume_match import Reference, match_volumes
from deepssim_jax.scoring.volume_measure import Alignment, MatchSettings
from deepssim_jax.scoring.volume_search import VolumeSide
from deepssim_jax.scoring.volume_sides import LevelSources, Modality, build_volume_side
from deepssim_jax.workspace import Workspace

OUT = flags.DEFINE_string("out", None, "folder for volume_speed.jsonl; nothing is written without")
CASE = flags.DEFINE_multi_enum("case", ["read", "search"], ["read", "search"], "cases to run")
HEADS = flags.DEFINE_integer("heads", 100, "heads that are read", lower_bound=1)
REFERENCES = flags.DEFINE_integer("references", 2000, "volumes that are looked in", lower_bound=50)
QUERIES = flags.DEFINE_integer("queries", 50, "volumes that are looked up", lower_bound=1)
_DISTINCT, _FINE, _COARSE = 8, 256, 64


class _Clock:
    """Seconds since it was made, of wall and of CPU."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def spent(self) -> dict[str, float]:
        return {
            "wall_s": round(time.perf_counter() - self._wall, 1),
            "cpu_s": round(time.process_time() - self._cpu, 1),
        }


def _own_mib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("RssAnon"))


@contextlib.contextmanager
def _watched() -> Iterator[list[int]]:
    """The memory that this process has of its own, in MiB, asked for 20 times a second."""
    seen, done = [_own_mib()], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            seen.append(_own_mib())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def _read(folder: Path) -> dict[str, object]:
    key = jax.random.key(0)
    subjects = phantom.sample_subjects(key, _DISTINCT)
    scans = phantom.sample_scans(key, _DISTINCT)
    brains = np.asarray(phantom.volumes(key, subjects, scans, size=(_COARSE,) * 3))
    rng = np.random.default_rng(0)
    for number in range(_DISTINCT):
        fine = ndimage.zoom(brains[number], _FINE / _COARSE, order=1)
        noisy = np.where(fine > 0.05, fine + rng.normal(0, 0.01, fine.shape), 0)
        image = nibabel.Nifti1Image((noisy * 4000).astype(np.int16), np.eye(4))
        nibabel.save(image, folder / f"{number:03d}.nii.gz")
    files = [path.read_bytes() for path in sorted(folder.iterdir())]
    for number in range(_DISTINCT, HEADS.value):
        # Further members of a gzip file hold nothing, and make another file of it.
        empty = bytes.fromhex("1f8b0800" + f"{number:08x}" + "0003" + "0300" + "00" * 8)
        (folder / f"{number:03d}.nii.gz").write_bytes(files[number % _DISTINCT] + empty)
    encoder, grid = load_encoder("default"), VolumeSettings()
    sources = LevelSources(
        Modality.MR,
        embed=lambda volumes: embed_volumes(encoder, volumes),
        embed_id=encoder_hash("default"),
        labels=(1, 2, 3),
    )
    made_mib, manifest, clock = _own_mib(), read_manifest(folder, role=Role.REAL), _Clock()
    with Workspace.temporary(command=COMMAND) as work:
        side, images = build_volume_side(manifest, work, settings=grid, sources=sources)
        spent = clock.spent()
        Reference.of(side, alignment=Alignment.AFFINE, journal=work.section("keypoints"))
    if len(images) != len(manifest.records):
        raise ValueError(f"only {len(images)} heads could be read: {images.rejected[:1]}")
    return {
        "heads": len(images),
        "side": spent,
        "with_keypoints": clock.spent(),
        "mib_before": made_mib,
    }


def _search(folder: Path) -> dict[str, object]:
    size, rng = (_COARSE,) * 3, np.random.default_rng(0)
    made = np.asarray(phantom_heads.angiograms(jax.random.key(0), _DISTINCT, size=size).volumes)
    count = REFERENCES.value + QUERIES.value
    file = folder / "volumes.npy"
    volumes = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint16, shape=(count, *size))
    for row in range(count):
        shift = rng.integers(-6, 7, 3)
        moved = np.roll(made[row % _DISTINCT], shift, (0, 1, 2))
        volumes[row] = quantize(moved + rng.normal(0, 0.03, size).astype(np.float32))
    volumes.flush()
    volumes = np.load(file, mmap_mode="r")

    def side(rows: np.ndarray) -> VolumeSide:
        return VolumeSide(
            take=lambda chosen: volumes[rows[chosen]],
            shape=size,
            groups=np.arange(len(rows)),
            geometry=Geometry.filled(len(rows), _COARSE),
        )

    clock = _Clock()
    with journal(folder / "work") as kept:
        known = side(np.arange(REFERENCES.value))
        references = Reference.of(known, alignment=Alignment.AFFINE, journal=kept)
        described = clock.spent()
        asked = side(np.arange(REFERENCES.value, count))
        pairs = match_volumes(asked, references, settings=MatchSettings(), journal=kept)
    return {
        "queries": QUERIES.value,
        "references": REFERENCES.value,
        "describing": described,
        "all": clock.spent(),
        "pairs_measured": len(pairs),
    }


def main(_: list[str]) -> None:
    for case in CASE.value:
        with tempfile.TemporaryDirectory() as folder, _watched() as memory:
            measured = {"read": _read, "search": _search}[case](Path(folder))
        record = dated({"case": case, **measured, "peak_mib": max(memory)})
        print(record, flush=True)
        keep(record, OUT.value, "volume_speed")


if __name__ == "__main__":
    app.run(main)
