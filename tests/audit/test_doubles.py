"""Doubles on the real side: images, not files, and crowds of them."""

from pathlib import Path

import numpy as np

from deepssim_jax.audit.doubles import find_doubles
from deepssim_jax.data.manifest import Role, read_manifest
from deepssim_jax.data.store import InputSettings
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.scoring import points
from deepssim_jax.scoring.embed import build_side
from deepssim_jax.workspace import Workspace
from tests.jobs import made


def test_frames_of_one_file_are_doubles_only_where_they_show_one_image(tmp_path: Path) -> None:
    images = [made.texture(number) for number in range(8)]
    crowd = [images[0][::-1], np.rot90(images[0]), images[0].T, images[0][:, ::-1]]
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "stack.npy", np.stack([*images, *crowd, images[5]]))
    manifest = read_manifest(tmp_path / "in", role=Role.REAL)
    with Workspace.open(tmp_path / "out", command="audit") as workspace:
        side, store = build_side(
            manifest,
            workspace,
            settings=InputSettings(canvas=points.SIDE),
            encoder=encoders.load_encoder,
            encoder_id=encoders.encoder_hash("default"),
        )
        found = find_doubles(
            side,
            store,
            journal=workspace.section("doubles", store.fingerprint),
            on_progress=lambda done, total, what: None,
        )
    names = np.array(store.image_ids)
    groups = [set(names[found.group == number]) for number in np.unique(found.group)]
    doubles = [group for group in groups if len(group) > 1]
    assert sorted(map(len, doubles)) == [2, 5]
    assert {"stack.npy#6", "stack.npy#13"} in doubles
    assert {"stack.npy#1", *(f"stack.npy#{k}" for k in range(9, 13))} in doubles
    assert np.array_equal(found.subjects, found.group)  # no patients are known
    same = {row[1]: row[-1] for row in found.rows(store)}
    assert set(same.values()) == {"no"}  # one file, and no equal ones
