"""The guard: may this image leave, judged against every training image?

Contract: an image is refused if its cosine with any training image, itself or mirrored, is
`max_cosine` or more, if its verified score with any proposed one is `max_ssim` or more, if local
features or partial correlations show what an audit would call a copy, or if it holds too little
structure to be compared. Proposed are those that the searches over mirrorings, rotations, zooms and
shifts, and without any motion, and the encoder find nearest among all; `Guard.exhaustive` leaves none
out, at the cost of a verification for every training image. Training images that are copies of each
other count as one patient's, as in an audit.
"""

import dataclasses
import enum
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from deepssim_jax import parallel
from deepssim_jax.audit import calibration, doubles
from deepssim_jax.audit.result import Thresholds
from deepssim_jax.data import store
from deepssim_jax.data.manifest import InputError, Role, check_subject_regex, read_manifest
from deepssim_jax.data.store import ImageStore, InputSettings
from deepssim_jax.data.volume import SliceSpec
from deepssim_jax.detection.controls import balanced_rows
from deepssim_jax.nn.encoder import Encoder, embed, encoder_hash, load_encoder
from deepssim_jax.ops import arguments
from deepssim_jax.ops.transform import FLIP_SIGNS
from deepssim_jax.scoring import points
from deepssim_jax.scoring.aligned import AlignedIndex
from deepssim_jax.scoring.decide import MIN_NULL
from deepssim_jax.scoring.embed import build_side, check_size, features
from deepssim_jax.scoring.kinds import Kinds
from deepssim_jax.scoring.match import Progress, best_matches, verified, with_evidence
from deepssim_jax.scoring.pairs import nearest
from deepssim_jax.scoring.points import PointSet
from deepssim_jax.scoring.retrieval import Retrieval
from deepssim_jax.scoring.side import Side
from deepssim_jax.scoring.verify import verify_pairs
from deepssim_jax.workspace import Section, Workspace

# This share of real images stays below a calibrated limit with every other patient's: a refused
# image of another patient costs one more candidate, a copy that leaves costs a patient.
_QUANTILE = 0.99
DEFAULT_COSINE = 0.99
_BLOCK = 256
PROPOSALS = Retrieval.BOTH.proposals


