"""A sheet of real images among synthetic ones: its parts are compared, shown and checked by name."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import deepssim_jax as ds
from deepssim_jax.audit.recheck import recheck
from deepssim_jax.scoring.retrieval import Retrieval
from tests.kept import sheet, write_phantoms

SIDE, MARGIN = 64, 4


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """12 real images; 4 other synthetic ones and a sheet of the first 9 real ones."""
    root = tmp_path_factory.mktemp("sheets")
    write_phantoms(root / "all", 16, size=(SIDE, SIDE), seed=7)
    for number, path in enumerate(sorted((root / "all").glob("*.png"))):
        side = "real" if number < 12 else "synthetic"
        (root / side).mkdir(exist_ok=True)
        shutil.copy(path, root / side / path.name)
    real = [np.asarray(Image.open(p).convert("L")) for p in sorted((root / "real").glob("*.png"))]
    grid = sheet(np.stack(real), 3, 3, MARGIN, 0).astype(np.uint8)
    Image.fromarray(grid).save(root / "synthetic" / "sheet.png")
    return root


def test_each_image_of_a_sheet_is_a_pair_that_verify_finds_again(folders: Path) -> None:
    settings = ds.AuditSettings(size=64, plant=0, retrieval=Retrieval.ENCODER)
    out = folders / "out"
    result = ds.audit(folders / "real", folders / "synthetic", out=out, settings=settings)
    first = [path.name for path in sorted((folders / "real").glob("*.png"))[:9]]
    fields = {f"sheet.png#{k}": name for k, name in enumerate(first, 1)}
    best = {pair.synthetic_id: pair.real_id for pair in result.nearest}
    assert {name: best.get(name) for name in fields} == fields
    assert recheck(out).problems == ()
    assert not any("as a whole only" in note for note in result.notes)


def test_a_sheet_among_real_images_is_said(folders: Path) -> None:
    """Its pictures are not taken apart: whose they are is not known."""
    settings = ds.AuditSettings(size=64, plant=0, retrieval=Retrieval.ENCODER)
    result = ds.audit(
        folders / "synthetic", folders / "real", out=folders / "turned", settings=settings
    )
    note = (
        "Of the real side: 1 image looks like a sheet of several pictures, compared as a whole only"
    )
    assert any(line.startswith(note) for line in result.notes)
