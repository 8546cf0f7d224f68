"""Reads and embeds a folder of images into a store: the first stage of an audit, alone.

    deepssim embed --images=training_images/ --out=stores/real

`deepssim score` compares two stores. Run again after a stop, or after files were added, it continues.
"""

from typing import TYPE_CHECKING

from absl import flags

from deepssim_jax.cli import console
from deepssim_jax.cli.exit_codes import ExitCode
from deepssim_jax.cli.progress import progress
from deepssim_jax.cli.reading_flags import ReadingFlags

if TYPE_CHECKING:
    from deepssim_jax.data.manifest import Manifest
    from deepssim_jax.data.store import ImageStore

SOURCES = {f"--{role}": "--images" for role in ("real", "synthetic", "holdout")}
_IMAGES = flags.DEFINE_string(
    "images", None, "a folder, a .csv/.tsv manifest or a BIDS root", required=True
)
_ROLE = flags.DEFINE_enum(
    "role",
    "real",
    ["real", "synthetic", "holdout"],
    "which files of the reference layout are meant",
)
_OUT = flags.DEFINE_string("out", None, "folder of the store", required=True)
_SUBJECT_REGEX = flags.DEFINE_string(
    "subject_regex", None, "regular expression whose first group in a file's name is the patient"
)
_SIZE = flags.DEFINE_integer("size", 128, "side in pixels, a multiple of 32")
_SLICE = flags.DEFINE_string(
    "slice", "axial:0.5", "slice of volumes: PLANE:FRACTION or PLANE:INDEX"
)
_ENCODER = flags.DEFINE_string("encoder", "default", "the shipped encoder, or a .safetensors file")

_READING = ReadingFlags.define("images")


def main() -> int:
    """Fills the store.

    Returns:
        `ExitCode.DONE`.
    """
    from deepssim_jax import parallel
    from deepssim_jax.audit.tables import table
    from deepssim_jax.data.manifest import Role, read_manifest
    from deepssim_jax.data.records import on_screen
    from deepssim_jax.data.store import InputSettings
    from deepssim_jax.data.volume import SliceSpec
    from deepssim_jax.nn import encoder as encoders
    from deepssim_jax.scoring.embed import STORE, build_side, check_size, growth_of, list_side
    from deepssim_jax.workspace import Workspace

    check_size(_SIZE.value)
    SliceSpec.parse(_SLICE.value)
    encoder_id = encoders.encoder_hash(_ENCODER.value)
    settings = InputSettings(size=(_SIZE.value, _SIZE.value), slice=_SLICE.value)
    inputs = {"--images": _IMAGES.value}
    opened = Workspace.open(
        _OUT.value, command="embed", inputs=inputs, processes=parallel.processes()
    )
    with opened as workspace:
        manifest = read_manifest(
            _IMAGES.value,
            role=Role(_ROLE.value),
            subject_regex=_SUBJECT_REGEX.value,
            links=_READING.links(),
            arrays=_READING.layout(),
        )
        with progress() as on_progress:
            side, images = build_side(
                manifest,
                workspace,
                settings=settings,
                encoder=lambda: encoders.load_encoder(_ENCODER.value),
                encoder_id=encoder_id,
                on_progress=on_progress,
                what=f"embedding {_ROLE.value}",
            )
        _check_read(images)
        growth = growth_of(workspace, images)
        listing = _not_read(manifest, images)
        not_read = workspace.write("not_read.csv", table(listing))
        # The listing comes last: with it the store can be scored.
        workspace.write(STORE, list_side(images, settings))
        workspace.prune()
    print("".join(f"{note}\n" for note in on_screen(manifest.said)), end="")
    console.finish(
        [
            *images.account.rows(),
            *growth.rows(),
            ("dimensions", side.embeddings.shape[1]),
        ],
        written=[_OUT.value, *([not_read] if len(listing) > 1 else [])],
    )
    return ExitCode.DONE


def _check_read(images: "ImageStore") -> None:
    """Raises ValueError if no image could be read, with the reasons."""
    if not len(images):
        reasons = sorted({item.reason for item in images.rejected})
        raise ValueError(
            f"--images: none of its {len(images.rejected)} images could be read: {'; '.join(reasons)}"
        )


def _not_read(manifest: "Manifest", images: "ImageStore") -> list[tuple[str, str]]:
    """A table of files: their names can be names of patients, and never go on the screen."""
    return [
        ("image_id", "reason"),
        *((x.image_id, x.reason) for x in images.rejected),
        *((x.name, x.reason) for x in manifest.unused),
    ]
