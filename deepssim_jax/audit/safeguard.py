"""Images that may leave: drawn from a model until enough stand, or taken from a folder.

Every candidate is judged (`audit.guard`) as its file would be read, and only accepted ones are ever
written: a refused one may be a patient. Judgements are kept batch by batch in a work folder, which
holds the training images too and stays in the institution; a run that was stopped goes on there and comes
to the same bytes.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from deepssim_jax.audit import certificate, generated_table
from deepssim_jax.audit.certificate import Candidate, Residual, Source
from deepssim_jax.audit.generated_table import MANIFEST, Planned
from deepssim_jax.audit.generation import Generator, SamplingSettings, Wanted
from deepssim_jax.audit.guard import Guard, Reason, View
from deepssim_jax.audit.judging import Offer, candidates, judge, unread
from deepssim_jax.audit.leaving import Leaving
from deepssim_jax.audit.result import Thresholds
from deepssim_jax.data import store
from deepssim_jax.data.account import INPUTS, Account
from deepssim_jax.data.manifest import InputError, Manifest, Record, Rejected, Role, read_manifest
from deepssim_jax.data.pictures import ImageFormat
from deepssim_jax.data.volume import PASSING, Unreadable, reason_of
from deepssim_jax.nn.encoder import encoder_hash
from deepssim_jax.scoring.decide import clopper_pearson
from deepssim_jax.scoring.match import Progress
from deepssim_jax.workspace import Access, Workspace
from deepssim_jax.workspace.files import csv_bytes, holds

TABLE = "released.csv"  # in the private work: which image has which number
_BATCH = 64
# Pairs verified for the residual rate: about half a minute on two cores.
RESIDUAL_PAIRS = 2000


@dataclasses.dataclass(frozen=True)
class Release:
    """What came of it; `wanted` is None where everything that may leave was wanted.

    `rejected` counts by reason; `residual` is what the search misses of these images, `thresholds` hold
    what it misses of planted copies. `not_read` are the files that could not be judged. `doubt` says why
    nothing was judged and nothing leaves, if so.
    """

    accepted: int
    judged: int
    rejected: Mapping[str, int]
    wanted: int | None
    residual: Residual
    thresholds: Thresholds
    doubt: str | None = None
    not_read: tuple[Rejected, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether as many stand as were wanted, by a guard that is known to find copies."""
        return self.doubt is None and (self.wanted is None or self.accepted >= self.wanted)


