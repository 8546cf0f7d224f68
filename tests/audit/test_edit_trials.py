"""Trials of edits: who is looked for where, thresholds, figures, and files that repeat."""

import csv
import functools
import io
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage, stats

from deepssim_jax.audit import edit_figures, edit_trials, searchers
from deepssim_jax.audit.edit_figures import ALL_EDITS, ALL_KINDS, FALSE_ALARMS
from deepssim_jax.audit.edit_trials import EditSetting
from deepssim_jax.data.edits import EDITS
from deepssim_jax.data.edits.published import LCMEM, MI_ONI
from deepssim_jax.data.kinds import Kind
from tests.kept import within

PATIENTS = np.repeat(np.arange(40), 2).astype(np.int32)
FEW = tuple(e for e in EDITS if e.name in ("identity", "noise 0.1", "rotation 45 degrees"))


def kind(name: str, seed: int) -> Kind:
    noise = np.random.default_rng(seed).standard_normal((len(PATIENTS), 64, 64))
    mixed = sum(s * ndimage.gaussian_filter(noise, (0, s, s)) for s in (2, 6))
    low, high = mixed.min((1, 2), keepdims=True), mixed.max((1, 2), keepdims=True)
    images = tuple(((mixed - low) / (high - low)).astype(np.float32))
    return Kind(name, images, tuple(f"={name}{i}" for i in range(len(images))), PATIENTS, ())


KINDS = (kind("clouds", 0), kind("waves", 1))


def by_pixels() -> searchers.Searcher:
    return searchers.by_embedding(searchers.pixels, size=64)


def blind(references, patients):
    return lambda queries, own: searchers.Best(
        np.zeros(len(queries), int), np.array([float(np.asarray(q).mean()) for q in queries])
    )


METHODS = {"ncc": by_pixels(), "blind": blind}


def test_donors_and_halves_share_no_patient() -> None:
    plan = edit_trials.plan(PATIENTS, EditSetting.EDITS, edits=FEW, copies=5, seed=3)
    of = {
        "donors": {PATIENTS[q.donor] for q in plan.queries},
        "tuning": {PATIENTS[q.row] for q in plan.queries if q.tuning},
        "reported": {PATIENTS[q.row] for q in plan.queries if not q.tuning},
    }
    assert len(of["donors"]) == 2 and not of["donors"] & set(PATIENTS[plan.references])
    assert not of["tuning"] & of["reported"] and not of["donors"] & (of["tuning"] | of["reported"])
    assert len(of["tuning"]) == len(of["reported"]) == 19
    assert all(not q.tuning for q in plan.queries if q.copy)
    unrelated = [q for q in plan.queries if not q.copy]
    assert sorted(q.row for q in unrelated) == plan.references.tolist()
    counts = {e.name: sum(q.copy and q.edit is e for q in plan.queries) for e in FEW}
    assert counts == {e.name: 5 for e in FEW}
    again = edit_trials.plan(PATIENTS, EditSetting.EDITS, edits=FEW, copies=5, seed=3)
    assert again.queries == plan.queries


def test_published_settings_are_planned_as_published() -> None:
    half = edit_trials.plan(PATIENTS, EditSetting.MI_ONI, edits=MI_ONI, copies=7, seed=0)
    known = set(half.references.tolist())
    assert all((q.row in known) == q.copy for q in half.queries)
    assert sum(not q.copy for q in half.queries) == 38
    both = edit_trials.plan(PATIENTS, EditSetting.LCMEM, edits=LCMEM, copies=4, seed=0)
    for edit in LCMEM:
        reported = [q for q in both.queries if q.edit is edit and not q.tuning]
        assert (
            [q.copy for q in reported].count(True) == [q.copy for q in reported].count(False) == 4
        )


def test_five_patients_are_enough() -> None:
    plan = edit_trials.plan(np.arange(5), EditSetting.EDITS, edits=FEW, copies=2, seed=0)
    assert len(plan.references) == 4 and len({q.donor for q in plan.queries}) == 1


def test_too_few_patients_are_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="4 patients are too few.*--subject_regex"):
        edit_trials.plan(np.arange(4), EditSetting.EDITS, edits=FEW, copies=1, seed=0)


@pytest.mark.parametrize("rate", [0.05, 0.005, 1e-4])
def test_the_threshold_is_the_laws_quantile_and_bears_doubles(rate: float) -> None:
    law = stats.gumbel_r(loc=3, scale=0.7)
    null = law.ppf((np.arange(4000) + 0.5) / 4000)
    chosen = edit_trials.threshold(null, rate=rate)
    assert chosen == pytest.approx(law.isf(rate), rel=1e-3)
    doubled = np.sort(null)
    doubled[np.random.default_rng(0).permutation(4000)[:400]] = 50.0
    assert edit_trials.threshold(doubled, rate=rate) == pytest.approx(chosen, rel=0.1)
    assert edit_trials.threshold(np.full(9, 2.5), rate=rate) == 2.5


