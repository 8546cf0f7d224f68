"""Every way of finding an original: what its score is, whose images it leaves out, what it finds."""

import functools

import numpy as np
import pytest
from scipy import ndimage

from deepssim_jax.audit import peer_searchers, searchers
from deepssim_jax.audit.searchers import Searcher
from deepssim_jax.nn.encoder import load_encoder

SIZE = 64
PATIENTS = np.repeat(np.arange(8), 2)


def picture(seed: int, shape: tuple[int, int] = (128, 128)) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(shape)
    mixed = sum(s * ndimage.gaussian_filter(noise, s) for s in (2, 6))
    return (mixed - mixed.min()) / np.ptp(mixed)


IMAGES = [picture(seed) for seed in range(len(PATIENTS))]


def detector() -> Searcher:
    return searchers.detector(load_encoder("default"), size=32)  # the smallest compiles fastest


def audit() -> Searcher:
    return searchers.audit(load_encoder("default"), size=64)


SEARCHERS = {
    "audit": audit,
    "detector": detector,
    "ncc": functools.partial(searchers.by_embedding, searchers.pixels, size=SIZE),
    "phash": functools.partial(peer_searchers.by_hash, "phash", size=SIZE),
    "dhash": functools.partial(peer_searchers.by_hash, "dhash", size=SIZE),
    "sift": peer_searchers.sift,
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow if n in ("audit", "detector") else ())
        for n in SEARCHERS
    ],
)
def test_originals_come_first_and_a_patients_own_are_left_out_when_asked(name: str) -> None:
    search = SEARCHERS[name]()(IMAGES, PATIENTS)
    rows = np.array([3, 12, 6])
    rng = np.random.default_rng(0)
    queries = [np.clip(IMAGES[r] + rng.normal(0, 0.01, (128, 128)), 0, 1) for r in rows]
    found = search(queries, None)
    assert found.reference.tolist() == rows.tolist()
    others = search(queries, PATIENTS[rows])
    assert (PATIENTS[others.reference] != PATIENTS[rows]).all()
    assert (found.score > others.score + 0.5).all()


def test_sift_finds_what_was_turned_and_mirrored() -> None:
    search = peer_searchers.sift()(IMAGES, PATIENTS)
    turned = ndimage.rotate(IMAGES[5], 40, reshape=False, order=1)
    found = search([turned[:, ::-1], np.rot90(IMAGES[9])], None)
    assert found.reference.tolist() == [5, 9]
    assert (found.score >= 20).all() and (found.score == found.score.astype(int)).all()


def test_sift_takes_an_image_without_a_keypoint() -> None:
    search = peer_searchers.sift()([np.zeros((64, 64)), *IMAGES[1:]], PATIENTS)
    found = search([np.full((64, 64), 0.5)], None)
    assert found.reference.tolist() == [0] and found.score.tolist() == [0]


def test_cosines_of_pixels_are_correlations_at_the_common_size() -> None:
    oblong = [picture(20 + k, (SIZE, SIZE)) for k in range(4)]
    search = searchers.by_embedding(searchers.pixels, size=SIZE)(oblong[1:], np.arange(3))
    found = search(oblong[:1], None)
    expected = [np.corrcoef(oblong[0].ravel(), x.ravel())[0, 1] for x in oblong[1:]]
    assert found.reference[0] == np.argmax(expected)
    assert found.score[0] == pytest.approx(-np.log(1 - max(expected)), abs=1e-4)


def test_hashes_are_alike_by_the_share_of_equal_bits() -> None:
    import imagehash
    from PIL import Image

    images = [
        np.asarray(Image.fromarray((x * 255).astype(np.uint8)).resize((SIZE, SIZE))) for x in IMAGES
    ]
    hashes = [imagehash.phash(Image.fromarray(x)) for x in images]
    search = peer_searchers.by_hash("phash", size=SIZE)([x / 255 for x in images], PATIENTS)
    found = search([images[0] / 255], np.array([0]))
    apart = min(hashes[0] - other for other in hashes[2:])
    assert found.score[0] == pytest.approx(-np.log(2 * apart / 64), abs=1e-5)


def test_ties_go_to_the_smaller_row_and_nothing_left_is_no_row() -> None:
    scores = np.array([[1.0, 2.0, 2.0], [1.0, 0.0, 0.0]])
    best = searchers.pick(scores, np.array([0, 0, 0]), None)
    assert best.reference.tolist() == [1, 0] and best.score.tolist() == [2, 1]
    nothing = searchers.pick(scores, np.array([0, 0, 0]), np.array([0, 1]))
    assert nothing.reference.tolist() == [-1, 0] and nothing.score.tolist() == [0, 1]


@pytest.mark.parametrize(("name", "module"), [("sift", "cv2"), ("phash", "imagehash")])
def test_a_missing_package_is_named_with_its_remedy(
    name: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(ValueError, match=f"--methods={name} needs .*pip install"):
        SEARCHERS[name]()