def generate_guarded(
    generator: Generator,
    guard: Guard,
    out: Workspace,
    wanted: Wanted,
    *,
    settings: SamplingSettings = SamplingSettings(),
    residual_pairs: int = RESIDUAL_PAIRS,
    on_progress: Progress = lambda done, total, what: None,
) -> Release:
    """Draws until `wanted.n` images stand; candidate i is image i of the seed, as `generate` makes it.

    They are called by the order in which they stand; which candidate each one is stays in the work folder.

    Args:
      generator: the model.
      guard: of the images that it was trained on; it may hold more.
      out: for the images, `manifest.csv` and `certificate.json`; what it keeps between runs is not
        to be given away, so its work lies elsewhere.
      wanted: how many images, by which seed; not `per_record`.
      settings: how they are drawn.
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
    n, seed, image_format = wanted.n, wanted.seed, wanted.image_format
    if n < 1:
        raise ValueError(f"n {n} must be at least 1: how many images are to stand")
    budget = 10 * n if wanted.budget is None else wanted.budget
    records = generator.records_of(np.arange(budget), seed=seed)

    def draw(start: int) -> list[Offer]:
        numbers = np.arange(start, min(start + settings.batch, budget))
        made = generator.images(numbers, seed=seed, settings=settings, records=records[numbers])
        return [
            _drawn(int(i), image, image_format, guard)
            for i, image in zip(numbers, made, strict=True)
        ]

    how = {"seed": seed, "format": image_format.value}
    drawn = {**how, **{k: str(v) for k, v in dataclasses.asdict(settings).items()}}
    source = Source(generator.weights_hash, drawn, n, budget)
    run = _Run(guard, out, source, residual_pairs, prefix="gen-")
    if guard.doubt:
        return run.certified(run.nothing, {})
    residual = run.judge(range(0, budget, settings.batch), draw, on_progress)
    weights, conditioned = generator.weights_hash, generator.conditions is not None
    planned = [Planned(i, int(records[i]), name) for i, name in run.settled().items()]
    whole = generated_table.manifest_csv(planned, seed, weights, conditioned=conditioned)
    out.keep(TABLE, whole)
    rows = generated_table.manifest_to_share(planned, seed, weights)
    out.write(MANIFEST, rows, access=Access.SHARED)
    return run.certified(residual, {MANIFEST: hashlib.sha256(rows).hexdigest()})


def filter_folder(
    source: str | Path,
    guard: Guard,
    out: Workspace,
    *,
    residual_pairs: int = RESIDUAL_PAIRS,
    on_progress: Progress = lambda done, total, what: None,
) -> Release:
    """Writes anew what may leave of a folder of images, see `audit.leaving`.

    Args:
      source: folder or manifest of the images.
      guard: of the training images.
      out: for the accepted images, by number, and `certificate.json`. Its work lies elsewhere, see
        `generate_guarded`: `released.csv` says which image has which number, and `inputs.json` names what
        was not read.
      residual_pairs: at most so many are verified to measure what the search misses.
      on_progress: called with (images judged, images in all, what).

    Raises:
      InputError: the source holds no image.
      WorkspaceError: `out` lies where they are read.
    """
    manifest = read_manifest(source, role=Role.SYNTHETIC)
    out.keep_apart(manifest.elsewhere)
    records = manifest.records

    def load(start: int) -> list[Offer]:
        return [
            _offer(number, records[number], guard)
            for number in range(start, min(start + _BATCH, len(records)))
        ]

    # What the files are called and hold stays inside: guesses could be tried on a hash of it.
    listing = store.fingerprint(manifest, guard.settings.form)
    origin = Source(None, {}, None, listing=listing)
    run = _Run(guard, out, origin, residual_pairs, prefix="image-")
    if guard.doubt:
        return run.certified(run.nothing, {})
    residual = run.judge(range(0, len(records), _BATCH), load, on_progress)
    rows = [[name, records[number].image_id] for number, name in run.settled().items()]
    out.keep(TABLE, csv_bytes([["path", "source"], *rows]))
    release = run.certified(residual, {})
    out.keep(INPUTS, account_of(release, manifest).file)
    return release


def account_of(release: Release, manifest: Manifest) -> Account:
    """What became of every file of a folder that was filtered."""
    not_read = (*manifest.rejected, *release.not_read)
    return Account.of(manifest, images=release.judged - len(release.not_read), not_read=not_read)


def _drawn(number: int, image: np.ndarray, image_format: ImageFormat, guard: Guard) -> Offer:
    """Of a drawn image, judged as its file will be read; a blank one cannot be."""
    name = f"gen-{number:06d}{image_format.suffix}"
    try:
        view = View.of(image_format.as_read(image), guard.settings.form)
    except Unreadable:
        return Offer(number, name, None)
    return Offer(number, name, Leaving(image_format.encoded(image), image_format.suffix, (view,)))


def _offer(number: int, record: Record, guard: Guard) -> Offer:
    try:
        return Offer(number, record.image_id, Leaving.of(record, guard.settings.form))
    except (Unreadable, *PASSING) as error:
        return Offer(number, record.image_id, None, reason_of(error), isinstance(error, PASSING))


class _Run:
    """Batches judged so far, and what becomes of them.

    Images leave as `prefix` and a number, in the order in which they stand and without a gap: a gap would
    count what was refused, and a name of their own could be a patient's.
    """

    def __init__(
        self, guard: Guard, out: Workspace, source: Source, pairs: int, *, prefix: str
    ) -> None:
        self._guard, self._out, self._source, self._pairs = guard, out, source, pairs
        self._prefix, self._named, self._count = prefix, dict[int, str](), 0
        limits, settings = guard.limits, guard.settings
        facts = {
            "training images": certificate.training_mark(guard),
            "max_cosine": limits.max_cosine,
            "max_ssim": limits.max_ssim,
            "local evidence": limits.thresholds.local,
            "partial correlations": list(limits.thresholds.partial),
            "size": settings.size,
            "slice": settings.slice_spec,
            "subject_regex": settings.subject_regex or "",
            "encoder": encoder_hash(settings.encoder),
            "model": source.model,
            "images wanted": source.wanted,
            "residual_pairs": pairs,
            "listing": source.listing,
            **source.drawn,
            **({} if source.budget is None else {"budget": source.budget}),
        }
        out.bind("release", facts)
        self._steps = out.section("release", facts)
        self._candidates: list[Candidate] = []
        self._embeddings: list[np.ndarray] = []
        self._tested: set[str] = set()
        self._unread: list[Rejected] = []

    @property
    def nothing(self) -> Residual:
        """What is said of what the search misses where nothing was judged."""
        settings = self._guard.settings
        return Residual(settings.seed + 1, clopper_pearson(0, 0, level=settings.level))

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
        wanted = self._source.wanted
        most = None if wanted is None else wanted - len(self.standing)
        offered = functools.cache(lambda: offers(start))
        made = functools.cache(lambda: judge(offered(), self._guard, most=most))
        known, judged = self._steps.look("judged", [number, start, most], made)
        if not known and any(offer.passing for offer in offered()):
            judged = made()  # and not kept
        elif not known:
            judged = self._steps.step("judged", [number, start, most], made)
        rows = candidates(judged)
        self._unread += unread(judged)
        leaving = [row for row in rows if row.reason is None and not self._withheld(row)]
        for row in leaving:
            self._named[row.index] = self._name(self._count, row)
            self._count += 1
        # Looked at again in every run: an image that is gone or was changed is written anew.
        lacking = [row for row in leaving if not self._stands(row)]
        if lacking:
            contents = {x.index: x.leaving.content for x in offered() if x.leaving is not None}
            for row in lacking:
                content = contents.get(row.index, b"")
                if hashlib.sha256(content).hexdigest() != row.sha256:
                    raise InputError(
                        "an image is not what an earlier run judged under its name, and is not written; "
                        "give a new --out"
                    )
                self._out.write(self._named[row.index], content, access=Access.SHARED)
        self._candidates += rows
        self._embeddings.append(judged["embeddings"])

    def _name(self, place: int, row: Candidate) -> str:
        return f"{self._prefix}{place:06d}{row.suffix}"

    def _stands(self, row: Candidate) -> bool:
        name = self._named[row.index]
        return name in self._out and holds(self._out.path(name), row.sha256)

    def settled(self) -> dict[int, str]:
        """The name of each image that stands, by its candidate.

        What was withheld after others had their numbers leaves gaps, which the next ones fill: in their
        order, so that no file is replaced before it has its new name.
        """
        for place, row in enumerate(self.standing):
            old, new = self._named[row.index], self._name(place, row)
            if new != old:
                self._out.write(new, self._out.path(old).read_bytes(), access=Access.SHARED)
                self._named[row.index] = new
        return {row.index: self._named[row.index] for row in self.standing}

    def _withheld(self, row: Candidate) -> bool:
        """Whether an earlier run has found this image to be a copy, without any search."""
        known, score = self._steps.look("exhaustive", row.sha256, self._guard.exhaustive)
        return known and score >= self._guard.limits.max_ssim

    def _withhold(self, names: Sequence[str], on_progress: Progress) -> int:
        """Verifies images against every training image; deletes the copies and says how many."""
        rows = {c.name: c for c in self.standing}
        limit, missed = self._guard.limits.max_ssim, set()
        for number, name in enumerate(names, start=1):
            if self._verified(rows[name]) >= limit:
                missed.add(name)
                if there := self._named.pop(rows[name].index, None):
                    self._out.remove(there)
            on_progress(number, len(names), "verifying against every training image")
        self._tested.update(names)
        self._candidates = [
            dataclasses.replace(c, reason=Reason.EXHAUSTIVE, sha256="") if c.name in missed else c
            for c in self._candidates
        ]
        return len(missed)

    def _verified(self, row: Candidate) -> float:
        known, score = self._steps.look("exhaustive", row.sha256, self._guard.exhaustive)
        if known:
            return score
        record = Record(row.name, self._out.path(self._named[row.index]))
        views = Leaving.of(record, self._guard.settings.form).views
        exhaustive = functools.partial(self._guard.exhaustive, [view.square for view in views])
        return self._steps.step("exhaustive", row.sha256, exhaustive)

    def certified(self, residual: Residual, files: Mapping[str, str]) -> Release:
        """Writes the certificate; `files` are hashes of other files of the folder.

        What an earlier run accepted and this one does not, of other code say, is deleted.
        """
        self._out.remove_others({*self._named.values(), *files, certificate.NAME})
        certificate.certify(
            self._guard,
            certificate.Screened(
                candidates=self._candidates,
                embeddings=np.concatenate([self._guard.side.embeddings[:0], *self._embeddings]),
                residual=residual,
                tested=self._tested,
                names=self._named,
            ),
            folder=self._out,
            source=self._source,
            files=files,
        )
        self._out.prune()
        return Release(
            len(self.standing),
            len(self._candidates),
            certificate.rejected(self._candidates),
            self._source.wanted,
            residual,
            self._guard.limits.thresholds,
            self._guard.doubt,
            tuple(self._unread),
        )
