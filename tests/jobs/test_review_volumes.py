"""The review page of volumes: three planes, aligned again from a finished search for replicas."""

import base64
import io
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import deepssim_jax as ds
from deepssim_jax.data.phantom_heads import angiograms
from deepssim_jax.jobs.review_reading import read_source
from deepssim_jax.jobs.review_source import Job
from deepssim_jax.workspace import Workspace
from deepssim_jax.workspace.files import csv_bytes, write_array

SIZE = 32
HEAD = (
    "synthetic_id", "kind", "votes", "disputed", "p_value", "q_value", "reason",
    "voxel_real_id", "voxel_subject_id", "voxel_kind", "voxel_p_value",
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Six heads; a mirrored copy of one, and another head. The folder is as `replicas` leaves it."""
    root = tmp_path_factory.mktemp("volumes")
    heads = np.asarray(angiograms(jax.random.key(0), 7, size=(SIZE,) * 3).volumes, np.float32)
    for number in range(6):
        write_array(root / "real" / f"p{number}.npy", heads[number])
    write_array(root / "synthetic" / "copy.npy", heads[2][..., ::-1] * 2 + 1)
    write_array(root / "synthetic" / "other.npy", heads[6])
    settings = {
        "size": SIZE, "spacing": "whole field of view", "modality": "other", "align": "affine",
        "subject_regex": "", "links": "inside", "arrays": "zyx", "level": 0.95,
    }  # fmt: skip
    sources = {"real": str(root / "real"), "synthetic": str(root / "synthetic")}
    rows = [
        HEAD,
        (
            "copy.npy",
            "replica",
            1,
            0,
            1e-6,
            1e-5,
            "a replica by voxel",
            "p2.npy",
            "",
            "replica",
            1e-6,
        ),
        ("other.npy", "different", 0, 0, 0.4, 0.4, "different", "p1.npy", "", "different", 0.4),
    ]
    rate = {"value": 0.5, "low": 0.01, "high": 0.99, "level": 0.95, "count": 1, "total": 2}
    with Workspace.open(root / "out", command="replicas") as out:
        inputs = {"sources": sources, "settings": settings}
        out.write("inputs.json", json.dumps(inputs).encode())
        out.write("replicas.csv", csv_bytes(rows))
        out.write("real_duplicates.csv", csv_bytes([("group", "image_id")]))
        out.write("summary.json", json.dumps({"replica_rate": rate}).encode())
    return root


def strip(plane: dict, name: str) -> np.ndarray:
    data = base64.b64decode(plane[name].split(",")[1])
    image = np.asarray(Image.open(io.BytesIO(data)), float)
    return image.reshape(plane["slices"], plane["side"], plane["side"])


def test_the_source_is_the_closest_real_volume_of_each(finished: Path) -> None:
    source = read_source(finished / "out")
    assert source.job is Job.REPLICAS and source.strata == {"different": 1, "replica": 1}
    margins = {pair.moving: (pair.fixed, pair.margin) for pair in source.pairs}
    assert (
        margins["copy.npy"][0] == "p2.npy" and margins["copy.npy"][1] > 0 > margins["other.npy"][1]
    )


def test_a_mirrored_replica_is_shown_on_its_original_in_three_planes(finished: Path) -> None:
    found = ds.review(finished / "out")
    text = found.page.read_text().split('id="data">')[1].split("</script>")[0]
    pairs = {dict(pair["facts"])["synthetic"]: pair for pair in json.loads(text)["pairs"]}
    assert [plane["name"] for plane in pairs["copy.npy"]["planes"]] == [
        "axial",
        "coronal",
        "sagittal",
    ]
    alike = {}
    for name, pair in pairs.items():
        # A volume of 32 voxels has no more slices than that.
        assert {plane["slices"] for plane in pair["planes"]} == {SIZE}
        images = [
            np.concatenate([strip(p, x).ravel() for p in pair["planes"]])
            for x in ("fixed", "moving")
        ]
        alike[name] = np.corrcoef(*images)[0, 1]
    # All heads have much in common.
    assert alike["copy.npy"] > 0.95 and alike["other.npy"] < 0.9


def test_blind_readers_get_known_volumes_among_them(finished: Path) -> None:
    settings = ds.ReviewSettings(reading=ds.Reading.BLIND, controls=2)
    found = ds.review(finished / "out", settings=settings)
    kinds = [row["kind"] for row in json.loads(found.key.read_text())["pairs"]]
    assert sorted(kinds) == ["known_copy"] * 2 + ["known_unrelated"] * 2 + ["sample"] * 2
    assert found.page.stat().st_size < 48 * 2**20
