"""Whole audits, from files to report."""

import atexit
import itertools
import shutil
import tempfile
from pathlib import Path

import jax
import numpy as np

from benchmarks.cases.case import Case, Peer
from benchmarks.kept import write_png
from deepssim_jax.audit.audit import audit as run_audit
from deepssim_jax.audit.audit_settings import AuditSettings
from deepssim_jax.audit.result import AuditResult, Label
from deepssim_jax.data import phantom_chests
from deepssim_jax.jobs.duplicates import duplicates
from deepssim_jax.jobs.duplicates_result import DuplicatesResult
from deepssim_jax.scoring import plant

_BATCH, _SIDE = 50, 256


def _write_images(folder: Path, n: int) -> None:
    """`real/`: n chests; `synthetic/`: n others, every tenth a copy of a real one."""
    for name, seed in (("real", 0), ("synthetic", 1)):
        for start in range(0, n, _BATCH):
            key = jax.random.fold_in(jax.random.key(seed), start)
            images = np.array(phantom_chests.chests(key, _BATCH, size=(_SIDE, _SIDE)))
            names = [f"{name}_{start + row:04d}" for row in range(_BATCH)]
            if name == "synthetic":
                key = jax.random.fold_in(jax.random.key(0), start)
                real = np.asarray(phantom_chests.chests(key, _BATCH, size=(_SIDE, _SIDE)))
                images[::10] = plant.exact_copies(real[::10], seed=start)
                names[::10] = [f"copy_{start + row:04d}" for row in range(0, _BATCH, 10)]
            for stem, image in zip(names, images, strict=True):
                stretched = (image - image.min()) / np.ptp(image)
                write_png(folder / name / f"{stem}.png", stretched)


def _folder() -> Path:
    root = Path(tempfile.mkdtemp(prefix="deepssim_throughput"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root


def _audits(name: str, scale: float, *, fresh: bool) -> Case:
    n = max(2, round(500 * scale / _BATCH)) * _BATCH
    root = _folder()
    _write_images(root, n)
    number = itertools.count()

    def ours() -> AuditResult:
        out = root / f"out{next(number) if fresh else 0}"
        result = run_audit(root / "real", root / "synthetic", out=out)
        if fresh:
            shutil.rmtree(out)
        return result

    def check() -> None:
        called = {m.synthetic_id for m in ours().nearest if m.label is not Label.UNRELATED}
        planted = {p.name for p in (root / "synthetic").glob("copy_*")}
        assert called == planted, called ^ planted

    return Case(name, "images", 2 * n, ours, check)


def audit(scale: float) -> Case:
    """500 real and 500 synthetic images of 256 x 256, from PNG files to the report."""
    return _audits("audit", scale, fresh=True)


def self_join(scale: float) -> Case:
    """Copies within 500 images of 256 x 256, beside an audit of the folder against itself."""
    n = max(2, round(500 * scale / _BATCH)) * _BATCH
    root = _folder()
    _write_images(root, n)
    for path in sorted((root / "synthetic").glob("copy_*")):
        shutil.copy(path, root / "real" / path.name)
    images = root / "real"
    count = len(list(images.iterdir()))

    def ours() -> DuplicatesResult:
        result = duplicates(images, out=root / "out")
        shutil.rmtree(root / "out")
        return result

    def check() -> None:
        found = {x.image_id for x in ours().groups}
        made = {path.name for path in images.glob("copy_*")}
        assert made <= found and len(found) == 2 * len(made), found ^ made

    def theirs() -> None:
        run_audit(images, images, out=root / "audit", settings=AuditSettings(allow_same=True))
        shutil.rmtree(root / "audit")

    return Case("self_join", "images", count, ours, check, {"audit": Peer(theirs, count)})


def audit_again(scale: float) -> Case:
    """The same once more, with nothing left to do."""
    return _audits("audit_again", scale, fresh=False)
