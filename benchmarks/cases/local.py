"""Local features and their geometry, beside OpenCV's SIFT, brute-force matching and RANSAC.

Both see the same phantoms of 256 pixels a side; queries are some of them turned by a quarter. The peer holds
as many keypoints an image, matches them by the ratio test (Lowe, 2004, section 7.1), and fits affine maps by
RANSAC to the candidates with most matches.
"""

import functools
import importlib.util

import jax
import numpy as np

from benchmarks.cases.case import Case, Peer
from deepssim_jax.data.phantom_chests import chests
from deepssim_jax.features.extract import POINTS
from deepssim_jax.scoring.points import SIDE, LocalIndex, PointSet

_RATIO, _REACH, _CANDIDATES = 0.8, 5.0, 12


def _images(count: int) -> list[np.ndarray]:
    return list(np.asarray(chests(jax.random.key(3), count, size=(SIDE, SIDE))))


def _turned(images: list[np.ndarray]) -> list[np.ndarray]:
    return [np.rot90(x).copy() for x in images]


class _OpenCv:
    """SIFT with brute-force matching."""

    def __init__(self) -> None:
        import cv2

        self.cv2 = cv2
        self._sift = cv2.SIFT_create(nfeatures=POINTS)
        self._matcher = cv2.BFMatcher(cv2.NORM_L2)

    def points(self, images: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        found = []
        for image in images:
            grey = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
            places, descriptors = self._sift.detectAndCompute(grey, None)
            found.append((np.array([p.pt for p in places], np.float32), descriptors))
        return found

    def matches(self, query: np.ndarray, real: np.ndarray) -> np.ndarray:
        pairs = self._matcher.knnMatch(query, real, k=2)
        kept = [(a.queryIdx, a.trainIdx) for a, b in pairs if a.distance < _RATIO * b.distance]
        return np.array(kept, int).reshape(-1, 2)

    def inliers(self, query: tuple, real: tuple, rows: np.ndarray) -> int:
        if len(rows) < 3:
            return 0
        both = query[0][rows[:, 0]], real[0][rows[:, 1]]
        kept = self.cv2.estimateAffine2D(*both, ransacReprojThreshold=_REACH)[1]
        return 0 if kept is None else int(kept.sum())


def keypoints(n: float) -> Case:
    """Keypoints and descriptors; items are images."""
    images = _images(max(round(64 * n), 8))

    def check() -> None:
        points, turned = PointSet.of_images(images[:8]), PointSet.of_images(_turned(images[:8]))
        # A square image turned by a quarter has the same points, turned by a quarter.
        np.testing.assert_array_equal(points.valid.sum(1), turned.valid.sum(1))
        assert (points.valid.sum(1) > POINTS // 2).all()

    peers = {}
    if importlib.util.find_spec("cv2"):
        peers["opencv"] = Peer(functools.partial(_OpenCv().points, images), len(images))
    return Case(
        name="keypoints", unit="images", items=len(images),
        run=lambda: PointSet.of_images(images), check=check, peers=peers,
    )  # fmt: skip


def points_all_pairs(n: float) -> Case:
    """How much of each query's points each real image holds, at a glance; items are pairs."""
    count, known = max(round(64 * n), 4), _images(64)
    copies = PointSet.of_images(_turned(known[:count]))
    references = PointSet.of_images(known)
    # Real sets are larger: the images again, as other patients' that are never compared.
    rows = np.arange(max(round(4096 * n), 64)) % 64
    index = LocalIndex.build(references.rows(rows), np.arange(len(rows)))
    queries = copies.rows(np.arange(64) % count)

    def check() -> None:
        first = LocalIndex.build(references, np.arange(64))
        assert (first.search(copies).reference[:, 0] == np.arange(count)).all()

    peers = {}
    if importlib.util.find_spec("cv2"):
        opencv = _OpenCv()
        theirs, ours = opencv.points(known[:24]), opencv.points(_turned(known[:8]))

        def match() -> None:
            for query in ours:
                for real in theirs:
                    opencv.matches(query[1], real[1])

        peers["opencv"] = Peer(match, len(ours) * len(theirs))
    return Case(
        name="points_all_pairs", unit="pairs", items=len(queries) * len(rows),
        run=lambda: index.stands_out(queries), check=check, peers=peers,
    )  # fmt: skip


def points_verified(n: float) -> Case:
    """The geometry of each query's candidates; items are queries."""
    known = _images(64)
    queries = PointSet.of_images(_turned(known[: max(round(64 * n), 8)]))
    index = LocalIndex.build(PointSet.of_images(known), np.arange(64))

    def check() -> None:
        found = index.search(queries)
        assert (found.reference[:, 0] == np.arange(len(queries))).all()

    peers = {}
    if importlib.util.find_spec("cv2"):
        opencv = _OpenCv()
        theirs, ours = opencv.points(known[:_CANDIDATES]), opencv.points(_turned(known[:8]))

        def fit() -> None:
            for query in ours:
                for real in theirs:
                    opencv.inliers(query, real, opencv.matches(query[1], real[1]))

        peers["opencv"] = Peer(fit, len(ours))
    return Case(
        name="points_verified", unit="queries", items=len(queries),
        run=lambda: index.search(queries), check=check, peers=peers,
    )  # fmt: skip
