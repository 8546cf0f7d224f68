"""Prepares a folder of 2D images, so that `deepssim lookup` can answer for single images.

    deepssim index training_images/ --out=training_index/

The index holds names of files and patients, features and small images, and no image in full. The folder
is read only.
"""

import json
from pathlib import Path

from absl import flags

from deepssim_jax.cli import console
from deepssim_jax.cli.collection_flags import CollectionFlags
from deepssim_jax.cli.exit_codes import ExitCode
from deepssim_jax.cli.progress import progress

POSITIONALS = ("FOLDER",)
_OUT = flags.DEFINE_string("out", None, "folder of the index", required=True)
_COLLECTION = CollectionFlags.define(size="128 if not given", slice_spec="volumes are refused")


def main(folder: str) -> int:
    """Writes the index.

    Args:
        folder: Where the images to prepare lie, or their manifest.

    Returns:
        `ExitCode.DONE`.
    """
    # Imported here so that --help and a wrong flag answer at once.
    from deepssim_jax.data.account import INPUTS
    from deepssim_jax.data.forgetting import said_before
    from deepssim_jax.data.records import on_screen
    from deepssim_jax.jobs.indexing import index
    from deepssim_jax.jobs.point_index import LISTING

    with progress() as on_progress:
        made = index(
            folder, out=_OUT.value, settings=_COLLECTION.settings(), on_progress=on_progress
        )
    said = json.loads((Path(_OUT.value).expanduser() / INPUTS).read_text(encoding="utf-8"))
    limits = made.rule.limits
    rows = [
        ("files found", f"{said['files_found']:,}"),
        ("images", f"{len(made):,}"),
        ("not read", f"{said['not_read']:,}"),
        *((f"  {reason}", f"{count:,}") for reason, count in said["reasons"].items()),
        *([("left out as asked", f"{said['left_out']:,}")] if said["left_out"] else []),
        *((name, f"{count:,}") for name, count in made.growth.rows()),
        ("a copy from", "evidence {evidence:.2f} and {points:.0f} points".format(**limits)),
        ("or", "a verified score of {sure_score} and {sure_points:.0f} points".format(**limits)),
    ]
    notes = (*on_screen(said["notes"]), *said_before(made.growth.left_out_before))
    print("".join(f"{note}\n" for note in notes), end="")
    console.finish(rows, written=[Path(_OUT.value) / LISTING])
    return ExitCode.DONE
