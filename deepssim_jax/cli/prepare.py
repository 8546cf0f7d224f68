"""Brings IXI or CoRR, as downloaded, into training images of one size.

    deepssim prepare --dataset=ixi --source=IXI-T1.tar --out=images/ --demographics=IXI.xls
    deepssim prepare --dataset=corr --source=RawDataBIDS/ --out=images/

Writes <uid>/training.png, manifest.csv and prepare.json. The same command again continues, makes what is new
or changed, and deletes its images of scans that are gone.
"""

from pathlib import Path

from absl import flags

from deepssim_jax.cli import console, usage
from deepssim_jax.cli.exit_codes import ExitCode
from deepssim_jax.cli.progress import progress

_DATASET = flags.DEFINE_enum("dataset", None, ["ixi", "corr"], "which study", required=True)
_SOURCE = flags.DEFINE_string(
    "source", None, "its folder; for IXI a tar file serves as well", required=True
)
_OUT = flags.DEFINE_string("out", None, "folder to write", required=True)
_SIZE = flags.DEFINE_list("size", ["136", "112"], "height and width of the slices in pixels")
_VOLUMES = flags.DEFINE_bool("volumes", False, "write whole volumes instead of slices")
_SLICE = flags.DEFINE_string("slice", "axial:0.5", "PLANE:FRACTION or PLANE:INDEX")
_TOOLS = flags.DEFINE_list(
    "tools",
    [],
    "n4, skullstrip, mni: installed programs to run on each volume first, in this order",
)
_ATLAS = flags.DEFINE_string("atlas", None, "the volume that mni registers to")
_DEMOGRAPHICS = flags.DEFINE_string("demographics", None, "IXI.xls, or a CSV file of it")


def main() -> int:
    """Prepares one study.

    Returns:
        `ExitCode.DONE`, or `ExitCode.FAILED` where no scan could be used.
    """
    from deepssim_jax.data import prepared, studies
    from deepssim_jax.data.volume import SliceSpec
    from deepssim_jax.ops import arguments
    from deepssim_jax.workspace import Workspace

    source, out = Path(_SOURCE.value), Path(_OUT.value)
    usage.exists(_SOURCE, "folder or tar file")
    usage.exists(_ATLAS, "file")
    usage.exists(_DEMOGRAPHICS, "file")
    usage.belong([_DEMOGRAPHICS], "--dataset=ixi", wanted=_DATASET.value == "ixi")
    usage.belong([_ATLAS], "mni among --tools", wanted="mni" in _TOOLS.value)
    usage.belong([_SIZE, _SLICE], "slices, not --volumes", wanted=not _VOLUMES.value)
    SliceSpec.parse(_SLICE.value)
    for tool in _TOOLS.value:
        arguments.choice(tool, "tools", known=tuple(prepared.TOOLS))
    if len(_SIZE.value) != 2 or not all(v.isdigit() and int(v) >= 16 for v in _SIZE.value):
        raise ValueError(f"--size={','.join(_SIZE.value)} must be two numbers such as 136,112")
    opened = Workspace.open(out, command="prepare", inputs={"--source": source})
    with opened as workspace, progress(unit="scans") as on_progress:
        study = studies.ixi(source) if _DATASET.value == "ixi" else studies.corr(source)
        people = studies.ixi_people(Path(_DEMOGRAPHICS.value)) if _DEMOGRAPHICS.value else None
        made = prepared.prepare(
            study,
            workspace,
            size=None if _VOLUMES.value else (int(_SIZE.value[0]), int(_SIZE.value[1])),
            slice_spec=_SLICE.value,
            tools=_TOOLS.value,
            atlas=Path(_ATLAS.value) if _ATLAS.value else None,
            people=people,
            on_progress=on_progress,
        )
    rows = [("scans", made.account.images), ("people", made.people), *made.account.rows()]
    console.finish(rows, written=[out / "manifest.csv", out / "prepare.json"])
    return ExitCode.DONE if made.account.images else ExitCode.FAILED
