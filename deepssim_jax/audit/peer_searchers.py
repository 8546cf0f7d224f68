"""Other people's ways of finding a copy, from packages of the extra `bench`.

Contract: `Searcher`s, as in `searchers`. SIFT with Lowe's ratio test and an affine map by RANSAC
(OpenCV), and the perceptual hashes of ImageHash, whose similarity is one less twice the share of bits
that differ.
"""

import importlib
from collections.abc import Callable, Sequence
from types import ModuleType

import numpy as np
from PIL import Image

from deepssim_jax.audit.searchers import Best, Search, Searcher, by_embedding, pick

_POINTS, _RATIO, _REACH = 500, 0.8, 5.0  # SIFT keypoints an image; Lowe 2004, section 7.1; pixels
_VERIFIED = 12  # real images with most matches, of which the geometry is tried


def _package(name: str, install: str, method: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"--methods={method} needs {install}: pip install {install}") from error


def _grey(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.round(np.clip(image, 0, 1) * 255), np.uint8)


def by_hash(method: str, *, size: int) -> Searcher:
    """The perceptual hash `phash` or `dhash`, 64 bits.

    Raises:
      ValueError: ImageHash is not installed.
    """
    package = _package("imagehash", "imagehash", method)
    bits: Callable = getattr(package, method)

    def embed(images: np.ndarray) -> np.ndarray:
        hashes = [bits(Image.fromarray(_grey(x))).hash.ravel() for x in images]
        return 2.0 * np.stack(hashes) - 1

    return by_embedding(embed, size=size)


def sift() -> Searcher:
    """The number of keypoints that agree with one affine map, as it is or mirrored.

    Raises:
      ValueError: OpenCV is not installed.
    """
    cv2 = _package("cv2", "opencv-python-headless", "sift")
    extractor = cv2.SIFT_create(nfeatures=_POINTS)
    matcher = cv2.BFMatcher(cv2.NORM_L2)
    Points = tuple[np.ndarray, np.ndarray]

    def points(image: np.ndarray) -> Points:
        found, descriptors = extractor.detectAndCompute(_grey(image), None)
        places = np.array([p.pt for p in found], np.float32).reshape(-1, 2)
        return places, np.zeros((0, 128), np.float32) if descriptors is None else descriptors

    def matches(query: Points, real: Points) -> np.ndarray:
        """int [m, 2]: rows of the query and of the real image that pass the ratio test."""
        if not len(query[1]) or len(real[1]) < 2:
            return np.zeros((0, 2), np.int64)
        pairs = matcher.knnMatch(query[1], real[1], k=2)
        kept = [(a.queryIdx, a.trainIdx) for a, b in pairs if a.distance < _RATIO * b.distance]
        return np.array(kept, np.int64).reshape(-1, 2)

    def inliers(query: Points, real: Points, rows: np.ndarray) -> int:
        if len(rows) < 3:
            return 0
        cv2.setRNGSeed(0)
        kept = cv2.estimateAffine2D(
            query[0][rows[:, 0]],
            real[0][rows[:, 1]],
            method=cv2.RANSAC,
            ransacReprojThreshold=_REACH,
        )[1]
        return 0 if kept is None else int(kept.sum())

    def searcher(references: Sequence[np.ndarray], patients: np.ndarray) -> Search:
        known = [points(image) for image in references]

        def scores(image: np.ndarray, allowed: np.ndarray) -> np.ndarray:
            out = np.zeros(len(known))
            for view in (image, image[:, ::-1]):
                query = points(view)
                found = {int(row): matches(query, known[row]) for row in allowed}
                most = sorted(found, key=lambda row: (-len(found[row]), row))[:_VERIFIED]
                for row in most:
                    out[row] = max(out[row], inliers(query, known[row], found[row]))
            return out

        def search(queries: Sequence[np.ndarray], own: np.ndarray | None) -> Best:
            table = []
            for number, image in enumerate(queries):
                keep = np.ones(len(known), bool) if own is None else patients != own[number]
                table.append(scores(image, np.flatnonzero(keep)))
            return pick(np.stack(table), patients, own)

        return search

    return searcher
