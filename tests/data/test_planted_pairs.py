"""Labels hold by construction: what each change does, who meets whom, and that runs repeat."""

import numpy as np
import pytest
from scipy import ndimage

from deepssim_jax.data import changes, planted_pairs
from deepssim_jax.data.planted_pairs import EXACT, NEAR, UNRELATED, Pair, Setting

SIDE = 128
PATIENTS = np.repeat(np.arange(8), 3)


def pictures(count: int) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal((count, SIDE, SIDE))
    mixed = sum(s * ndimage.gaussian_filter(noise, (0, s, s)) for s in (2, 6, 15))
    low, high = mixed.min((1, 2), keepdims=True), mixed.max((1, 2), keepdims=True)
    return (mixed - low) / (high - low)


IMAGES = pictures(len(PATIENTS))


def plan(seed: int = 0, contents: np.ndarray | None = None) -> tuple[Pair, ...]:
    return planted_pairs.plan(
        PATIENTS,
        contents=np.arange(len(PATIENTS)) if contents is None else contents,
        seed=seed,
        nearest=lambda rows: np.array(
            [np.flatnonzero(PATIENTS[rows] != PATIENTS[row])[0] for row in rows]
        ),
    )


def test_no_patient_is_on_both_sides_and_no_pair_leaves_its_side() -> None:
    pairs = plan()
    sides = {tune: {p.patient for p in pairs if p.tune == tune} for tune in (True, False)}
    assert not sides[True] & sides[False] and sides[True] | sides[False] == set(range(8))
    for pair in pairs:
        rows = [pair.real, pair.source, *([pair.donor] if pair.donor >= 0 else [])]
        assert {int(PATIENTS[row]) for row in rows} <= sides[pair.tune]


def test_classes_are_equal_in_number_and_true_to_their_kind() -> None:
    pairs = plan()
    assert [sum(p.label == c for p in pairs) for c in (UNRELATED, NEAR, EXACT)] == [48, 48, 48]
    for pair in pairs:
        same = PATIENTS[pair.source] == PATIENTS[pair.real]
        if pair.label == UNRELATED:
            assert same == (pair.kind == planted_pairs.SAME_PATIENT) and pair.source != pair.real
        else:
            assert pair.source == pair.real
        assert (pair.donor >= 0) == (pair.kind == planted_pairs.REPLACED)
        assert pair.donor < 0 or PATIENTS[pair.donor] != pair.patient


def test_two_files_of_one_picture_are_no_unrelated_pair() -> None:
    contents = PATIENTS.copy()  # all images of a patient are one picture
    assert not any(p.kind == planted_pairs.SAME_PATIENT for p in plan(contents=contents))


def test_a_pair_depends_on_the_seed_and_its_number_alone() -> None:
    pairs = plan()
    take = IMAGES.__getitem__
    some = pairs[5:9]
    at_once = list(planted_pairs.partners(some, Setting.HARSH, take, seed=3))
    for pair, image in zip(reversed(some), reversed(at_once), strict=True):
        np.testing.assert_array_equal(
            planted_pairs.partner(pair, Setting.HARSH, take, seed=3), image
        )
    other = planted_pairs.partner(some[0], Setting.HARSH, take, seed=4)
    assert np.abs(other - at_once[0]).max() > 0.01


@pytest.mark.parametrize("name", changes.NEAR)
def test_near_changes_are_local_and_change_something(name: str) -> None:
    for number in range(4):
        image = IMAGES[number]
        found = changes.NEAR[name](image, np.random.default_rng(number))
        moved = np.abs(found - image) > 0.02
        assert 0.001 < moved.mean() < 0.35, moved.mean()
        assert np.abs(found - image).max() > 0.05


@pytest.mark.parametrize("name", changes.EXACT)
def test_exact_changes_leave_every_structure(name: str) -> None:
    """What is left of the image after a smooth map of its intensities is small everywhere."""
    image = IMAGES[0]
    found = changes.EXACT[name](image, np.random.default_rng(1))
    smooth = [ndimage.gaussian_filter(x, 2.0) for x in (image, found)]
    assert stats_spearman(smooth[0], smooth[1]) > 0.98


def stats_spearman(a: np.ndarray, b: np.ndarray) -> float:
    ranks = [np.argsort(np.argsort(x.ravel())).astype(float) for x in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def test_the_perturbed_setting_draws_each_move_as_often_as_published() -> None:
    """A marked corner shows which mirrorings were drawn."""
    pairs = plan()
    mark = np.zeros((SIDE, SIDE))
    mark[40:50, 44:54] = 1.0
    pair = pairs[0]
    corners = []
    for number in range(300):
        one = Pair(number, 0, 0, -1, UNRELATED, pair.kind, 0, tune=True)
        image = planted_pairs.partner(one, Setting.PERTURBED, lambda row: mark, seed=0)
        y, x = ndimage.center_of_mass(image)
        corners.append((y > SIDE / 2, x > SIDE / 2))
    share = np.mean(corners, axis=0)
    assert np.abs(share - 0.8).max() < 0.08, share  # three standard deviations of 300 draws


def test_too_few_patients_are_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="3 patients are too few.*--subject_regex"):
        planted_pairs.plan(
            np.arange(3), contents=np.arange(3), seed=0, nearest=lambda rows: np.zeros(len(rows))
        )
