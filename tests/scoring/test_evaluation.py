"""Figures against scikit-learn and by hand; intervals that cover; files in the reference format."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from sklearn import metrics

from deepssim_jax.cli.main import main
from deepssim_jax.data import reference_scores
from deepssim_jax.data.manifest import InputError
from deepssim_jax.scoring import evaluation


def made(n: int = 600, patients: int = 60, seed: int = 0):
    """Scores that rise with the label, rounded so that there are ties; patients differ."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, n, p=[0.6, 0.3, 0.1])
    owner = rng.integers(0, patients, n)
    scores = (
        0.35 + 0.25 * labels + 0.05 * rng.normal(size=patients)[owner] + 0.09 * rng.normal(size=n)
    )
    return np.round(scores, 2), labels, owner


def test_figures_equal_those_of_scikit_learn() -> None:
    scores, labels, owner = made()
    found = evaluation.evaluate(scores, labels, owner, near=0.5, exact=0.75)
    predicted = evaluation.classify(scores, near=0.5, exact=0.75)
    report = metrics.classification_report(labels, predicted, output_dict=True)
    for c, name in enumerate(evaluation.CLASSES):
        ours = found.classes[name]
        assert ours.precision.value == pytest.approx(report[str(c)]["precision"])
        assert ours.recall.value == pytest.approx(report[str(c)]["recall"])
        assert ours.f1.value == pytest.approx(report[str(c)]["f1-score"])
        assert ours.pairs == report[str(c)]["support"]
        assert ours.f1.low <= ours.f1.value <= ours.f1.high
    assert found.macro_f1.value == pytest.approx(report["macro avg"]["f1-score"])
    assert found.weighted_f1.value == pytest.approx(report["weighted avg"]["f1-score"])
    for positive, rates in ((labels == 2, found.true_rates), (labels > 0, found.copy_true_rates)):
        wrong, right, _ = metrics.roc_curve(positive, scores, drop_intermediate=False)
        for rate in evaluation.FALSE_RATES:
            assert rates[rate].value == pytest.approx(right[wrong <= rate].max())
    average = metrics.average_precision_score(labels == 2, scores)
    assert found.average_precision.value == pytest.approx(average)
    expected = metrics.silhouette_score(scores[:, None], labels)
    assert found.silhouette == pytest.approx(expected)


def test_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.4, 0.6, 0.1])
    labels = np.array([2, 1, 1, 1, 0, 0])
    found = evaluation.evaluate(scores, labels, np.arange(6), near=0.5, exact=0.85)
    near = found.classes["near_duplicate"]
    assert (near.precision.value, near.recall.value) == pytest.approx((2 / 3, 2 / 3))
    assert found.classes["exact_duplicate"].f1.value == 1.0
    assert found.macro_f1.value == pytest.approx((0.5 + 2 / 3 + 1) / 3)
    assert found.average_precision.value == 1.0
    # A pair at a threshold belongs to the class above.
    np.testing.assert_array_equal(
        evaluation.classify(np.array([0.49, 0.5, 0.85]), near=0.5, exact=0.85), [0, 1, 2]
    )
    # A class of a single pair has silhouette 0, as in scikit-learn.
    assert evaluation.silhouette(scores, labels) == pytest.approx(
        metrics.silhouette_score(scores[:, None], labels)
    )
    assert np.isnan(evaluation.silhouette(scores, np.zeros(6, int)))


def test_thresholds_are_those_of_a_grid_search() -> None:
    scores, labels, _ = made(200)
    near, exact = evaluation.choose_thresholds(scores, labels)
    grid = np.round(np.arange(0, 1.001, 0.02), 2)
    best = max(
        metrics.f1_score(
            labels, evaluation.classify(scores, near=a, exact=b), average="macro", zero_division=0
        )
        for a in grid
        for b in grid[grid >= a]
    )
    ours = evaluation.classify(scores, near=near, exact=exact)
    assert metrics.f1_score(labels, ours, average="macro") >= best - 1e-12


def test_intervals_cover_at_their_level_although_pairs_of_a_patient_agree() -> None:
    """Simulated studies in which a patient's pairs are all right or all wrong."""
    truth, covered, trials = 0.7, 0, 60
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        right = np.repeat(rng.random(80) < truth, 5)
        labels = np.full(400, 2)
        scores = np.where(right, 0.9, 0.6)
        owner = np.repeat(np.arange(80), 5)
        found = evaluation.evaluate(scores, labels, owner, near=0.5, exact=0.8, seed=seed)
        recall = found.classes["exact_duplicate"].recall
        covered += recall.low <= truth <= recall.high
    # 0.95 +- 3 binomial errors of 60 trials; resampling pairs would cover about 0.6.
    assert covered / trials >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / trials)


def test_mcnemar_counts_disagreements_alone() -> None:
    a = np.array([True] * 10 + [False] * 2 + [True] * 50)
    b = np.array([False] * 10 + [True] * 2 + [True] * 50)
    expected = 2 * sum(math.comb(12, k) for k in range(3))
    assert evaluation.mcnemar(a, b) == pytest.approx(expected / 2**12)
    assert evaluation.mcnemar(a, a) == 1.0


