"""The main job: two folders of images in, a verdict with pictures, tables and error bars out.

Every stage leaves its work in the workspace `out`, keyed by what it was computed from, so a killed
audit goes on where it was and a changed input is never mixed with old work. The files outside of
`work` hold no time and no random number: the same input gives the same bytes.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from deepssim_jax import parallel
from deepssim_jax.audit import calibration, called, doubles, membership, outputs
from deepssim_jax.audit.assess import AuditSet, Measured, conclude
from deepssim_jax.audit.audit_settings import AuditSettings
from deepssim_jax.audit.control import HeldOut, search_holdout
from deepssim_jax.audit.gallery import build_gallery
from deepssim_jax.audit.generation import Generator
from deepssim_jax.audit.holdout import refuse_same_files
from deepssim_jax.audit.inputs import (
    folders,
    list_sides,
    networks,
    remove_reviews,
    remove_stale_reviews,
)
from deepssim_jax.audit.result import AuditResult
from deepssim_jax.data import store
from deepssim_jax.data.forgetting import said_before
from deepssim_jax.data.manifest import InputError, Manifest, Role
from deepssim_jax.data.sheet_records import with_fields, with_sheets_noted
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.ops import arguments
from deepssim_jax.scoring import points
from deepssim_jax.scoring.embed import build_side
from deepssim_jax.scoring.evidence import false_discovery_cut
from deepssim_jax.scoring.match import Progress, match
from deepssim_jax.scoring.retrieval import Proposals
from deepssim_jax.workspace import Overlap, Section, Workspace

COMMAND = "audit"


def audit(
    real: str | Path,
    synthetic: str | Path,
    *,
    holdout: str | Path | None = None,
    model: str | Path | None = None,
    out: str | Path | None = None,
    settings: AuditSettings = AuditSettings(),
    on_progress: Progress = lambda done, total, what: None,
) -> AuditResult:
    """Finds the synthetic images that are copies of a real one.

    Args:
      real: folder, manifest, BIDS root or reference layout of the training images.
      synthetic: the images to judge, likewise.
      holdout: real images that the model never saw; the same search against them is the control.
      model: workdir of the finished `train_ldm` that made the synthetic images; attacks on its
        weights then say what they give away of who was trained on.
      out: directory for the report and tables; None writes nothing that stays.
      settings: see `AuditSettings`.
      on_progress: called with (done, total, what) as the work goes on.

    Returns:
      The result; with `out`, the files listed in design.md lie there too.

    Raises:
      InputError: a folder is missing or holds no readable image, both hold the same files, or held-out
        images are real ones.
      ValueError: a setting cannot work, a folder lies in another, or `model` is no finished training.

    Examples:
      >>> import tempfile
      >>> import deepssim_jax as ds
      >>> from deepssim_jax import testing
      >>> settings = ds.AuditSettings(size=64, plant=0)
      >>> with tempfile.TemporaryDirectory() as work:
      ...     made = testing.planted_copies(work, real=4, edits=["left to right"], unrelated=2)
      ...     result = ds.audit(made.real, made.synthetic, settings=settings)
      >>> result.verdict.value, result.copy_rate.count, result.copy_rate.total
      ('copies_found', 1, 3)
      >>> [(match.synthetic_id, match.real_id) for match in result.pairs]
      [('c0000.png', 'p0000.png')]
    """
    given = {"real": real, "synthetic": synthetic, "holdout": holdout}
    for name, path in given.items():
        if name != "holdout" or path is not None:
            arguments.path(path, name, "a folder of images, or a manifest")
    if model is not None:
        arguments.path(model, "model", "the workdir of a finished train_ldm")
    if out is not None:
        arguments.path(out, "out", "a folder for the report")
    arguments.progress(on_progress)
    arguments.instance(settings, "settings", AuditSettings, remedy="it has all defaults")
    roots = {Role.REAL: real, Role.SYNTHETIC: synthetic}
    if holdout is not None:
        roots[Role.HOLDOUT] = holdout
    if out is None:
        with Workspace.temporary(command=COMMAND) as workspace:
            return _audit(roots, model, workspace, settings, on_progress)
    opened = Workspace.open(
        out,
        command=COMMAND,
        inputs=folders(roots),
        reads=networks(model, settings.encoder),
        overlap=Overlap.ALLOWED if settings.allow_same else Overlap.REFUSED,
        processes=parallel.processes(),
    )
    with opened as workspace:
        return _audit(roots, model, workspace, settings, on_progress)


def _audit(
    roots: Mapping[Role, str | Path],
    model: str | Path | None,
    out: Workspace,
    settings: AuditSettings,
    on_progress: Progress,
) -> AuditResult:
    manifests = list_sides(roots, out, settings)
    attacked = None if model is None else _attacked(model)
    # What the attacks need is missed here, and not after hours of work.
    attack_id = None if attacked is None else membership.fingerprint(attacked)
    job = _Job(out, settings, on_progress, encoders.encoder_hash(settings.encoder))
    sets = job.sets(manifests)
    found = job.measure(sets)
    if attacked is not None and attack_id is not None:
        inferred = membership.infer_membership(
            attacked,
            audited=sets[Role.REAL].images.sha256,
            journal=out.section("membership", attack_id),
            seed=settings.seed,
            level=settings.level,
            on_progress=on_progress,
        )
        found = dataclasses.replace(found, inferred=inferred)
    result = conclude(found, settings)
    stores = {role: one.images for role, one in sets.items()}

    def write() -> None:
        explain_by = job.encoder() if settings.explain else None
        gallery = build_gallery(
            result, found.pairs, stores[Role.REAL], stores[Role.SYNTHETIC], explain_by=explain_by
        )
        listed = {role: one.manifest for role, one in sets.items()}
        outputs.write_all(result, gallery, out, manifests=listed, stores=stores)
        remove_reviews(out)
        remove_stale_reviews(out, "nearest.csv")

    out.by_first(write)
    out.prune()
    before = said_before(sum(manifest.left_out_before for manifest in manifests.values()))
    return dataclasses.replace(result, notes=(*result.notes, *before))


def _attacked(model: str | Path) -> Generator:
    try:
        return Generator.load(model)
    except ValueError as error:
        raise ValueError(f"--model: {error}") from error


_ONE_PATIENT = (
    "--subject_regex makes one patient of all real images, those with the same picture in it taken "
    "together; give one whose first group is the patient"
)
_SAME = (
    "--real and --synthetic hold the same files: every image would be found to be a copy of itself. "
    "Did you mean another folder? If this is intended, add --allow_same"
)


@dataclasses.dataclass(frozen=True)
class _Job:
    """An audit's stages; each keeps its work in `out`."""

    out: Workspace
    settings: AuditSettings
    on_progress: Progress
    encoder_id: str

    @functools.cached_property
    def encoder(self) -> Callable[[], encoders.Encoder]:
        """Loads the encoder when it is first needed."""
        return functools.cache(lambda: encoders.load_encoder(self.settings.encoder))

    def journal(self, what: str) -> Section:
        """Where a stage that depends on the encoder keeps its work."""
        return self.out.section(what, self.encoder_id)

    def sets(self, manifests: Mapping[Role, Manifest]) -> dict[Role, AuditSet]:
        """Reads every side; on the real one, images that are copies of each other are one patient's.

        Raises:
          InputError: a side holds no readable image, or two sides hold the same files.
        """
        sets = {role: self._read(manifest) for role, manifest in manifests.items()}
        real, synthetic = sets[Role.REAL], sets[Role.SYNTHETIC]
        if set(real.images.sha256) == set(synthetic.images.sha256) and not self.settings.allow_same:
            raise InputError(_SAME)
        if Role.HOLDOUT in sets:
            refuse_same_files(real.images, sets[Role.HOLDOUT].images)
        found = doubles.find_doubles(
            real.side,
            real.images,
            journal=self.out.section("doubles", real.images.fingerprint),
            on_progress=self.on_progress,
        )
        if self.settings.subject_regex and len(real.side) > 1 and len(set(found.subjects)) == 1:
            raise InputError(_ONE_PATIENT)
        side = dataclasses.replace(real.side, groups=found.subjects)
        listed = found.rows(real.images)
        return sets | {Role.REAL: dataclasses.replace(real, side=side, doubles=listed)}

    def _read(self, manifest: Manifest) -> AuditSet:
        role, settings = manifest.role.value, self.settings
        side, images = build_side(
            manifest,
            self.out,
            settings=store.InputSettings(
                size=(settings.size, settings.size),
                slice=settings.slice_spec,
                canvas=points.SIDE,
                sheets=True,
            ),
            encoder=self.encoder,
            encoder_id=self.encoder_id,
            on_progress=self.on_progress,
            what=manifest.reading(f"reading {role}"),
        )
        if not len(images):
            first = images.rejected[0].reason if images.rejected else "it is empty"
            raise InputError(
                f"--{role}: none of its {len(manifest.records)} images could be read; the first "
                f"reason: {first}"
            )
        boxes = images.fields()
        if boxes and manifest.role is not Role.SYNTHETIC:
            manifest = with_sheets_noted(manifest, len(boxes))
        elif boxes and not any(record.box for record in manifest.records):
            named = {images.image_ids[row]: found for row, found in boxes.items()}
            return self._read(with_fields(manifest, named))
        return AuditSet(manifest, side, images)

    def measure(self, sets: Mapping[Role, AuditSet]) -> Measured:
        """Searches the synthetic images, the controls and the held-out images among the real ones."""
        real, synthetic = sets[Role.REAL].side, sets[Role.SYNTHETIC].side
        retrieval = self.settings.retrieval.resolved(
            pairs=len(real) * len(synthetic), local_features=True
        )
        # First, so that held-out images that are real ones are refused before the long search.
        held_out = None
        if Role.HOLDOUT in sets:
            held_out = self._held_out(sets, retrieval.proposals)
        pairs = match(
            synthetic,
            real,
            journal=self.journal("search"),
            proposals=retrieval.proposals,
            on_progress=self.on_progress,
            what="synthetic with real",
        )
        usual = calibration.calibrate_on_real(
            real,
            self.encoder,
            journal=self.journal("calibration"),
            settings=calibration.CalibrationSettings(
                seed=self.settings.seed,
                level=self.settings.level,
                planted=self.settings.plant,
                proposals=retrieval.proposals,
            ),
            on_progress=self.on_progress,
        )
        pairs = usual.kinds.levelled(pairs, real.embeddings)
        trial = calibration.Trial.of(pairs, len(synthetic))
        p_values, originals = usual.p_values(trial), sets[Role.REAL].originals
        counted = np.ones(len(p_values), bool)
        # Again without look-alikes of one image: so many discoveries would make the others lenient.
        for _ in range(2):
            evidence = usual.at(false_discovery_cut(p_values[counted]))
            kept, copy, other = called.called(pairs, evidence.thresholds)
            confirmed = called.confirmed(pairs, evidence.thresholds, originals, kept)
            alike = called.look_alikes(kept, copy, confirmed, originals)
            if not len(alike):
                break
            counted[alike] = False
        return Measured(
            sets=sets,
            pairs=kept,
            copy=copy,
            other_image=other,
            confirmed=confirmed,
            trial=trial,
            evidence=evidence,
            usual=usual,
            control=None if held_out is None else held_out.control(usual.kinds),
            retrieval=retrieval,
        )

    def _held_out(self, sets: Mapping[Role, AuditSet], proposals: Proposals) -> HeldOut:
        known = set(sets[Role.REAL].images.subject_ids) - {None}
        held_out = sets[Role.HOLDOUT]
        return search_holdout(
            held_out.side,
            sets[Role.REAL].side,
            sets[Role.SYNTHETIC].side,
            apart=[subject not in known for subject in held_out.images.subject_ids],
            journals=(self.journal("control"), self.journal("holdout")),
            proposals=proposals,
            on_progress=self.on_progress,
        )
