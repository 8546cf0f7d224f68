"""Images that may leave: drawn from a model until enough stand, or taken from a folder.

Every candidate is judged (`audit.guard`) as its file would be read, and only accepted ones are ever
written: a refused one may be a patient. Judgements are kept batch by batch under a work folder, which
holds the training images too and stays in the house; a run that was stopped goes on there and comes
to the same bytes.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from deepssim_jax.audit import certificate, outputs
from deepssim_jax.audit.certificate import Candidate, Residual, Source
from deepssim_jax.audit.generation import (
    MANIFEST,
    Generator,
    Planned,
    SamplingSettings,
    manifest_csv,
)
from deepssim_jax.audit.guard import PROPOSALS, Guard, Judged, Reason
from deepssim_jax.audit.result import Thresholds
from deepssim_jax.data import store
from deepssim_jax.data.manifest import InputError, Record, Role, read_manifest
from deepssim_jax.data.pictures import ImageFormat
from deepssim_jax.data.readers import read_image
from deepssim_jax.data.volume import Unreadable
from deepssim_jax.files import write_array, write_bytes
from deepssim_jax.scoring.decide import clopper_pearson
from deepssim_jax.scoring.match import Progress, search_key

_BATCH = 64
_MARK, _EXHAUSTIVE = "release.json", "exhaustive.json"
# Pairs verified for the residual rate: about half a minute on two cores.
RESIDUAL_PAIRS = 2000


@dataclasses.dataclass(frozen=True)
class Offer:
    """A candidate: its number, the name of its file, the file's bytes, and the image to judge.

    `image` is uint16 [s, s], or None if it cannot be judged.
    """

    index: int
    name: str
    content: bytes
    image: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Release:
    """What came of it; `wanted` is None where everything that may leave was wanted.

    `rejected` counts by reason; `residual` is what the search misses of these images, `thresholds` hold
    what it misses of planted copies.
    """

    accepted: int
    judged: int
    rejected: Mapping[str, int]
    wanted: int | None
    residual: Residual
    thresholds: Thresholds

    @property
    def complete(self) -> bool:
        """Whether as many stand as were wanted."""
        return self.wanted is None or self.accepted >= self.wanted


def generate_guarded(
    generator: Generator,
    guard: Guard,
    out: Path,
    *,
    n: int,
    work: Path,
    budget: int | None = None,
    seed: int = 0,
    settings: SamplingSettings = SamplingSettings(),
    image_format: ImageFormat = ImageFormat.PNG,
    residual_pairs: int = RESIDUAL_PAIRS,
    on_progress: Progress = lambda done, total, what: None,
) -> Release:
    """Draws until `n` images stand; candidate i is image i of the seed, as `generate` makes it.

    Args:
      generator: the model.
      guard: of the images that it was trained on; it may hold more.
      out: folder of the images, `manifest.csv` and `certificate.json`.
      n: images wanted.
      work: what is kept between runs; it is not to be given away.
      budget: candidates at most, ten for an image wanted if None.
      seed: of all candidates.
      settings: how they are drawn.
      image_format: of the files.
      residual_pairs: at most so many are verified to measure what the search misses.
      on_progress: called with (images that stand, images wanted, what).

    Raises:
      InputError: a training image is missing from the guard, or the folder holds other images.
    """
    missing = {r.sha256 for r in generator.records if r.copies} - set(guard.images.sha256)
    if missing:
        raise InputError(
            f"--real lacks {len(missing)} of the {len(generator.trained)} images that the model was "
            "trained on (or they were changed since): give all of them, for a copy of an image that "
            "is not looked at is not found"
        )
    if n < 1:
        raise ValueError(f"n {n} must be at least 1: how many images are to stand")
    budget = 10 * n if budget is None else budget
    records = generator.records_of(np.arange(budget), seed=seed)

    def draw(start: int) -> list[Offer]:
        numbers = np.arange(start, min(start + settings.batch, budget))
        made = generator.images(numbers, seed=seed, settings=settings, records=records[numbers])
        return [
            Offer(
                int(i),
                f"gen-{i:06d}{image_format.suffix}",
                image_format.encoded(image),
                _pixels(image_format.as_read(image), guard),
            )
            for i, image in zip(numbers, made, strict=True)
        ]

    how = {"seed": seed, "format": image_format.value}
    drawn = {**how, **{k: str(v) for k, v in dataclasses.asdict(settings).items()}}
    source = Source(generator.weights_hash, {**drawn, "budget": budget}, n)
    run = _Run(guard, out, work, source, residual_pairs)
    residual = run.judge(range(0, budget, settings.batch), draw, on_progress)
    told = generator.conditions is not None
    planned = [Planned(c.index, int(records[c.index]), c.name) for c in run.standing]
    rows = manifest_csv(planned, seed, generator.weights_hash, told=told)
    write_bytes(out / MANIFEST, rows)
    return run.certified(residual, {MANIFEST: hashlib.sha256(rows).hexdigest()})


def filter_folder(
    source: str | Path,
    guard: Guard,
    out: Path,
    *,
    work: Path,
    residual_pairs: int = RESIDUAL_PAIRS,
    on_progress: Progress = lambda done, total, what: None,
) -> Release:
    """Copies what may leave of a folder of images.

    Args:
      source: folder or manifest of the images.
      guard: of the training images.
      out: folder for the accepted files, under the names they have there, and `certificate.json`.
      work: what is kept between runs; it is not to be given away.
      residual_pairs: at most so many are verified to measure what the search misses.
      on_progress: called with (images judged, images in all, what).

    Raises:
      InputError: the source holds no image, or `out` holds other files.
    """
    manifest = read_manifest(source, role=Role.SYNTHETIC)
    root = manifest.source if manifest.source.is_dir() else manifest.source.parent
    records = manifest.records
    if root.resolve() == out.resolve():
        raise InputError("--out is the folder to filter; give another one")

    def load(start: int) -> list[Offer]:
        return [
            _offer(number, records[number], root, guard)
            for number in range(start, min(start + _BATCH, len(records)))
        ]

    origin = Source(None, {"listing": store.fingerprint(manifest, guard.settings.form)}, None)
    run = _Run(guard, out, work, origin, residual_pairs)
    return run.certified(run.judge(range(0, len(records), _BATCH), load, on_progress), {})


def _pixels(image: np.ndarray, guard: Guard) -> np.ndarray | None:
    """What a drawn image's file will be read as, fitted, or None if it is blank."""
    try:
        return store.fitted(image, guard.settings.form)
    except Unreadable:
        return None


