"""Folders before and after, and those that are refused."""

import pytest

from deepssim_jax.workspace import (
    Workspace,
    WorkspaceError,
)


def tree(folder):
    """Every path below a folder with its bytes."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() if p.is_file() else None
        for p in sorted(folder.rglob("*"))
    }


def refused(out, words, **arguments):
    with pytest.raises(WorkspaceError, match=words), Workspace.open(out, command="a", **arguments):
        pytest.fail("it was opened")
