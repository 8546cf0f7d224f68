"""Held-out images that are real ones are refused; those of another make are named."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepssim_jax.audit.control import search_holdout
from deepssim_jax.audit.holdout import Make, difference, refuse_same_files
from deepssim_jax.data.manifest import InputError, Role, read_manifest
from deepssim_jax.data.store import ImageStore, InputSettings
from deepssim_jax.nn.encoder import encoder_hash, load_encoder
from deepssim_jax.scoring import points
from deepssim_jax.scoring.detail import BANDS
from deepssim_jax.scoring.embed import build_side
from deepssim_jax.scoring.kinds import Kinds
from deepssim_jax.scoring.retrieval import Retrieval
from deepssim_jax.scoring.side import Side
from deepssim_jax.workspace import Workspace
from tests.kept import within, write_phantoms


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    """`real/` of 16, `other/` of 8 others, and `copied/` of those and two mirrored of the real ones."""
    root = tmp_path_factory.mktemp("people")
    write_phantoms(root / "all", 24, size=(64, 64), seed=5)
    for number, path in enumerate(sorted((root / "all").glob("*.png"))):
        for side in ("real",) if number < 16 else ("other", "copied"):
            (root / side).mkdir(exist_ok=True)
            shutil.copy(path, root / side / path.name)
    for path in sorted((root / "real").glob("*.png"))[:2]:
        image = np.asarray(Image.open(path))
        Image.fromarray(image[:, ::-1]).save(root / "copied" / f"x{path.name}")
    return root


def read(folder: Path, work: Workspace) -> tuple[Side, ImageStore]:
    return build_side(
        read_manifest(folder, role=Role.HOLDOUT),
        work,
        settings=InputSettings(size=(64, 64), canvas=points.SIDE),
        encoder=lambda: load_encoder("default"),
        encoder_id=encoder_hash("default"),
    )


def test_held_out_copies_of_real_images_are_refused(people: Path, tmp_path: Path) -> None:
    def search(work: Workspace) -> None:
        real, other, copied = (read(people / name, work)[0] for name in ("real", "other", "copied"))
        for held_out in (other, copied):
            found = search_holdout(
                held_out,
                real,
                other,
                apart=[True] * len(held_out),
                journals=(work.section("a", len(held_out)), work.section("b", len(held_out))),
                proposals=Retrieval.LOCAL.proposals,
                on_progress=lambda done, total, what: None,
            )
            one = Kinds.of(real.embeddings[:1], np.zeros(1), np.zeros((1, BANDS)), np.zeros(1))
            assert len(found.control(one).holdout_to_real) == 8  # the others are no copies

    with pytest.raises(InputError, match="2 of its 10 images are by their local features the same"):
        within(tmp_path / "work", search)


def test_the_same_files_are_refused() -> None:
    def store(*digests: str) -> ImageStore:
        entries = type("Entries", (), {"ids": digests})()
        return ImageStore(entries, digests, digests, digests, (), "")

    real, held_out = store("a", "b"), store("c", "b", "d")
    with pytest.raises(InputError, match="1 of its 3 images is the same file as one of --real"):
        refuse_same_files(real, held_out)
    refuse_same_files(real, store("c"))


def test_another_make_is_named(people: Path, tmp_path: Path) -> None:
    (tmp_path / "dark").mkdir()
    for path in (people / "other").glob("*.png"):
        image = Image.open(path).resize((96, 96)).point(lambda x: int(255 * (x / 255) ** 4))
        image.convert("L").save(tmp_path / "dark" / f"{path.stem}.jpg")

    def make(folder: Path) -> Make:
        def of(work: Workspace) -> Make:
            return Make.of(
                read_manifest(folder, role=Role.HOLDOUT), read(folder, work)[1], "axial:0.5"
            )

        return within(tmp_path / f"work-{folder.name}", of)

    real, other, dark = make(people / "real"), make(people / "other"), make(tmp_path / "dark")
    assert (real.side, real.format) == (64, ".png")
    assert difference(real, other) is None
    said = difference(real, dark)
    assert "median longer side of 96 and not 64 pixels; .jpg and not .png; a median" in said
