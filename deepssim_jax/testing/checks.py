"""What is asserted of the folder of a finished command.

Contract: a check that fails raises `AssertionError`, which names the files; they are phantoms'.
"""

from collections.abc import Mapping
from pathlib import Path

from deepssim_jax.audit.recheck_outputs import recheck_audit, recheck_outputs
from deepssim_jax.audit.recheck_summary import rows
from deepssim_jax.audit.result import Label
from deepssim_jax.workspace import OWN_FILES, WORK, owner


def outputs(folder: str | Path) -> dict[str, bytes]:
    """The files that a command leaves for its user, without what it keeps for later runs.

    Args:
      folder: `--out` of a finished command.

    Returns:
      {path inside the folder: content}, by name.

    Examples:
      >>> import tempfile
      >>> from deepssim_jax import testing
      >>> with tempfile.TemporaryDirectory() as work:
      ...     names = testing.write_images(work, testing.phantom_images(2))
      ...     list(testing.outputs(work)) == list(names)
      True
    """
    folder = Path(folder)
    found = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {
        name.as_posix(): path.read_bytes()
        for name, path in sorted(found.items())
        if path.name not in OWN_FILES and WORK not in name.parts
    }


def assert_same_outputs(folder: str | Path, other: str | Path) -> None:
    """Two folders hold the same files, byte for byte, as a run that was killed and given again does.

    Args:
      folder: `--out` of a finished command.
      other: that of another run.

    Raises:
      AssertionError: names the files that are missing or differ; or there are none.

    Examples:
      >>> import tempfile
      >>> from deepssim_jax import testing
      >>> with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
      ...     for folder in (first, second):
      ...         _ = testing.write_images(folder, testing.phantom_images(2))
      ...     testing.assert_same_outputs(first, second)
    """
    ours, theirs = outputs(folder), outputs(other)
    differ = [n for n in sorted({*ours, *theirs}) if ours.get(n) != theirs.get(n)]
    _fail_if(not ours, f"{Path(folder).name!r} holds no outputs")
    _fail_if(bool(differ), f"not the same in both folders: {', '.join(differ)}")


def assert_copies_found(folder: str | Path, originals: Mapping[str, str]) -> None:
    """An audit calls these images copies, of these originals, and no other image.

    Args:
      folder: `--out` of a finished audit.
      originals: {image id of a copy: image id of its original}, as `PlantedCopies` has it.

    Raises:
      AssertionError: names the copies that were missed or given another original, and the false ones.

    Examples:
      >>> import tempfile
      >>> import deepssim_jax as ds
      >>> from deepssim_jax import testing
      >>> settings = ds.AuditSettings(size=64, plant=0)
      >>> with tempfile.TemporaryDirectory() as work:
      ...     made = testing.planted_copies(work, real=4, edits=["left to right"], unrelated=2)
      ...     _ = ds.audit(made.real, made.synthetic, out=f"{work}/audit", settings=settings)
      ...     testing.assert_copies_found(f"{work}/audit", made.originals)
      ...     testing.assert_verified(f"{work}/audit")
    """
    found = {
        row["synthetic_id"]: row["real_id"]
        for row in rows(Path(folder) / "nearest.csv")
        if row["label"] != Label.UNRELATED
    }
    wrong = {
        "missed": sorted(originals.keys() - found.keys()),
        "of another original": sorted(
            name for name in originals.keys() & found.keys() if found[name] != originals[name]
        ),
        "no copies": sorted(found.keys() - originals.keys()),
    }
    said = [f"{what}: {', '.join(names)}" for what, names in wrong.items() if names]
    _fail_if(bool(said), "; ".join(said))


def assert_verified(folder: str | Path) -> None:
    """The folder is as its command left it: what `deepssim verify` checks.

    Args:
      folder: `--out` of a finished command, of an audit for example.

    Raises:
      AssertionError: names what was changed, is missing, or does not follow from the images.
      WorkspaceError: no command made this folder.

    Examples:
      >>> import tempfile
      >>> import deepssim_jax as ds
      >>> from deepssim_jax import testing
      >>> with tempfile.TemporaryDirectory() as work:
      ...     _ = testing.write_images(f"{work}/images", testing.phantom_images(3))
      ...     settings = ds.DuplicateSettings(size=64)
      ...     _ = ds.index(f"{work}/images", out=f"{work}/index", settings=settings)
      ...     testing.assert_verified(f"{work}/index")
    """
    folder = Path(folder)
    found = (recheck_audit if owner(folder) == "audit" else recheck_outputs)(folder)
    _fail_if(bool(found.problems), "\n".join(found.problems))


def _fail_if(wrong: bool, said: str) -> None:
    """Raises by itself: `python -O` would leave assert statements out, and no check could fail."""
    if wrong:
        raise AssertionError(said)
