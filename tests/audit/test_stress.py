"""The benchmark end to end on small pictures, with methods whose answer is known."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from deepssim_jax.audit import stress
from deepssim_jax.audit.stress import StressSettings
from deepssim_jax.data.account import Account
from deepssim_jax.data.planted_pairs import Setting
from deepssim_jax.data.records import FileCounts, Rejected
from deepssim_jax.scoring.evaluation import CLASSES
from tests.kept import within

PATIENTS = np.repeat(np.arange(10), 2)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal((len(PATIENTS), 128, 128))
    mixed = sum(s * ndimage.gaussian_filter(noise, (0, s, s)) for s in (2, 6, 15))
    low, high = mixed.min((1, 2), keepdims=True), mixed.max((1, 2), keepdims=True)
    return np.round((mixed - low) / (high - low) * 65535).astype(np.uint16)


def correlation(real: np.ndarray, synthetic: np.ndarray) -> np.ndarray:
    pairs = zip(real, synthetic, strict=True)
    return np.array([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs])


def blind(real: np.ndarray, synthetic: np.ndarray) -> np.ndarray:
    return np.zeros(len(real))


METHODS = {"cascade": correlation, "blind": blind}


def test_good_and_blind_methods_are_told_apart(images: np.ndarray, tmp_path: Path) -> None:
    settings = StressSettings((Setting.REGISTERED,), size=64)
    result = stress.stress(images, PATIENTS, methods=METHODS, settings=settings)
    good, useless = result.outcomes
    assert good.figures.macro_f1.value > 0.7 > 0.4 > useless.figures.macro_f1.value
    assert good.mcnemar is None and useless.mcnemar is not None and useless.mcnemar < 0.01
    assert good.same_patient_exact == 0.0
    ids = [f"=image {number}" for number in range(len(images))]
    account = Account(FileCounts(21, 21), 20, (Rejected("x", "is cut"),))
    written = within(tmp_path, lambda w: stress.write(result, w, image_ids=ids, account=account))
    assert {path.name for path in written} == {
        "pairs.csv",
        "results.json",
        "results.md",
        "registered.png",
    }
    rows = list(csv.DictReader((tmp_path / "pairs.csv").read_text().splitlines()))
    assert len(rows) == len(result.pairs) == 6 * len(images)
    assert {row["label"] for row in rows} == set(CLASSES)
    assert rows[0]["real_id"].startswith("'=")  # a spreadsheet must not compute a name
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["inputs"]["files_found"] == 21 and content["inputs"]["reasons"] == {"is cut": 1}
    assert content["outcomes"][0]["figures"]["pairs"] == sum(not p.tune for p in result.pairs)


def test_the_same_seed_gives_the_same_bytes(images: np.ndarray, tmp_path: Path) -> None:
    paths = []
    settings = StressSettings((Setting.HARSH,), size=64, rounds=1, seed=5)
    for name in ("a", "b"):
        result = stress.stress(images, PATIENTS, methods=METHODS, settings=settings)
        ids = [str(i) for i in range(len(images))]
        paths.append(
            within(
                tmp_path / name, lambda w, found=result, i=ids: stress.write(found, w, image_ids=i)
            )
        )
    first, second = ({p.name: p.read_bytes() for p in written} for written in paths)
    assert first == second
