"""Searches and verifies between two stores made by `deepssim embed`: an audit's second stage.

    deepssim score --real=stores/real --synthetic=stores/synthetic --out=scores/

Writes candidates.csv: every verified pair, best first within each synthetic image.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from deepssim_jax.cli import console, usage
from deepssim_jax.cli.exit_codes import ExitCode
from deepssim_jax.cli.progress import progress

if TYPE_CHECKING:  # at run time it would load JAX before --help is answered
    from deepssim_jax.scoring.side import Side

_REAL = flags.DEFINE_string("real", None, "store of the real images", required=True)
_SYNTHETIC = flags.DEFINE_string("synthetic", None, "store of the synthetic images", required=True)
_OUT = flags.DEFINE_string("out", None, "folder for the table and work to resume", required=True)
_ENCODER = flags.DEFINE_string("encoder", "default", "the encoder that the stores were made with")
_RETRIEVAL = flags.DEFINE_enum(
    "retrieval",
    "auto",
    ["auto", "encoder", "aligned", "both"],
    "how candidates are found; auto is both, and beyond 200 million pairs the encoder alone",
)


def main() -> int:
    """Scores the stores.

    Returns:
        `ExitCode.DONE`.
    """
    from deepssim_jax import parallel
    from deepssim_jax.audit.tables import table
    from deepssim_jax.nn.encoder import encoder_hash
    from deepssim_jax.ops.transform import FLIP_NAMES
    from deepssim_jax.scoring.embed import open_side
    from deepssim_jax.scoring.match import match
    from deepssim_jax.scoring.retrieval import Retrieval
    from deepssim_jax.workspace import Workspace

    usage.exists(_REAL, "store; make it with deepssim embed")
    usage.exists(_SYNTHETIC, "store; make it with deepssim embed")
    encoder_id = encoder_hash(_ENCODER.value)
    inputs = {"--real": _REAL.value, "--synthetic": _SYNTHETIC.value}
    opened = Workspace.open(
        _OUT.value, command="score", inputs=inputs, processes=parallel.processes()
    )
    with opened as workspace, progress() as on_progress:
        real, real_images = open_side(Path(_REAL.value), encoder_id=encoder_id, flag="--real")
        synthetic, synthetic_images = open_side(
            Path(_SYNTHETIC.value), encoder_id=encoder_id, flag="--synthetic"
        )
        _check_sizes(real, synthetic)
        retrieval = Retrieval(_RETRIEVAL.value).resolved(
            pairs=len(real) * len(synthetic), local_features=False
        )
        images = [real_images.fingerprint, synthetic_images.fingerprint]
        pairs = match(
            synthetic,
            real,
            journal=workspace.section("search", encoder_id, images),
            proposals=retrieval.proposals,
            on_progress=on_progress,
            what="synthetic with real",
        )
        numbers = ("embedding", "verified", "rotation_deg", "scale", "shift_y", "shift_x")
        rows: list[list[object]] = [["synthetic_id", "real_id", "subject_id", "flip", *numbers]]
        for row in pairs:
            reference = int(row["reference"])
            names = [
                synthetic_images.image_ids[int(row["query"])],
                real_images.image_ids[reference],
                real_images.subject_ids[reference],
                FLIP_NAMES[int(row["flip"])],
            ]
            rows.append([*names, *(float(row[n]) for n in numbers)])
        written = workspace.write("candidates.csv", table(rows))
        workspace.prune()
    console.finish(
        [
            *(("synthetic", len(synthetic)), ("real", len(real))),
            ("synthetic, not read by embed", len(synthetic_images.rejected)),
            ("real, not read by embed", len(real_images.rejected)),
            ("retrieval", retrieval.value),
            ("pairs verified", len(pairs)),
        ],
        written=[written],
    )
    return ExitCode.DONE


def _check_sizes(real: "Side", synthetic: "Side") -> None:
    """Raises ValueError for stores whose images are of two sizes."""
    import numpy as np

    sides = [one.take(np.zeros(1, np.int64)).shape[-1] for one in (real, synthetic)]
    if sides[0] != sides[1]:
        raise ValueError(
            f"--real is a store of images of {sides[0]} pixels a side and --synthetic of {sides[1]}; run "
            "deepssim embed on both with the same --size"
        )