@dataclasses.dataclass(frozen=True)
class GuardSettings:
    """How images are judged: limits of None are calibrated on the training images.

    `size`, `slice_spec`, `subject_regex`, `encoder`, `level` and `seed` are those of an audit.
    """

    max_cosine: float | None = None
    max_ssim: float | None = None
    size: int = 128
    slice_spec: str = "axial:0.5"
    subject_regex: str | None = None
    encoder: str = "default"
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for values that cannot work."""
        for name in ("max_cosine", "max_ssim"):
            value = getattr(self, name)
            if value is not None:
                arguments.number(value, name, low=0, high=1, open_low=True, example=0.9)
        check_size(self.size)
        SliceSpec.parse(self.slice_spec)
        check_subject_regex(self.subject_regex)
        arguments.number(self.level, "level", low=0.5, high=1, open_high=True, example=0.95)
        arguments.seed(self.seed, "seed")

    @property
    def form(self) -> InputSettings:
        """How files become images."""
        return InputSettings(size=(self.size, self.size), slice=self.slice_spec, canvas=points.SIDE)


class Reason(enum.StrEnum):
    """Why an image stays.

    By its cosine or its verified score; by the latter without any search, where it was drawn for that;
    by local features or partial correlations; because it holds too little to be compared; or because it
    is blank, broken or a volume.
    """

    COSINE = "cosine"
    VERIFIED = "verified"
    LOCAL = "local_evidence"
    EMPTY = "not_comparable"
    EXHAUSTIVE = "exhaustive"
    UNREADABLE = "unreadable"

    @property
    def words(self) -> str:
        """The reason as the screen shows it."""
        return {
            Reason.COSINE: "embedding too similar",
            Reason.VERIFIED: "copy score reaches the limit",
            Reason.LOCAL: "local features or partial correlations",
            Reason.EMPTY: "too little structure",
            Reason.EXHAUSTIVE: "copy score reaches the limit, missed by the search",
            Reason.UNREADABLE: "blank, or not read",
        }[self]


@dataclasses.dataclass(frozen=True)
class View:
    """An image as it is judged: uint16 [s, s], and a canvas for local features with what holds the image."""

    square: np.ndarray
    canvas: np.ndarray
    content: tuple[int, int]

    @classmethod
    def of(cls, image: np.ndarray, form: InputSettings) -> "View":
        """Of an image float32 [h, w], as it was read.

        Raises:
          Unreadable: it is constant.
        """
        return cls(store.fitted(image, form), *store.on_canvas(image, form))


@dataclasses.dataclass(frozen=True)
class Judged:
    """n judgements: NumPy arrays [n], and embeddings [n, d] of the images as they are.

    `cosine` is the largest with a training image over the four mirrorings, and `verified` the largest
    verified score. Where the score refused the image, `verified` is the largest of those looked at until
    then, and `cosine` that of the image as it is. `reason` is None for an image that may leave.
    """

    cosine: np.ndarray
    verified: np.ndarray
    reason: tuple[Reason | None, ...]
    embeddings: np.ndarray

    def reason_of(self, first: int, count: int) -> Reason | None:
        """Why one image stays, of which `count` views were judged from row `first` on.

        Its first view is the image: that another one, such as a colour, holds too little is no reason.
        """
        whole, *rest = self.reason[first : first + count]
        return whole or next((why for why in rest if why not in (None, Reason.EMPTY)), None)


@dataclasses.dataclass(frozen=True)
class Limits:
    """From which similarity on an image is refused, and where the two numbers come from.

    `thresholds` hold what else decides, and what was found of planted copies; `kinds`, of training images.
    """

    max_cosine: float
    max_ssim: float
    cosine_origin: str
    ssim_origin: str
    calibrated: tuple[str, ...]  # those of the two that come from the training images
    thresholds: Thresholds
    kinds: Kinds


@dataclasses.dataclass(frozen=True)
class Guard:
    """A training set, ready to judge images. See the module."""

    side: Side
    images: ImageStore
    encoder: Callable[[], Encoder]
    limits: Limits
    settings: GuardSettings

    @classmethod
    def build(
        cls,
        training: str | Path,
        work: Workspace,
        *,
        settings: GuardSettings = GuardSettings(),
        on_progress: Progress = lambda done, total, what: None,
    ) -> "Guard":
        """Reads and embeds every training image and settles the limits; restartable.

        Args:
          training: folder, manifest, BIDS root or reference layout of the training images.
          work: what is kept between runs.
          settings: see `GuardSettings`.
          on_progress: called with (done, total, what).

        Raises:
          InputError: a training image cannot be read: nothing could be said of its copies.
          ValueError: a setting cannot work.
        """
        manifest = read_manifest(training, role=Role.REAL, subject_regex=settings.subject_regex)
        encoder = functools.cache(lambda: load_encoder(settings.encoder))
        encoder_id = encoder_hash(settings.encoder)
        form = settings.form
        side, images = build_side(
            manifest,
            work,
            settings=form,
            encoder=encoder,
            encoder_id=encoder_id,
            on_progress=on_progress,
            what=manifest.reading("reading training images"),
        )
        if images.rejected or not len(images):
            first = images.rejected[0].reason if images.rejected else "there is none"
            raise InputError(
                f"--real: {len(images.rejected)} training images cannot be read, so no one can say "
                f"that none of them is copied (the first: {first}); mend them, or train without them"
            )
        journal = work.section("limits", images.fingerprint, encoder_id)
        found = doubles.find_doubles(
            side, images, journal=journal.section("doubles"), on_progress=on_progress
        )
        side = dataclasses.replace(side, groups=found.subjects)
        limits = _limits(side, encoder, journal, settings, on_progress)
        return cls(side, images, encoder, limits, settings)

    @functools.cached_property
    def index(self) -> AlignedIndex:
        """The training images, ready for the search over transformations."""
        return AlignedIndex.build(self.side.low)

    @property
    def doubt(self) -> str | None:
        """Why nothing may leave: nobody knows that copies of these training images would be found."""
        performance = self.limits.thresholds.performance
        recall = performance.recall
        if recall is None:
            return (
                "how many copies are found was not measured: too few training images, or too small "
                "ones, to make copies of"
            )
        if not performance.sensitive:
            return (
                f"of {recall.total} copies made of the training images only {recall.count} were found, "
                "so copies could leave; lower limits find more, and so do more training images"
            )
        return None

    def judge(self, views: Sequence[View]) -> Judged:
        """Judges images, at least one."""
        images = np.stack([view.square for view in views])
        embeddings, low = features(images, self.encoder())
        points = PointSet.of(
            np.stack([view.canvas for view in views]), np.array([view.content for view in views])
        )
        side = Side(take=lambda rows: images[rows], low=low, embeddings=embeddings, points=points)
        pairs = verified(
            side,
            self.side,
            index=self.index,
            proposals=PROPOSALS,
            enough=self.limits.max_ssim,
        )
        score = best_matches(pairs, len(images))["verified"]
        refused = score >= self.limits.max_ssim
        found = with_evidence(pairs, side, self.side, self.side.common)
        pairs = self.limits.kinds.levelled(found, self.side.embeddings)
        trial = calibration.Trial.of(pairs, len(images))
        # Another image of a patient must not leave either.
        local = trial.copies(self.limits.thresholds)
        local |= trial.points >= self.limits.thresholds.local
        cosine = np.full(len(images), -1.0, np.float32)
        rest = np.flatnonzero(~refused)
        for there in _mirrored(images[rest], embeddings[rest], self.encoder()):
            # All rows are asked for, so that their number compiles nothing anew.
            rows = embeddings.copy()
            rows[rest] = there
            cosine = np.maximum(
                cosine,
                nearest(rows, self.side.embeddings, k=1, mesh=parallel.own_mesh()).scores[:, 0],
            )
        rules = {  # the first that holds is given as the reason
            Reason.VERIFIED: refused,
            Reason.COSINE: cosine >= self.limits.max_cosine,
            Reason.LOCAL: local,
            Reason.EMPTY: ~points.comparable,
        }
        reason = tuple(
            next((why for why, holds in rules.items() if holds[row]), None)
            for row in range(len(images))
        )
        return Judged(cosine, score, reason, embeddings)

    def exhaustive(self, squares: Sequence[np.ndarray]) -> float:
        """The largest verified score of an image's views, uint16 [s, s], with all training images."""
        best = -1.0
        for start in range(0, len(self.side), _BLOCK):
            fixed = self.side.take(np.arange(start, min(start + _BLOCK, len(self.side))))
            for square in squares:
                found = verify_pairs(np.broadcast_to(square, fixed.shape), fixed)
                best = max(best, float(found.score.max()))
        return best


