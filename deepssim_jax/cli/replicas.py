"""Finds the synthetic volumes that are copies of a real one, by up to four representations.

    deepssim replicas --real=training_volumes/ --synthetic=generated_volumes/ --out=replicas/

Folders are read only. A run that was stopped continues when the same command is given again.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from deepssim_jax.cli import console, usage
from deepssim_jax.cli.exit_codes import ExitCode
from deepssim_jax.cli.progress import progress
from deepssim_jax.cli.reading_flags import ReadingFlags

if TYPE_CHECKING:
    from deepssim_jax.audit.replica_result import ReplicaResult

_REAL = flags.DEFINE_string(
    "real",
    None,
    "training volumes: a folder of NIfTI, DICOM or NumPy files, a .csv/.tsv manifest or a BIDS root",
    required=True,
)
_SYNTHETIC = flags.DEFINE_string("synthetic", None, "the volumes to judge, likewise", required=True)
_OUT = flags.DEFINE_string(
    "out", None, "folder for the report, the tables and work to resume from", required=True
)
_MODALITY = flags.DEFINE_enum(
    "modality",
    "other",
    ["mr", "ct", "angiography", "other"],
    "how label maps are made where none are given: tissues of brain MR, thresholds of head CT in "
    "Hounsfield units, bright vessels; other makes none",
)
_SEGMENTATIONS_REAL = flags.DEFINE_string(
    "segmentations_real",
    None,
    "folder of label maps that bear the names of the real volumes, such as SynthSeg or TotalSegmentator "
    "(--ml) makes: a.nii.gz or a_synthseg.nii.gz for a.nii.gz",
)
_SEGMENTATIONS_SYNTHETIC = flags.DEFINE_string(
    "segmentations_synthetic",
    None,
    "folder of label maps that bear the names of the synthetic ones",
)
_LABEL_NAMES = flags.DEFINE_string(
    "label_names",
    None,
    "what the labels are called: lines of a number and a name, FreeSurfer's colour table, or JSON",
)
_EMBEDDINGS_REAL = flags.DEFINE_string(
    "embeddings_real",
    None,
    "embeddings of the real volumes instead of ours: .npz, ids and embeddings",
)
_EMBEDDINGS_SYNTHETIC = flags.DEFINE_string(
    "embeddings_synthetic", None, "embeddings of the synthetic volumes, likewise"
)
_RATINGS = flags.DEFINE_string(
    "ratings",
    None,
    "what people say: .csv with synthetic_id and replica (1 or 0), or a column a rater",
)
_SUBJECT_REGEX = flags.DEFINE_string(
    "subject_regex",
    None,
    "regular expression whose first group, found in a file's name, is the patient; e.g. '^([0-9]+)_'",
)
_SIZE = flags.DEFINE_integer(
    "size", 64, "side in voxels of the cube to which every volume is brought, proportions kept"
)
_SPACING = flags.DEFINE_float(
    "spacing", None, "mm of a voxel of that cube; each file's whole field of view if not given"
)
_ALIGN = flags.DEFINE_enum(
    "align",
    "affine",
    ["affine", "none"],
    "alignment before volumes are compared: any pose, then twelve parameters; or none",
)
_CANDIDATES = flags.DEFINE_integer("candidates", 2, "real volumes of each search that are measured")
_ENCODER = flags.DEFINE_string(
    "encoder",
    "default",
    "the shipped one, for slices, or a .safetensors file, for slices or volumes",
)
_LEVEL = flags.DEFINE_float("level", 0.95, "coverage of the intervals, between 0.5 and 1")
_SEED = flags.DEFINE_integer(
    "seed", 0, "seed of the replicas planted for calibration", lower_bound=0, upper_bound=2**32 - 1
)
_ALLOW_SAME = flags.DEFINE_bool(
    "allow_same", False, "let --real and --synthetic be the same volumes"
)

_READING = ReadingFlags.define("zyx")


def main() -> int:
    """Runs the search and prints its outcome.

    Returns:
        0, or 4 where the numbers carry no verdict.
    """
    # Imported here so that --help and a wrong flag answer at once.
    from deepssim_jax.audit.replica_settings import ReplicaSettings
    from deepssim_jax.audit.replicas import LevelFiles, replicas
    from deepssim_jax.data.records import Role, on_screen
    from deepssim_jax.detection.assessment import Verdict
    from deepssim_jax.scoring.volume_measure import Alignment
    from deepssim_jax.scoring.volume_sides import Modality

    def given(real: str | None, synthetic: str | None) -> dict[Role, str | Path]:
        pairs = ((Role.REAL, real), (Role.SYNTHETIC, synthetic))
        return {role: path for role, path in pairs if path is not None}

    _check()
    settings = ReplicaSettings(
        size=_SIZE.value,
        spacing=_SPACING.value,
        modality=Modality(_MODALITY.value),
        alignment=Alignment(_ALIGN.value),
        encoder=_ENCODER.value,
        candidates=_CANDIDATES.value,
        subject_regex=_SUBJECT_REGEX.value,
        level=_LEVEL.value,
        seed=_SEED.value,
        allow_same=_ALLOW_SAME.value,
        links=_READING.links(),
        arrays=_READING.layout(),
    )
    with progress(unit="volumes") as on_progress:
        result = replicas(
            _REAL.value,
            _SYNTHETIC.value,
            out=_OUT.value,
            files=LevelFiles(
                segmentations=given(_SEGMENTATIONS_REAL.value, _SEGMENTATIONS_SYNTHETIC.value),
                embeddings=given(_EMBEDDINGS_REAL.value, _EMBEDDINGS_SYNTHETIC.value),
                label_names=_LABEL_NAMES.value,
            ),
            rated=_RATINGS.value,
            settings=settings,
            on_progress=on_progress,
        )
    said = (*result.reasons, *on_screen(result.notes))
    print("".join(f"{sentence}\n" for sentence in said), end="")
    names = (
        "report.html", "report_share.html", "summary.json", "replicas.csv", "overlap.csv",
        "real_duplicates.csv",
    )  # fmt: skip
    console.finish(_summary(result), written=[Path(_OUT.value) / name for name in names])
    return ExitCode.INCONCLUSIVE if result.verdict is Verdict.INCONCLUSIVE else ExitCode.DONE


def _check() -> None:
    """Raises UsageError for flags that do not go together, and for what does not exist."""
    given_features = _EMBEDDINGS_REAL.value or _EMBEDDINGS_SYNTHETIC.value
    usage.belong([_ENCODER], "volumes without --embeddings_real", wanted=not given_features)
    for holder, what in (
        (_REAL, "folder or file"),
        (_SYNTHETIC, "folder or file"),
        (_SEGMENTATIONS_REAL, "folder"),
        (_SEGMENTATIONS_SYNTHETIC, "folder"),
        (_EMBEDDINGS_REAL, "file"),
        (_EMBEDDINGS_SYNTHETIC, "file"),
        (_RATINGS, "file"),
        (_LABEL_NAMES, "file"),
    ):
        usage.exists(holder, what)


def _summary(result: "ReplicaResult") -> list[tuple[str, object]]:
    """What is printed last."""
    from deepssim_jax.data.account import reason_rows

    counts, rate = result.counts, result.rate
    rows: list[tuple[str, object]] = [
        ("verdict", result.verdict.value.replace("_", " ")),
        ("synthetic volumes", f"{counts['synthetic']:,}"),
        ("real volumes", f"{counts['real']:,}"),
        (
            "replicas",
            f"{rate.count:,} ({rate.value:.1%}, {rate.level:.0%} interval {rate.low:.1%} to {rate.high:.1%})",
        ),
        ("like a second scan", f"{counts['same_person']:,}"),
        ("levels disagree", f"{counts['disputed']:,}"),
    ]
    rows += [
        (
            f"{level.value} level",
            f"{'counts' if found.counts else 'does not count'}; copy from {found.replica:.2f}"
            + (
                f", controls found {found.recall.count} of {found.recall.total}"
                if found.recall
                else ""
            ),
        )
        for level, found in result.thresholds.items()
    ]
    if result.ratings is not None:
        last = result.ratings.measures[-1].cross_validated
        rows.append(
            (
                "balanced accuracy",
                f"{last.value:.3f} ({last.low:.2f} to {last.high:.2f}), cross-validated",
            )
        )
    if result.exclusions:
        rows.append(("not tested", f"{len(result.exclusions):,} files, listed in the report"))
        rows += reason_rows(item.reason for item in result.exclusions)
    if result.without_labels:
        without = f"{len(result.without_labels):,} volumes, compared at the other levels"
        rows.append(("no segmentation", without))
    if result.two_spacings:
        rows.append(("two spacings", f"{len(result.two_spacings):,} files, listed in the report"))
    return rows
