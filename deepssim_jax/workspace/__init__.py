"""Who owns a folder, and all that is written into it: the only package that creates or deletes files."""

from deepssim_jax.workspace.cache import Cache, Entries, Made
from deepssim_jax.workspace.claims import MARKER, OWN_FILES, WORK, Overlap, WorkspaceError
from deepssim_jax.workspace.examine import Examined, check_written, examine, owner, was_changed
from deepssim_jax.workspace.files import Access, NoSpace, sha256
from deepssim_jax.workspace.keys import code_of, key_of
from deepssim_jax.workspace.outputs import is_kept_work
from deepssim_jax.workspace.scratch import scratch_copy, scratch_folder
from deepssim_jax.workspace.steps import By, Processes, Progress, Section
from deepssim_jax.workspace.workspace import Workspace

__all__ = [
    "MARKER",
    "Access",
    "By",
    "Cache",
    "Entries",
    "Examined",
    "Made",
    "OWN_FILES",
    "NoSpace",
    "Overlap",
    "Processes",
    "Progress",
    "Section",
    "WORK",
    "Workspace",
    "WorkspaceError",
    "check_written",
    "code_of",
    "examine",
    "is_kept_work",
    "key_of",
    "owner",
    "scratch_copy",
    "scratch_folder",
    "sha256",
    "was_changed",
]