def _mirrored(
    images: np.ndarray, embeddings: np.ndarray, encoder: Encoder
) -> tuple[np.ndarray, ...]:
    """Embeddings of images in four mirrorings; those of the images as they are, are known.

    An encoder of mirrored images has one for all four.
    """
    if encoder.spec.mirrored:
        return (embeddings,)
    signs = [(y, x) for y, x in FLIP_SIGNS.astype(int) if (y, x) != (1, 1)]
    # One call for all, because few images fill a batch together.
    turned = np.concatenate([images[:, ::y, ::x] for y, x in signs])
    return (embeddings, *np.split(embed(encoder, turned), len(signs)))


def _limits(
    side: Side,
    encoder: Callable[[], Encoder],
    work: Section,
    settings: GuardSettings,
    on_progress: Progress,
) -> Limits:
    evidence = calibration.calibrate_on_real(
        side,
        encoder,
        journal=work,
        settings=calibration.CalibrationSettings(
            seed=settings.seed,
            level=settings.level,
            planted=calibration.PLANTED,
            proposals=PROPOSALS,
        ),
        on_progress=on_progress,
    )
    cosine, cosine_origin, known = _cosine_limit(side, encoder, work, settings.seed)
    ssim, ssim_origin = evidence.thresholds.near, evidence.thresholds.origin
    if evidence.thresholds.calibrated:
        strict = float(np.quantile(evidence.null_scores, _QUANTILE))
        if strict < ssim:
            ssim = strict
            ssim_origin = (
                f"the {_QUANTILE:.0%} quantile of {len(evidence.null_scores)} best matches between "
                "different patients' real images"
            )
    given = "given by the user"
    calibrated = [
        *(["max_cosine"] if settings.max_cosine is None and known else []),
        *(["max_ssim"] if settings.max_ssim is None and evidence.thresholds.calibrated else []),
    ]
    max_ssim = ssim if settings.max_ssim is None else settings.max_ssim
    local, partial = evidence.laws.thresholds(1 - _QUANTILE)
    # What planted copies say holds for the limits that are used.
    used = dataclasses.replace(
        evidence.thresholds,
        near=max_ssim,
        exact=max(evidence.thresholds.exact, max_ssim),
        local=local,
        partial=partial,
    )
    return Limits(
        max_cosine=cosine if settings.max_cosine is None else settings.max_cosine,
        max_ssim=max_ssim,
        cosine_origin=cosine_origin if settings.max_cosine is None else given,
        ssim_origin=ssim_origin if settings.max_ssim is None else given,
        calibrated=tuple(calibrated),
        thresholds=evidence.under(used).thresholds,
        kinds=evidence.kinds,
    )


def _cosine_limit(
    side: Side, encoder: Callable[[], Encoder], work: Section, seed: int
) -> tuple[float, str, bool]:
    """What real images stay below with other patients' images, mirrored ones included."""
    side, groups = side.grouped()
    rows = balanced_rows(groups, calibration.MAX_NULL, seed=seed)
    if len(np.unique(groups)) < MIN_NULL:
        origin = f"the package's default, because there are fewer than {MIN_NULL} patients"
        return DEFAULT_COSINE, origin, False

    def closest() -> np.ndarray:
        own = groups[rows][:, None] == groups[None]
        found = [
            np.where(own, -1.0, there @ side.embeddings.T).max(1)
            for there in _mirrored(side.take(rows), side.embeddings[rows], encoder())
        ]
        return np.max(found, axis=0)

    best = work.step("cosine", [rows, groups, side.embeddings], closest)
    origin = (
        f"the {_QUANTILE:.0%} quantile of the closest cosine between different patients' real "
        f"images, {len(best)} of them"
    )
    return float(np.quantile(best, _QUANTILE)), origin, True
