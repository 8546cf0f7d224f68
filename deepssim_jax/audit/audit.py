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

from deepssim_jax.audit import calibration, conclusion, membership, outputs, planting
from deepssim_jax.audit.control import Control, search_holdout
from deepssim_jax.audit.disclosure import Edition
from deepssim_jax.audit.gallery import build_gallery
from deepssim_jax.audit.generation import Generator
from deepssim_jax.audit.inputs import file_counts, file_notes, folders, list_sides, networks
from deepssim_jax.audit.result import (
    AuditResult,
    Exclusion,
    Label,
    Match,
    Membership,
    PlantedRecall,
    Thresholds,
)
from deepssim_jax.data import store
from deepssim_jax.data.manifest import InputError, Manifest, Role
from deepssim_jax.data.manifest import check_subject_regex as check_regex
from deepssim_jax.data.records import ArrayLayout, Links
from deepssim_jax.data.volume import SliceSpec
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.ops import arguments
from deepssim_jax.ops.transform import FLIP_NAMES
from deepssim_jax.scoring import decide
from deepssim_jax.scoring.embed import build_side, check_size
from deepssim_jax.scoring.match import Progress, Retrieval, Side, best_matches, match
from deepssim_jax.workspace import Overlap, Section, Workspace


@dataclasses.dataclass(frozen=True)
class AuditSettings:
    """What a user may choose; every field is echoed in the report.

    `size` is the side in pixels that every image is brought to (a multiple of 32), `slice_spec`
    the slice taken of volumes, `retrieval` the search for candidates, `level` the coverage of
    intervals, `seed` that of the calibration. `explain` shows what the encoder saw in the gallery.
    `plant` copies of the real images are made in memory, to say what would have been found. `links`
    and `arrays` are how folders and NumPy arrays are read.
    """

    size: int = 128
    slice_spec: str = "axial:0.5"
    subject_regex: str | None = None
    encoder: str = "default"
    retrieval: Retrieval = Retrieval.AUTO
    level: float = 0.95
    seed: int = 0
    allow_same: bool = False
    explain: bool = False
    plant: int = 0
    links: Links = Links.INSIDE
    arrays: ArrayLayout = ArrayLayout.IMAGES

    def __post_init__(self) -> None:
        """Raises ValueError for values that cannot work."""
        check_size(self.size)
        SliceSpec.parse(self.slice_spec)
        check_regex(self.subject_regex)
        arguments.instance(self.encoder, "encoder", str, remedy="'default' or a path")
        arguments.member(self.retrieval, "retrieval", Retrieval)
        arguments.number(self.level, "level", low=0.5, high=1, open_high=True, example=0.95)
        arguments.whole(self.seed, "seed", least=0)
        arguments.whole(self.plant, "plant", least=0)
        arguments.member(self.links, "links", Links)
        arguments.member(self.arrays, "arrays", ArrayLayout)


COMMAND = "audit"


