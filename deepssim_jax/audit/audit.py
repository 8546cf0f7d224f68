"""The main job: two folders of images in, a verdict with pictures, tables and error bars out.

Every stage leaves its work in the workspace `out`, keyed by what it was computed from, so a killed
audit goes on where it was and a changed input is never mixed with old work. The files outside of
`work` hold no time and no random number: the same input gives the same bytes.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path

from deepssim_jax import parallel
from deepssim_jax.audit import calibration, doubles, membership, outputs
from deepssim_jax.audit.assess import AuditSet, conclude
from deepssim_jax.audit.audit_settings import AuditSettings
from deepssim_jax.audit.control import search_holdout
from deepssim_jax.audit.gallery import build_gallery
from deepssim_jax.audit.generation import Generator
from deepssim_jax.audit.holdout import refuse_same_files
from deepssim_jax.audit.inputs import folders, list_sides, networks, remove_reviews
from deepssim_jax.audit.result import AuditResult
from deepssim_jax.data import store
from deepssim_jax.data.manifest import InputError, Manifest, Role
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.ops import arguments
from deepssim_jax.scoring import points
from deepssim_jax.scoring.embed import build_side
from deepssim_jax.scoring.evidence import false_discovery_cut
from deepssim_jax.scoring.match import Progress, match
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
    manifests = list_sides(roots, settings)
    attacked = None if model is None else Generator.load(model)
    attack_id = None if attacked is None else membership.fingerprint(attacked)
    encoder_id = encoders.encoder_hash(settings.encoder)
    encoder = functools.cache(lambda: encoders.load_encoder(settings.encoder))
    sets = {
        role: _read(manifest, out, settings, encoder, encoder_id, on_progress)
        for role, manifest in manifests.items()
    }
    real_set, synthetic_set = sets[Role.REAL], sets[Role.SYNTHETIC]
    files = [set(one.images.sha256) for one in (real_set, synthetic_set)]
    if files[0] == files[1] and not settings.allow_same:
        raise InputError(_SAME)

    if (holdout_set := sets.get(Role.HOLDOUT)) is not None:
        refuse_same_files(real_set.images, holdout_set.images)
    found_doubles = doubles.find_doubles(
        real_set.side,
        real_set.images,
        journal=out.section("doubles", real_set.images.fingerprint),
        on_progress=on_progress,
    )
    grouped = dataclasses.replace(real_set.side, groups=found_doubles.subjects)
    listed = found_doubles.rows(real_set.images)
    real_set = sets[Role.REAL] = dataclasses.replace(real_set, side=grouped, doubles=listed)
    retrieval = settings.retrieval.resolved(
        pairs=len(real_set.side) * len(synthetic_set.side), local_features=True
    )

    def journal(what: str) -> Section:
        return out.section(what, encoder_id)

    pairs = match(
        synthetic_set.side,
        real_set.side,
        journal=journal("search"),
        proposals=retrieval.proposals,
        on_progress=on_progress,
        what="synthetic with real",
    )
    calibrated = calibration.calibrate_on_real(
        real_set.side,
        encoder,
        journal=journal("calibration"),
        seed=settings.seed,
        level=settings.level,
        planted=settings.plant,
        proposals=retrieval.proposals,
        on_progress=on_progress,
    )
    trial = calibration.Trial.of(pairs, len(synthetic_set.side))
    evidence = calibrated.at(false_discovery_cut(calibrated.p_values(trial)))
    pairs, copy = calibration.called(pairs, evidence.thresholds)
    control = None
    if holdout_set is not None:
        controls = journal("control"), journal("holdout")
        known = set(real_set.images.subject_ids) - {None}
        control = search_holdout(
            holdout_set.side,
            real_set.side,
            synthetic_set.side,
            apart=[subject not in known for subject in holdout_set.images.subject_ids],
            journals=controls,
            proposals=retrieval.proposals,
            on_progress=on_progress,
        )
    inferred = None
    if attacked and attack_id:
        inferred = membership.infer_membership(
            attacked,
            audited=real_set.images.sha256,
            journal=out.section("membership", attack_id),
            seed=settings.seed,
            level=settings.level,
            on_progress=on_progress,
        )
    result = conclude(
        sets, pairs, copy, (evidence, calibrated), control, settings, retrieval, inferred
    )
    stores = {role: one.images for role, one in sets.items()}

    def write() -> None:
        explain_by = encoder() if settings.explain else None
        gallery = build_gallery(
            result, pairs, real_set.images, synthetic_set.images, explain_by=explain_by
        )
        outputs.write_all(result, gallery, out, manifests=manifests, stores=stores)
        if settings.forget:
            remove_reviews(out)

    out.by_first(write)
    out.prune()
    return result


_SAME = (
    "--real and --synthetic hold the same files: every image would be found to be a copy of itself. "
    "Did you mean another folder? If this is intended, add --allow_same"
)


def _read(
    manifest: Manifest,
    workspace: Workspace,
    settings: AuditSettings,
    encoder: Callable[[], encoders.Encoder],
    encoder_id: str,
    on_progress: Progress,
) -> AuditSet:
    role = manifest.role.value
    side, images = build_side(
        manifest,
        workspace,
        settings=store.InputSettings(
            size=(settings.size, settings.size), slice=settings.slice_spec, canvas=points.SIDE
        ),
        encoder=encoder,
        encoder_id=encoder_id,
        on_progress=on_progress,
        what=f"reading {role}",
    )
    if not len(images):
        first = images.rejected[0].reason if images.rejected else "it is empty"
        raise InputError(
            f"--{role}: none of its {len(manifest.records)} images could be read; the first "
            f"reason: {first}"
        )
    return AuditSet(manifest, side, images)