def test_what_cannot_be_evaluated_is_said() -> None:
    with pytest.raises(ValueError, match="above exact"):
        evaluation.classify(np.zeros(1), near=0.9, exact=0.5)
    with pytest.raises(ValueError, match="3 scores, 2 labels"):
        evaluation.evaluate(np.zeros(3), np.zeros(2), np.zeros(3), near=0.1, exact=0.2)
    with pytest.raises(ValueError, match="0, 1 or 2"):
        evaluation.evaluate(np.zeros(3), np.full(3, 7), np.zeros(3), near=0.1, exact=0.2)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    rng = np.random.default_rng(1)
    real = [f"u{i:03d}___training" for i in range(40)]
    synthetic = [f"u{i:03d}___gen-{k}" for i in range(40) for k in range(3)]
    theirs = rng.choice(3, (40, 120), p=[0.5, 0.2, 0.3])  # 0 different, 1 duplicate, 2 similar
    scores = np.choose(theirs, [0.4, 0.9, 0.7]) + 0.05 * rng.normal(size=theirs.shape)
    np.savez(tmp_path / "matrix.npz", data=scores.astype(np.float16))
    np.savez(tmp_path / "real.npz", data=np.array(real))
    np.savez(tmp_path / "synth.npz", data=np.array(synthetic))
    lines = ["real_key,synth_key,final_label"]
    for i, j in rng.permutation(np.argwhere(theirs >= 0))[:900]:
        lines.append(f"{real[i]},{synthetic[j]},{theirs[i, j]}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    names = {"matrix": "matrix.npz", "real_indices": "real.npz", "synthetic_indices": "synth.npz"}
    return {name: tmp_path / file for name, file in {**names, "table": "table.csv"}.items()}


def test_the_command_reads_published_files(files, tmp_path: Path, capsys) -> None:
    command = ["evaluate", *(f"--{k}={v}" for k, v in files.items()), f"--out={tmp_path / 'out'}"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "macro F1" in shown and "tuning split" in shown
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert content["macro_f1"]["value"] > 0.95  # classes lie far apart
    assert 0.45 < content["near"] < 0.65 and 0.75 < content["exact"] < 0.9
    assert 15 <= content["patients"] <= 25
    with Image.open(tmp_path / "out" / "scores.png") as picture:
        assert picture.size[0] > 500
    assert main([*command, "--near=0.6", "--exact=0.85"]) == 0
    whole = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert whole["pairs"] == 900 and whole["thresholds_from"] == "given"
    assert main([*command, "--near=0.6"]) == 2


def test_the_matrix_is_mapped_and_never_read_whole(files, tmp_path: Path) -> None:
    mapped = reference_scores.open_matrix(files["matrix"])
    assert isinstance(mapped, np.memmap) and mapped.dtype == np.float16
    with np.load(files["matrix"]) as file:
        np.testing.assert_array_equal(mapped, file["data"])
    np.save(tmp_path / "plain.npy", np.eye(3))
    np.testing.assert_array_equal(reference_scores.open_matrix(tmp_path / "plain.npy"), np.eye(3))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: np.savez_compressed(f["matrix"], data=np.eye(3)), "compressed"),
        (lambda f: np.savez(f["matrix"], data=np.array([["a", 1]], object)), "object"),
        (lambda f: np.savez(f["matrix"], other=np.eye(3)), "array `data`"),
        (lambda f: np.savez(f["matrix"], data=np.eye(3)), "3 x 3, and there are 40"),
        (lambda f: f["matrix"].write_bytes(b"x"), "no .npz file"),
        (lambda f: f["table"].write_text("a,b\n"), "needs real_key, synth_key"),
        (
            lambda f: f["table"].write_text("real_key,synth_key,label\nx,y,0\n"),
            "line 2: its real_key is not in the indices",
        ),
        (
            lambda f: f["table"].write_text(
                "real_key,synth_key,label\nu001___training,u001___gen-0,9\n"
            ),
            "line 2: its label is none of 0, 1, 2",
        ),
    ],
)
def test_files_that_do_not_fit_are_said(files, spoil, words: str) -> None:
    spoil(files)
    with pytest.raises(InputError, match=words):
        reference_scores.read_labelled(
            files["matrix"], files["real_indices"], files["synthetic_indices"], files["table"]
        )


def test_fitted_thresholds_stand_in_the_middle_of_the_gaps() -> None:
    scores = np.array([0.1, 0.2, 0.8, 0.8, 0.8, 0.9, 0.94])
    labels = np.array([0, 0, 1, 1, 1, 2, 2])
    grid = evaluation.fitted_grid(scores)
    near, exact = evaluation.choose_thresholds(scores, labels, grid=grid)
    assert (near, exact) == pytest.approx((0.5, 0.85))
    many = np.random.default_rng(0).random(5000)
    grid = evaluation.fitted_grid(many)
    assert 900 <= len(grid) <= 1000 and not np.isin(grid, many).any()


def test_a_perfect_score_of_few_patients_has_an_interval() -> None:
    """17 pairs without an error, "100.00 (100.00 to 100.00)" by a bootstrap: exact, it is 80.5 to 100."""
    labels = np.repeat([0, 2], [17, 17])
    scores = np.where(labels == 2, 0.9, 0.1)
    found = evaluation.evaluate(scores, labels, np.arange(34) % 17, near=0.5, exact=0.6)
    recall = found.classes["exact_duplicate"].recall
    expected = stats.binomtest(17, 17).proportion_ci(0.95, "exact")
    assert (recall.value, recall.high) == (1, 1)
    assert recall.low == pytest.approx(expected.low)
    for figure in (
        found.classes["unrelated"].precision,
        found.true_rates[0.05],
        found.average_precision,
    ):
        assert figure.low == pytest.approx(expected.low)
    # A class without a pair is not found with certainty, nor missed.
    nothing = found.classes["near_duplicate"].recall
    assert (nothing.low, nothing.high) == (0, 1)


def test_pairs_of_one_patient_are_one_trial() -> None:
    labels = np.repeat([0, 2], [40, 40])
    found = evaluation.evaluate(
        np.where(labels == 2, 0.9, 0.1), labels, np.arange(80) % 4, near=0.5, exact=0.6
    )
    low = stats.binomtest(4, 4).proportion_ci(0.95, "exact").low
    assert found.classes["exact_duplicate"].recall.low == pytest.approx(low)
