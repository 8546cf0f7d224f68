"""Finds images, or volumes, of a data set that are copies of each other, also between its splits.

    deepssim duplicates training_images/ --against=test_images/ --out=duplicates/

Folders are read only, and nothing is deleted. A run that was stopped continues when the same command
is given again.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from absl import flags

from deepssim_jax.cli import console, usage
from deepssim_jax.cli.collection_flags import CollectionFlags
from deepssim_jax.cli.exit_codes import ExitCode
from deepssim_jax.cli.progress import progress

POSITIONALS = ("FOLDER",)
_AGAINST = flags.DEFINE_multi_string(
    "against",
    [],
    "another split or an earlier release, likewise; may be given several times, each is a split",
)
_OUT = flags.DEFINE_string(
    "out", None, "folder for the report, the tables and work to resume from", required=True
)
_COLLECTION = CollectionFlags.define(
    size="128 if not given; of whole volumes, in voxels of the cube that each is brought to, 64 if not given",
    slice_spec="volumes are compared whole",
)
_FALSE_DISCOVERIES = flags.DEFINE_float(
    "false_discoveries",
    0.05,
    "expected share of false ones among images called duplicates (of volumes: similar), between 0 and 1",
)
_LEVEL = flags.DEFINE_float("level", 0.95, "coverage of the interval, between 0.5 and 1")
_MAX_DUPLICATE_RATE = flags.DEFINE_float(
    "max_duplicate_rate",
    None,
    "share of images that repeat another one, 0 to 1, above which the exit status is 3",
    lower_bound=0.0,
    upper_bound=1.0,
)
_WRITE_MANIFEST = flags.DEFINE_string(
    "write_manifest",
    None,
    "a table in --out that lists what is kept of each group and all without duplicates; e.g. clean.csv",
)


def main(folder: str) -> int:
    """Runs the search and prints its outcome.

    Args:
        folder: Where the images to search lie, or their manifest.

    Returns:
        0, or 3 where `--max_duplicate_rate` is exceeded.
    """
    # Imported here so that --help and a wrong flag answer at once.
    from deepssim_jax.audit.sentences import several
    from deepssim_jax.data.account import reason_rows
    from deepssim_jax.data.records import on_screen
    from deepssim_jax.jobs.duplicates import duplicates
    from deepssim_jax.jobs.duplicates_outputs import headline

    usage.exists(_AGAINST, "folder or file")
    settings = dataclasses.replace(
        _COLLECTION.settings(),
        false_discoveries=_FALSE_DISCOVERIES.value,
        level=_LEVEL.value,
        write_manifest=_WRITE_MANIFEST.value,
    )
    with progress() as on_progress:
        result = duplicates(
            folder,
            against=_AGAINST.value,
            out=_OUT.value,
            settings=settings,
            on_progress=on_progress,
        )
    rows = _counted(result.counts)
    # Names of folders may be names of patients: splits have numbers here and names in the report.
    groups = sum(x.groups for x in result.crossings)
    if len(result.splits) > 1:
        rows.append(("groups in two splits", f"{groups:,}"))
        rows.append(
            ("patients in two splits", f"{sum(len(x.subjects) for x in result.crossings):,}")
        )
    if result.suspicions:
        rows.append(("patient ids that share an image", several(len(result.suspicions), "pair")))
    if result.exclusions:
        rows.append(
            ("not read, or not compared", f"{len(result.exclusions):,}; inputs.json names them")
        )
        rows += reason_rows(item.reason for item in result.exclusions)
    if _WRITE_MANIFEST.value:
        # That folder may bear a patient's name.
        where = "relative to clean_root of summary.json; copy the table there to use it"
        rows.append((f"paths in {_WRITE_MANIFEST.value}", where))
    print(headline(result))
    print("".join(f"{note}\n" for note in on_screen(result.notes)), end="")
    names = ["report.html", "groups.csv", "pairs.csv", "summary.json", "inputs.json"]
    names += [_WRITE_MANIFEST.value] if _WRITE_MANIFEST.value else []
    console.finish(rows, written=[Path(_OUT.value) / name for name in names])
    limit = _MAX_DUPLICATE_RATE.value
    if limit is not None and result.duplicate_rate.value > limit:
        return ExitCode.POLICY_BROKEN
    return ExitCode.DONE


def _counted(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """What was compared and found, for the screen."""
    from deepssim_jax.audit.sentences import several

    return [
        ("images", f"{counts['images']:,}"),
        (
            "groups of duplicates",
            f"{counts['groups']:,}, of {several(counts['in_groups'], 'image')}",
        ),
        ("equal files, equal pixels", f"{counts['same_file']:,}, {counts['same_pixels']:,}"),
        ("pairs of changed copies", f"{counts['copies']:,}"),
        ("similar pairs, no duplicates", f"{counts['similar']:,}"),
        ("not comparable", f"{counts['not_comparable']:,}"),
    ]