@dataclasses.dataclass(frozen=True)
class _Set:
    """One folder, read and embedded."""

    manifest: Manifest
    side: Side
    images: store.ImageStore


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
      InputError: a folder is missing or holds no readable image, or both hold the same files.
      ValueError: a setting cannot work, a folder lies in another, or `model` is no finished training.
    """
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

    retrieval = settings.retrieval.resolved(pairs=len(real_set.side) * len(synthetic_set.side))

    def journal(what: str, *others: _Set) -> Section:
        return out.section(what, encoder_id, [s.images.fingerprint for s in others])

    pairs = match(
        synthetic_set.side,
        real_set.side,
        journal=journal("search", real_set, synthetic_set),
        proposals=retrieval.proposals,
        on_progress=on_progress,
        what="synthetic with real",
    )
    evidence = calibration.calibrate_on_real(
        real_set.side,
        encoder,
        journal=journal("calibration", real_set),
        seed=settings.seed,
        level=settings.level,
        proposals=retrieval.proposals,
        on_progress=on_progress,
    )
    control = None
    if (holdout_set := sets.get(Role.HOLDOUT)) is not None:
        everything = (real_set, synthetic_set, holdout_set)
        controls = (journal("control", *everything), journal("holdout", *everything))
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
    planted: tuple[PlantedRecall, ...] = ()
    if settings.plant:
        planted = planting.recall_by_change(
            real_set.side,
            encoder,
            count=settings.plant,
            near=evidence.thresholds.near,
            journal=journal("recall", real_set),
            seed=settings.seed,
            level=settings.level,
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
    result = _conclude(sets, pairs, evidence, control, settings, retrieval, inferred)
    result = dataclasses.replace(result, planted=planted)
    gallery = build_gallery(
        result,
        pairs,
        real_set.images,
        synthetic_set.images,
        explain_by=encoder() if settings.explain else None,
    )
    outputs.write_all(
        result, gallery, out, manifests=manifests, stores={r: s.images for r, s in sets.items()}
    )
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
) -> _Set:
    role = manifest.role.value
    side, images = build_side(
        manifest,
        workspace,
        settings=store.InputSettings(
            size=(settings.size, settings.size), slice=settings.slice_spec
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
    return _Set(manifest, side, images)


def _label(score: float, thresholds: Thresholds) -> Label:
    if score >= thresholds.exact:
        return Label.EXACT
    return Label.NEAR if score >= thresholds.near else Label.UNRELATED


def _conclude(
    sets: dict[Role, _Set],
    pairs: np.ndarray,
    evidence: calibration.Evidence,
    control: Control | None,
    settings: AuditSettings,
    retrieval: Retrieval,
    inferred: Membership | None,
) -> AuditResult:
    real, synthetic = sets[Role.REAL].images, sets[Role.SYNTHETIC].images
    thresholds, level = evidence.thresholds, settings.level
    best = best_matches(pairs, len(synthetic))
    p_values = q_values = discoveries = None
    if control is not None and len(control.holdout_to_real):
        p_values = decide.conformal_p_values(best["verified"], control.holdout_to_real)
        q_values = decide.benjamini_hochberg(p_values)
        discoveries = decide.discoveries(p_values, holdout=len(control.holdout_to_real))

    def to_match(row: np.void) -> Match:
        query, reference = int(row["query"]), int(row["reference"])
        return Match(
            synthetic_id=synthetic.image_ids[query],
            real_id=real.image_ids[reference],
            subject_id=real.subject_ids[reference],
            embedding_score=float(row["embedding"]),
            verified_score=float(row["verified"]),
            label=_label(float(row["verified"]), thresholds),
            p_value=None if p_values is None else float(p_values[query]),
            q_value=None if q_values is None else float(q_values[query]),
            flip=FLIP_NAMES[int(row["flip"])],
            rotation_deg=float(row["rotation_deg"]),
            shift_y=float(row["shift_y"]),
            shift_x=float(row["shift_x"]),
            scale=float(row["scale"]),
        )

    nearest = tuple(to_match(row) for row in best)
    flagged = pairs[pairs["verified"] >= thresholds.near]
    flagged = flagged[np.lexsort((flagged["reference"], flagged["query"], -flagged["verified"]))]
    copies = int((best["verified"] >= thresholds.near).sum())
    classes = {label.value: sum(m.label is label for m in nearest) for label in Label}
    names = [
        s if s is not None else i for s, i in zip(real.subject_ids, real.image_ids, strict=True)
    ]
    exposed = {names[row] for row in flagged["reference"]}
    # An image exposes the patient that it copies best; a second one is as a rule the same person.
    first = [names[row] for row in best["reference"][best["verified"] >= thresholds.near]]
    times = np.unique(first, return_counts=True)[1]
    hits = best["verified"] >= thresholds.near
    owners = np.unique([names[row] for row in best["reference"]], return_inverse=True)[1]
    by_patient = decide.clustered_interval(hits, owners, level=level, seed=settings.seed)
    distributions = {"synthetic_to_real": best["verified"], "real_to_real": evidence.null_scores}
    rates = {}
    for name in ("holdout_to_real", "synthetic_to_holdout") if control is not None else ():
        scores = getattr(control, name)
        if not len(scores):  # every held-out image is of a patient of the real side
            continue
        distributions[name] = scores
        hits = int((scores >= thresholds.near).sum())
        rates[name] = decide.clopper_pearson(hits, len(scores), level=level)
    holdout_rate = rates.get("holdout_to_real")
    manifests = {role: one.manifest for role, one in sets.items()}
    exclusions = tuple(
        Exclusion(role.value, item.image_id, item.reason)
        for role, one in sets.items()
        for item in one.images.rejected
    )
    counts = {
        "real": len(real),
        "synthetic": len(synthetic),
        "holdout": len(sets[Role.HOLDOUT].images) if Role.HOLDOUT in sets else 0,
        "unreadable_real": len(real.rejected),
        "unreadable_synthetic": len(synthetic.rejected),
        **file_counts(manifests),
    }
    copy_rate = decide.clopper_pearson(copies, len(synthetic), level=level)
    numbers = (counts, classes, copy_rate, holdout_rate, evidence)
    verdict, reasons = conclusion.verdict(*numbers)
    _, reasons_to_share = conclusion.verdict(*numbers, edition=Edition.SHARED)
    return AuditResult(
        verdict=verdict,
        reasons=reasons,
        reasons_to_share=reasons_to_share,
        counts=counts,
        thresholds=thresholds,
        classes=classes,
        copy_rate=copy_rate,
        holdout_rate=holdout_rate,
        synthetic_to_holdout_rate=rates.get("synthetic_to_holdout"),
        subjects_exposed=len(exposed),
        subjects_total=len(set(names)),
        subjects_known=all(s is not None for s in real.subject_ids),
        nearest=nearest,
        pairs=tuple(to_match(row) for row in flagged),
        distributions=distributions,
        exclusions=exclusions,
        notes=conclusion.notes(
            settings.size,
            settings.slice_spec,
            retrieval,
            left_out=0 if control is None else control.left_out,
            attacked=inferred is not None and bool(inferred.figures),
        )
        + file_notes(manifests),
        settings={
            "size": settings.size,
            "slice": settings.slice_spec,
            "subject_regex": settings.subject_regex or "",
            "encoder": settings.encoder if settings.encoder == "default" else "custom",
            "retrieval": retrieval.value,
            "level": settings.level,
            "explain": settings.explain,
            "plant": settings.plant,
            "links": settings.links.value,
            "arrays": settings.arrays.value,
            "model": "" if inferred is None else inferred.weights,
            "seed": settings.seed,
        },
        versions=outputs.versions(settings.encoder),
        discoveries=discoveries,
        exposure=decide.exposure(times, len(synthetic)),
        copy_rate_by_patient=by_patient if copies else None,
        membership=inferred,
    )
