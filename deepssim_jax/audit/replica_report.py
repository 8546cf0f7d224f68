"""The report on volumes, in two editions; the contract is that of `audit.page`.

Pictures are those of `replica_pictures`; a row of radio buttons goes through the slices, without a script.
"""

import collections
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from deepssim_jax.audit import figures, page, sentences
from deepssim_jax.audit.answer import FEW_FOUND, Answer, tone_of
from deepssim_jax.audit.box_plot import box_plot
from deepssim_jax.audit.disclosure import Edition, is_small, is_telling
from deepssim_jax.audit.replica_calibration import BEHIND, TIMES_FALSE
from deepssim_jax.audit.replica_pictures import FRAMES, Picture, flagged, shown_level
from deepssim_jax.audit.replica_result import Kind, RatingSummary, ReplicaResult, VolumeMatch
from deepssim_jax.audit.replica_trials import EACH_EDIT
from deepssim_jax.scoring.decide import Proportion
from deepssim_jax.scoring.volume_measure import DECIDING
from deepssim_jax.scoring.volume_search import Level
from deepssim_jax.workspace import Workspace

_MAX_LISTED, _MAX_EXPOSED = 200, 12
KIND_WORDS = {
    Kind.REPLICA: "replica",
    Kind.SAME_PERSON: "same person",
    Kind.DIFFERENT: "different",
}
MEASURE_WORDS = {
    "points": "keypoints that agree",
    "exact": "share of them in their exact place",
    "share": "share of the volume's own keypoints",
    "structure": "agreement of structure",
    "body_ncc": "correlation in the body",
    "ncc": "correlation (NCC)",
    "ssim": "SSIM 3D",
    "mutual_information": "mutual information",
    "psnr": "PSNR",
    "rmse": "RMSE",
    "mae": "MAE",
    "cosine": "cosine",
    "dice": "Dice",
    "hausdorff95": "Hausdorff 95 %",
    "volume_difference": "volume difference",
    "centre_distance": "centre distance",
}


def kinds_at(result: ReplicaResult, level: Level) -> dict[str, int]:
    """How many synthetic volumes one level calls what."""
    found = [m.levels[level].kind for m in result.matches if level in m.levels]
    return {kind.value: found.count(kind) for kind in Kind}


def repeat_kinds(result: ReplicaResult, level: Level) -> dict[Kind, int]:
    """What one level calls the pairs of scans of one patient."""
    found = [r.kinds[level] for r in result.repeats if level in r.kinds]
    return {kind: found.count(kind) for kind in Kind}


def write_reports(
    result: ReplicaResult, gallery: Sequence[Picture], out: Workspace, *, salt: bytes
) -> None:
    """Writes both editions, as `report.write_reports` does; `gallery` is of `replica_pictures`."""
    page.write_editions(
        out,
        lambda edition: _render(
            result, gallery if edition is Edition.INTERNAL else (), edition=edition, salt=salt
        ),
    )


def _render(
    result: ReplicaResult, gallery: Sequence[Picture], *, edition: Edition, salt: bytes
) -> str:
    share, count = edition is Edition.SHARED, edition.count
    exposed = page.most_copied(_exposed(result), edition, salt)
    counting = {at: found for at, found in result.thresholds.items() if found.counts}
    return page.render(
        "replicas",
        result=result,
        share=share,
        answer=answer(result, edition),
        count=count,
        proportion=edition.proportion,
        levels=[_level(result, level, share=share) for level in result.thresholds],
        gallery=[_shown(item) for item in gallery],
        frames=FRAMES,
        each=EACH_EDIT,
        behind=BEHIND,
        times_false=TIMES_FALSE,
        any_flagged=bool(flagged(result)),
        more=max(0, len(flagged(result)) - len(gallery)),
        said={} if share else _table(result),
        notes=result.notes_to_share if share else result.notes,
        repeats=_repeats(result, share=share),
        ratings=[] if share else _ratings(result),
        roc=None if result.ratings is None else _roc(result.ratings),
        exposed=exposed[:_MAX_EXPOSED],
        more_exposed=max(0, len(exposed) - _MAX_EXPOSED),
        default_law=not all(found.calibrated for found in counting.values()),
        blind=[at.value for at, found in counting.items() if not found.tells],
        excluded=page.excluded_files(result.exclusions, edition),
        doubtful=[] if share else page.excluded_files(result.two_spacings, edition),
        without_labels=[] if share else page.excluded_files(result.without_labels, edition),
    )