@pytest.fixture(scope="module")
def trials() -> tuple[edit_trials.Trial, ...]:
    return tuple(
        edit_trials.run(k, EditSetting.EDITS, methods=METHODS, edits=FEW, copies=6, seed=1)
        for k in KINDS
    )


def test_a_seeing_and_a_blind_method_are_told_apart(trials) -> None:
    found = edit_figures.figures(trials, edits=FEW, rate=0.01)
    share = {(f.method, f.kind, f.name): f.share for f in found}
    for name in ("clouds", "waves"):
        assert share["ncc", name, "identity"].count == 6
        assert share["ncc", name, "noise 0.1"].count == 6
        assert share["ncc", name, "rotation 45 degrees"].count <= 1
        assert share["ncc", name, FALSE_ALARMS].value <= 0.1
        assert share["blind", name, ALL_EDITS].value <= 0.1
    for key, pooled in share.items():
        if key[1] == ALL_KINDS:
            parts = [share[key[0], name, key[2]] for name in ("clouds", "waves")]
            assert pooled.count == sum(p.count for p in parts)
            assert pooled.total == sum(p.total for p in parts)
            exact = stats.binomtest(pooled.count, pooled.total).proportion_ci(method="exact")
            assert (pooled.low, pooled.high) == pytest.approx((exact.low, exact.high), abs=1e-9)
    assert share["ncc", ALL_KINDS, ALL_EDITS].total == 36
    assert share["ncc", "clouds", FALSE_ALARMS].total == 38


def test_a_copy_counts_only_with_its_own_patient_first(trials) -> None:
    trial = trials[0]
    rows = trial.plan.references[trial.best["ncc"].reference]
    own = np.array([PATIENTS[q.row] for q in trial.plan.queries])
    assert np.array_equal(trial.found("ncc"), PATIENTS[rows] == own)
    copy = np.array([q.copy for q in trial.plan.queries])
    assert not trial.found("ncc")[~copy].any()  # a patient's own images were left out


def test_files_name_every_query_and_repeat_byte_for_byte(trials, tmp_path: Path) -> None:
    again = tuple(
        edit_trials.run(k, EditSetting.EDITS, methods=METHODS, edits=FEW, copies=6, seed=1)
        for k in KINDS
    )
    content = []
    for name, run in (("a", trials), ("b", again)):
        found = edit_figures.figures(run, edits=FEW, rate=0.01)
        figures = functools.partial(edit_figures.write, run, found, rate=0.01)
        written = within(tmp_path / name, figures)
        names = ["edits.md", "edits.csv", "edits_queries.csv", "edits_inputs.json"]
        assert [p.name for p in written] == names
        content.append([p.read_bytes() for p in written])
    assert content[0] == content[1]
    rows = list(csv.DictReader(io.StringIO(content[0][2].decode())))
    assert len(rows) == sum(len(t.plan.queries) for t in trials)
    assert rows[0]["image_id"].startswith("'=")  # a spreadsheet must not compute a name
    figures = list(csv.DictReader(io.StringIO(content[0][1].decode())))
    for figure in figures:
        if figure["kind"] == "clouds" and figure["edit"] in ("identity", "noise 0.1"):
            own = [r for r in rows if r["kind"] == "clouds" and r["edit"] == figure["edit"]]
            called = [r for r in own if r["copy"] == "1" and r[f"{figure['method']}_called"] == "1"]
            assert len(called) >= int(figure["found"])
            assert (figure["label"], figure["relation"]) == ("exact_duplicate", "same")
    table = content[0][0].decode()
    assert table.count("| identity | 6/6 = 100.0 (54.1 to 100.0) |") == 1
    assert "| edit | clouds | waves | all kinds |" in table


def test_areas_of_the_published_setting_are_those_of_all_pairs() -> None:
    trial = edit_trials.run(
        KINDS[0], EditSetting.MI_ONI, methods=METHODS, edits=MI_ONI, copies=8, seed=0
    )
    found = {
        (f.method, f.name): f.area for f in edit_figures.figures([trial], edits=MI_ONI, rate=0.005)
    }
    assert found["ncc", "identity"].value == found["ncc", "noise 0.02"].value == 1
    assert found["ncc", "identity"].low > 0.8
    queries = trial.plan.queries
    null = trial.best["blind"].score[[not q.copy for q in queries]]
    for name in ("rotation 5", "left to right"):
        copies = trial.best["blind"].score[[q.copy and q.edit.name == name for q in queries]]
        expected = np.mean(copies[:, None] > null) + 0.5 * np.mean(copies[:, None] == null)
        assert found["blind", name].value == pytest.approx(expected)


def test_accuracy_of_the_published_setting_counts_both_sides() -> None:
    trial = edit_trials.run(
        KINDS[0],
        EditSetting.LCMEM,
        methods={"ncc": by_pixels()},
        edits=LCMEM[4:6],
        copies=9,
        seed=0,
    )
    for figure in edit_figures.figures([trial], edits=LCMEM[4:6], rate=0.005):
        if figure.edit is not None:
            assert figure.share.total == 9 and figure.accuracy.total == 18
            assert figure.share.count == 9 and figure.accuracy.count >= 17
