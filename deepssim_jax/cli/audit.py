"""Finds the synthetic images that are copies of a real one, and writes the report.

    deepssim audit --real=training_images/ --synthetic=generated/ --out=audit/

Folders are read only. A run that was stopped continues when the same command is given again.
"""

from pathlib import Path

from absl import flags

from deepssim_jax.cli import usage
from deepssim_jax.cli.exit_codes import ExitCode
from deepssim_jax.cli.progress import progress
from deepssim_jax.cli.reading_flags import ReadingFlags

_REAL = flags.DEFINE_string(
    "real",
    None,
    "training images: a folder, a .csv/.tsv manifest, a BIDS root or <uid>/training.png",
    required=True,
)
_SYNTHETIC = flags.DEFINE_string("synthetic", None, "the images to judge, likewise", required=True)
_HOLDOUT = flags.DEFINE_string(
    "holdout", None, "real images of patients that the model never saw: a control, and p-values"
)
_MODEL = flags.DEFINE_string(
    "model",
    None,
    "workdir of the finished train_ldm that made the synthetic images: says by membership inference "
    "what its weights give away",
)
_OUT = flags.DEFINE_string(
    "out", None, "folder for the report, the tables and work to resume from", required=True
)
_SUBJECT_REGEX = flags.DEFINE_string(
    "subject_regex",
    None,
    "regular expression whose first group, found in a file's name, is the patient; e.g. '^([0-9]+)_'",
)
_SIZE = flags.DEFINE_integer(
    "size", 128, "side in pixels to which every image is brought, aspect kept; a multiple of 32"
)
_SLICE = flags.DEFINE_string(
    "slice", "axial:0.5", "slice of volumes: PLANE:FRACTION or PLANE:INDEX"
)
_ENCODER = flags.DEFINE_string("encoder", "default", "the shipped encoder, or a .safetensors file")
_RETRIEVAL = flags.DEFINE_enum(
    "retrieval",
    "auto",
    ["auto", "local", "encoder", "aligned", "both"],
    "what proposes candidates beside local features; auto is local: the images that are similar in the same "
    "position; both is the search over a grid of transformations and the encoder",
)
_LEVEL = flags.DEFINE_float("level", 0.95, "coverage of the intervals, between 0.5 and 1")
_SEED = flags.DEFINE_integer(
    "seed", 0, "seed of the copies planted for calibration", lower_bound=0, upper_bound=2**32 - 1
)
_ALLOW_SAME = flags.DEFINE_bool(
    "allow_same", False, "let --real and --synthetic be the same images"
)
_EXPLAIN = flags.DEFINE_bool(
    "explain", False, "show in the gallery what made the encoder call a pair similar"
)
_PLANT = flags.DEFINE_integer(
    "plant",
    None,
    "edited copies of the real images to look for, which say what would be found: two of each edit "
    "if not given; 0: none, and what would be found stays unknown",
)
_READING = ReadingFlags.define("images", forget=True)
_MAX_COPY_RATE = flags.DEFINE_float(
    "max_copy_rate",
    None,
    "share of copies, 0 to 1, above which the exit status is 3",
    lower_bound=0.0,
    upper_bound=1.0,
)


def main() -> int:
    """Runs the audit and prints its outcome.

    Returns:
        0, or 3 where `--max_copy_rate` is exceeded, or 4 where the numbers carry no verdict.
    """
    # Imported here so that --help and a wrong flag answer at once.
    from deepssim_jax.audit import console as summary
    from deepssim_jax.audit.audit import AuditSettings, audit
    from deepssim_jax.scoring.retrieval import Retrieval

    settings = AuditSettings(
        size=_SIZE.value,
        slice_spec=_SLICE.value,
        subject_regex=_SUBJECT_REGEX.value,
        encoder=_ENCODER.value,
        retrieval=Retrieval(_RETRIEVAL.value),
        level=_LEVEL.value,
        seed=_SEED.value,
        allow_same=_ALLOW_SAME.value,
        explain=_EXPLAIN.value,
        **({} if _PLANT.value is None else {"plant": _PLANT.value}),
        links=_READING.links(),
        arrays=_READING.layout(),
        forget=_READING.forgotten(),
    )
    usage.exists(_MODEL, "folder")
    with progress() as on_progress:
        result = audit(
            _REAL.value,
            _SYNTHETIC.value,
            holdout=_HOLDOUT.value,
            model=_MODEL.value,
            out=_OUT.value,
            settings=settings,
            on_progress=on_progress,
        )
    summary.print_result(result, Path(_OUT.value))
    return exit_code(result.verdict.value, result.copy_rate.value, _MAX_COPY_RATE.value)


def exit_code(verdict: str, copy_rate: float, max_copy_rate: float | None) -> ExitCode:
    """The exit status of an audit: a broken policy counts more than a missing verdict."""
    if max_copy_rate is not None and copy_rate > max_copy_rate:
        return ExitCode.POLICY_BROKEN
    return ExitCode.INCONCLUSIVE if verdict == "inconclusive" else ExitCode.DONE