def answer(result: ReplicaResult, edition: Edition) -> Answer:
    """The verdict, why, and the numbers of the first line."""
    n, count = result.counts, edition.count
    tone = tone_of(result.assessment, edition)
    return Answer(
        tone=tone,
        title={
            FEW_FOUND: "A few volumes look like replicas",
            "copies_found": "Replicas found",
            "none_found_within_limits": "No replica found within these limits",
            "inconclusive": "Inconclusive",
        }[tone],
        sentences=(
            _headline(result, edition),
            *sentences.reasons(result.assessment.reasons, words=sentences.VOLUMES, edition=edition),
        ),
        facts=(
            (count(n["synthetic"]), "synthetic volumes tested"),
            (count(n["real"]), "real volumes compared with"),
            (count(n["replicas"]), "replicas"),
            (count(n["same_person"]), "like a second scan of a patient"),
            (count(n["disputed"]), "on which levels that count disagree"),
        ),
    )


def _headline(result: ReplicaResult, edition: Edition) -> str:
    n, rate, count = result.counts, result.rate, edition.count
    counting = [level.value for level, found in result.thresholds.items() if found.counts]
    levels = f"by {' and '.join(counting)}"
    said = f"Of {count(n['synthetic'])} synthetic volumes, {count(n['replicas'])}"
    if edition.shows(n["replicas"], n["synthetic"]):
        said += f" ({rate.value:.1%}, {rate.level:.0%} interval {rate.low:.1%} to {rate.high:.1%})"
    few = tone_of(result.assessment, edition) == FEW_FOUND
    do = "look like replicas of" if few else "replicate"
    said += f" {do} one of {count(n['real'])} real ones ({levels})."
    if not edition.shows(n["replicas"]):
        said += f" {sentences.FEW}"
    if n["disputed"]:
        said += f" For {count(n['disputed'])} of them the levels that count do not agree."
    return said


def _level(result: ReplicaResult, level: Level, *, share: bool) -> dict[str, object]:
    found = result.thresholds[level]
    scores = [m.levels[level].score for m in result.matches if level in m.levels]
    shown = {
        "synthetic_to_real": np.array(scores),
        "real_to_real": found.null,
        "same_patient": found.repeats,
        "planted": found.planted[np.isfinite(found.planted)],
    }
    shown = {name: values for name, values in shown.items() if len(values)}
    kinds = kinds_at(result, level)
    hidden = share and any(is_small(n) for n in kinds.values())
    # Both shares follow from the threshold: what one tells of the volumes would tell the other.
    few = share and is_small(result.counts["replicas"])
    secret = few or share and (is_telling(found.recall) or is_telling(found.false_rate))
    return {
        "name": level.value,
        "measure": MEASURE_WORDS[DECIDING[level]],
        "thresholds": found,
        "shares_hidden": secret,
        # It is the stricter, the fewer replicas there are.
        "replica_from": "not shown" if few else f"{found.replica:.3f}",
        "edits": ""
        if share
        else ", ".join(f"{name} {number}" for name, number in found.recall_by_edit.items()),
        "kinds": {
            KIND_WORDS[Kind(name)]: "not shown" if hidden else f"{n:,}" for name, n in kinds.items()
        },
        "figure": None
        if share or not scores
        else box_plot(
            {figures.SERIES[name][0]: values for name, values in shown.items()},
            words=f"evidence of the best match, from its {MEASURE_WORDS[DECIDING[level]]}",
            digits=2,
        ),
    }


def _shown(item: Picture) -> dict[str, object]:
    return {
        "match": item.match,
        "found": item.match.levels[item.level],
        "replica": item.match.kind is Kind.REPLICA,
        "tag": KIND_WORDS[item.match.kind] if not item.match.disputed else "disputed",
        "inverted": item.inverted,
        "frames": [page.data_uri(frame, lossy=True) for frame in item.frames],
    }


