"""Reviews of what jobs leave behind: an audit, a search for duplicates, nothing."""

import json
import types
from pathlib import Path

import numpy as np
import pytest

import deepssim_jax as ds
from deepssim_jax.audit import tables
from deepssim_jax.audit.audit import audit
from deepssim_jax.audit.recheck import recheck
from deepssim_jax.data.manifest import InputError
from deepssim_jax.jobs import duplicates_outputs
from deepssim_jax.jobs.duplicates_result import Compared, DuplicatePair
from deepssim_jax.jobs.how import How
from deepssim_jax.jobs.review_reading import read_source
from deepssim_jax.jobs.review_source import Job
from deepssim_jax.workspace import Workspace
from tests.jobs import made
from tests.jobs.reviewed import SETTINGS, data_of, picture, write_images


@pytest.mark.slow
def test_a_review_of_a_real_audit_leaves_it_as_it_was(tmp_path: Path) -> None:
    write_images(tmp_path)
    how = {"out": tmp_path / "out", "settings": SETTINGS}
    audit(tmp_path / "real", tmp_path / "synthetic", **how)
    found = ds.review(tmp_path / "out")
    source = read_source(tmp_path / "out")
    assert found.pairs == 10 and source.strata["exact_duplicate"] >= 3
    assert all((pair.margin > 0) == (pair.stratum != "unrelated") for pair in source.pairs)
    pairs = {dict(pair["facts"])["synthetic"]: pair for pair in data_of(found.page)["pairs"]}
    assert len(pairs["c_mirrored.png"]["points"]) >= 8
    assert recheck(tmp_path / "out").problems == ()
    before = found.page.read_bytes(), (tmp_path / "out" / "summary.json").read_bytes()
    audit(tmp_path / "real", tmp_path / "synthetic", **how)
    assert (found.page.read_bytes(), (tmp_path / "out" / "summary.json").read_bytes()) == before


def test_a_folder_of_nothing_finished_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be the --out of a finished"):
        ds.review(tmp_path)


def test_duplicates_are_reviewed_too(tmp_path: Path) -> None:
    made.write(tmp_path / "in" / "a.png", made.texture(3))
    made.write(tmp_path / "in" / "b.png", made.texture(3)[::-1])
    made.write(tmp_path / "in" / "c.png", made.texture(4))
    pair = DuplicatePair(
        "a.png", "b.png", None, None, None, None, How.COPY, 0.98,
        flip="vertical", points=90.0, evidence=2.5, p_value=1e-6,
    )  # fmt: skip
    settings = {
        "size": 64, "slice": "none", "subject_regex": "", "links": "inside", "arrays": "images",
        "level": 0.95,
    }  # fmt: skip
    inputs = {"sources": [str(tmp_path / "in")], "settings": settings}
    summary = {"thresholds": {"evidence": 1.3, "points": 25.0}}
    with Workspace.open(tmp_path / "out", command="duplicates") as out:
        out.write("inputs.json", json.dumps(inputs).encode())
        out.write("groups.csv", tables.table([duplicates_outputs.GROUPS]))
        only = types.SimpleNamespace(pairs=(pair,), similar=(), compared=Compared.IMAGES)
        out.write("pairs.csv", duplicates_outputs.pair_table(only).csv())
        out.write("summary.json", json.dumps(summary).encode())
    found = ds.review(tmp_path / "out")
    (shown,) = data_of(found.page)["pairs"]
    images = [picture(shown["planes"][0][name]).ravel() for name in ("fixed", "moving")]
    assert np.corrcoef(*images)[0, 1] > 0.99 and len(shown["points"]) >= 8
    source = read_source(tmp_path / "out")
    assert source.job is Job.DUPLICATES and source.strata == {"copy": 1}