def _offer(number: int, record: Record, root: Path, guard: Guard) -> Offer:
    name = record.path.relative_to(root).as_posix()
    try:
        image = read_image(record, spec=None)
        if image.ndim != 2 or record.parts:
            raise Unreadable("is a volume")
        return Offer(
            number, name, record.path.read_bytes(), store.fitted(image, guard.settings.form)
        )
    except (Unreadable, OSError):
        return Offer(number, name, b"", None)


class _Run:
    """Batches judged so far, and what becomes of them."""

    def __init__(self, guard: Guard, out: Path, work: Path, source: Source, pairs: int) -> None:
        self._guard, self._out, self._source, self._pairs = guard, out, source, pairs
        self._journal = _journal(guard, out, work, source, pairs)
        self._candidates: list[Candidate] = []
        self._embeddings: list[np.ndarray] = []
        path = self._journal / _EXHAUSTIVE
        self._exhaustive: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
        self._tested: set[str] = set()

    @property
    def standing(self) -> list[Candidate]:
        """What may leave."""
        return [c for c in self._candidates if c.reason is None]

    def judge(
        self,
        starts: Sequence[int],
        offers: Callable[[int], Sequence[Offer]],
        on_progress: Progress,
    ) -> Residual:
        """Judges batches until as many stand as are wanted, those included that are withheld later.

        Of what the search accepted a sample is verified against every training image, from which the
        residual rate comes; what was drawn to fill the gaps is tested whole.
        """
        wanted, done, seed = self._source.wanted, 0, self._guard.settings.seed + 1
        known: set[str] = set()
        residual: Residual | None = None
        while True:
            while done < len(starts) and (wanted is None or len(self.standing) < wanted):
                self._batch(done, starts[done], offers)
                done += 1
                if wanted is None:
                    on_progress(done, len(starts), "judging")
                else:
                    on_progress(len(self.standing), wanted, "drawing and judging")
            drawn = [c.name for c in self.standing if c.name not in known]
            known.update(drawn)
            if residual is None:
                drawn = self._sample(drawn, seed)
            missed = self._withhold(drawn, on_progress)
            if residual is None:
                level = self._guard.settings.level
                residual = Residual(seed, clopper_pearson(missed, len(drawn), level=level))
            if not missed or wanted is None or done == len(starts):
                return residual

    def _sample(self, names: Sequence[str], seed: int) -> list[str]:
        count = min(len(names), self._pairs // len(self._guard.side))
        rows = np.random.default_rng([seed, 7]).permutation(len(names))[:count]
        return [names[row] for row in np.sort(rows)]

    def _batch(self, number: int, start: int, offers: Callable[[int], Sequence[Offer]]) -> None:
        path = self._journal / f"judged-{number:06d}.json"
        if not path.exists():
            wanted = self._source.wanted
            room = None if wanted is None else wanted - len(self.standing)
            rows, found = _judge(offers(start), self._guard, self._out, room=room)
            # The judgements come last: a batch counts only when its images are there.
            write_array(path.with_suffix(".npy"), found)
            write_bytes(path, json.dumps([dataclasses.asdict(row) for row in rows]).encode())
        self._candidates += [_candidate(row) for row in json.loads(path.read_text())]
        self._embeddings.append(np.load(path.with_suffix(".npy"), allow_pickle=False))

    def _withhold(self, names: Sequence[str], on_progress: Progress) -> int:
        """Verifies images against every training image; deletes the copies and says how many."""
        for number, name in enumerate(names, start=1):
            self._verify(name)
            on_progress(number, len(names), "verifying against every training image")
        self._tested.update(names)
        limit = self._guard.limits.max_ssim
        missed = {name for name in names if self._exhaustive[name] >= limit}
        for name in missed:
            (self._out / name).unlink(missing_ok=True)
        self._candidates = [
            dataclasses.replace(c, reason=Reason.EXHAUSTIVE, sha256="") if c.name in missed else c
            for c in self._candidates
        ]
        return len(missed)

    def _verify(self, name: str) -> None:
        if name not in self._exhaustive:
            image = store.load_one(Record(name, self._out / name), self._guard.settings.form)
            self._exhaustive[name] = self._guard.exhaustive(image)
            # Kept before anything is deleted: a run that goes on must not look for the file.
            write_bytes(self._journal / _EXHAUSTIVE, json.dumps(self._exhaustive).encode())

    def certified(self, residual: Residual, files: Mapping[str, str]) -> Release:
        """Writes the certificate; `files` are hashes of other files of the folder."""
        certificate.certify(
            self._guard,
            self._candidates,
            np.concatenate([self._guard.side.embeddings[:0], *self._embeddings]),
            folder=self._out,
            source=self._source,
            residual=residual,
            tested=self._tested,
            files=files,
        )
        return Release(
            len(self.standing),
            len(self._candidates),
            certificate.rejected(self._candidates),
            self._source.wanted,
            residual,
            self._guard.limits.thresholds,
        )


def _judge(
    offers: Iterable[Offer], guard: Guard, out: Path, *, room: int | None
) -> tuple[list[Candidate], np.ndarray]:
    """Judges a batch and writes what may leave, `room` images at most."""
    offers = list(offers)
    seen = [(offer, offer.image) for offer in offers if offer.image is not None]
    judged = guard.judge(np.stack([image for _, image in seen])) if seen else None
    places = {offer.index: place for place, (offer, _) in enumerate(seen)}
    rows: list[Candidate] = []
    used: list[int] = []
    for offer in offers:
        if room is not None and sum(row.reason is None for row in rows) >= room:
            break
        place = places.get(offer.index)
        rows.append(_row(offer, judged, place))
        used += [] if place is None else [place]
        if rows[-1].reason is None:
            write_bytes(out / offer.name, offer.content)
    return rows, judged.embeddings[used] if judged else guard.side.embeddings[:0]


def _row(offer: Offer, judged: Judged | None, place: int | None) -> Candidate:
    if judged is None or place is None:
        return Candidate(offer.name, offer.index, None, None, Reason.UNREADABLE, "")
    reason = judged.reason[place]
    return Candidate(
        name=offer.name,
        index=offer.index,
        cosine=round(float(judged.cosine[place]), 6),
        verified=round(float(judged.verified[place]), 6),
        reason=reason,
        sha256="" if reason else hashlib.sha256(offer.content).hexdigest(),
    )


def _candidate(row: dict) -> Candidate:
    reason = Reason(row["reason"]) if row["reason"] else None
    return dataclasses.replace(Candidate(**row), reason=reason)


def _journal(guard: Guard, out: Path, work: Path, source: Source, pairs: int) -> Path:
    """Folder of finished batches; it belongs to exactly this work.

    Raises:
      InputError: `out` holds images of other work.
    """
    limits, settings = guard.limits, guard.settings
    key = [
        certificate.training_mark(guard),
        [limits.max_cosine, limits.max_ssim, settings.size, settings.slice_spec],
        [source.model, dict(source.drawn), source.wanted, pairs],
        [outputs.versions(settings.encoder), *search_key(PROPOSALS)],
    ]
    mark = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    path = work / _MARK
    known = path.read_text() if path.exists() else None
    if known != mark:
        if out.exists() and any(out.iterdir()):
            raise InputError(
                f"--out {out.name!r} holds files of another run, or of other settings; take an empty "
                "folder"
            )
        write_bytes(path, mark.encode())
    return work / f"release-{mark[:16]}"