def _table(result: ReplicaResult) -> dict[str, list[dict[str, object]]]:
    """Rows of the table of what each level says: those to look at, disputed first, and the others."""
    first = sorted(flagged(result), key=lambda m: (not m.disputed, m.synthetic_id))
    names = {m.synthetic_id for m in first}
    others = [m for m in result.matches if m.synthetic_id not in names]
    found = {"to look at": first, "others": others}
    return {name: [_row(m) for m in rows[:_MAX_LISTED]] for name, rows in found.items()}


def _row(match: VolumeMatch) -> dict[str, object]:
    return {
        "id": match.synthetic_id,
        "kind": KIND_WORDS[match.kind],
        "disputed": match.disputed,
        "reason": match.reason,
        "levels": {
            level.value: (KIND_WORDS[found.kind], _score(found.score), found.real_id)
            for level, found in match.levels.items()
        },
    }


def _score(value: float) -> str:
    return "not measured" if np.isnan(value) else f"{value:.3f}"


def _repeats(result: ReplicaResult, *, share: bool) -> list[tuple[str, str, list[str]]]:
    """(level, measure, words by kind) of the pairs of scans of one patient."""
    if not result.repeats:
        return []
    out = []
    for level in result.thresholds:
        kinds = repeat_kinds(result, level)
        hidden = share and any(is_small(n) for n in kinds.values())
        words = ["not shown" if hidden else f"{kinds[kind]:,}" for kind in Kind]
        out.append((level.value, MEASURE_WORDS[DECIDING[level]], words))
    return out


def _ratings(result: ReplicaResult) -> list[dict[str, object]]:
    if result.ratings is None:
        return []
    out: list[dict[str, object]] = []
    for rating in result.ratings.measures:
        folds = rating.level == "any"
        held_out = rating.cross_validated
        out.append(
            {
                "level": "measure" if folds else rating.level,
                "measure": rating.measure if folds else MEASURE_WORDS[rating.measure],
                "in_sample": f"{rating.in_sample.value:.3f}",
                "held_out": f"{held_out.value:.3f} ({held_out.low:.2f} to {held_out.high:.2f})",
                "sensitivity": _bounds(held_out.sensitivity),
                "specificity": _bounds(held_out.specificity),
                "auc": f"{rating.auc:.3f}",
            }
        )
    return out


def _bounds(p: Proportion) -> str:
    return f"{p.value:.2f} ({p.low:.2f} to {p.high:.2f})"


def _roc(ratings: RatingSummary) -> Markup:
    """True over false positive rate of each level's deciding measure."""
    side, left, top = 240, 44, 10
    styles = dict(zip(Level, ("hr", "sr", "rr", "sh"), strict=True))
    parts = [
        f'<svg viewBox="0 0 {side + left + 30} {side + 52}" role="img" class="figure roc" '
        'aria-label="Receiver operating characteristic">'
    ]
    for share in (0.0, 0.5, 1.0):
        y, x = top + side * (1 - share), left + side * share
        parts.append(
            f'<line class="grid" x1="{left}" x2="{left + side}" y1="{y}" y2="{y}"/>'
            f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{share:.0%}</text>'
            f'<text x="{x}" y="{top + side + 18}" text-anchor="middle">{share:.0%}</text>'
        )
    parts.append(
        f'<text x="{left + side / 2}" y="{top + side + 38}" text-anchor="middle">false positive rate'
        "</text>"
    )
    for rating in ratings.measures:
        if rating.level in styles and rating.measure == DECIDING[Level(rating.level)]:
            points = " ".join(
                f"{left + side * x:.1f},{top + side * (1 - y):.1f}" for x, y in rating.roc
            )
            parts.append(
                f'<polyline class="series {styles[Level(rating.level)]}" points="{points}"/>'
            )
    return Markup("".join([*parts, "</svg>"]))


def _exposed(result: ReplicaResult) -> collections.Counter[str]:
    """How often each patient is replicated, or real volume where patients are not known."""
    found: collections.Counter[str] = collections.Counter()
    for match in result.replicas:
        best = match.levels[shown_level(match)]
        found[best.subject_id or best.real_id] += 1
    return found
