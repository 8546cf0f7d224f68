"""Who owns a folder, and all that is written into it: the only room that creates or deletes files."""

from deepssim_jax.workspace.cache import Cache, Entries, Made
from deepssim_jax.workspace.claims import MARKER, Overlap, WorkspaceError
from deepssim_jax.workspace.files import Access, NoSpace, sha256
from deepssim_jax.workspace.keys import code_of, key_of
from deepssim_jax.workspace.steps import Processes, Progress, Section
from deepssim_jax.workspace.workspace import Workspace

__all__ = [
    "MARKER",
    "Access",
    "Cache",
    "Entries",
    "Made",
    "NoSpace",
    "Overlap",
    "Processes",
    "Progress",
    "Section",
    "Workspace",
    "WorkspaceError",
    "code_of",
    "key_of",
    "sha256",
]
