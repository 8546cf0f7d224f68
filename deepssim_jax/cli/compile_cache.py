"""Compiled programs are kept for the next run, in a folder that nobody else can write.

Whoever can write this folder can make this user run code, so it is the user's own, mode 0700, and
never shared. `JAX_COMPILATION_CACHE_DIR` overrides it; empty switches it off.
"""

import os
import pathlib
import stat

VARIABLE = "JAX_COMPILATION_CACHE_DIR"
_MIN_SECONDS = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


def private(folder: pathlib.Path) -> bool:
    """Says whether `folder` is a real folder of this user that nobody else can enter.

    Windows has no modes: there it must lie in the user's profile, which others cannot enter.
    """
    try:
        status = folder.lstat()
    except OSError:
        return False
    if not hasattr(os, "getuid"):
        home = pathlib.Path.home().resolve()
        return stat.S_ISDIR(status.st_mode) and folder.resolve().is_relative_to(home)
    own = status.st_uid == os.getuid()
    return stat.S_ISDIR(status.st_mode) and own and stat.S_IMODE(status.st_mode) & 0o077 == 0


def remedy(folder: pathlib.Path) -> str:
    """What makes a folder private that is not."""
    if hasattr(os, "getuid"):
        return f"chmod 700 {folder}"
    return f"set {VARIABLE} to a folder in your profile"


def prepare() -> pathlib.Path | None:
    """Points JAX at the user's cache; call it before jax is imported.

    Returns:
        The folder in use, or None where there is none: it was switched off, cannot be made, or
        is open to others.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen is not None:
        return pathlib.Path(chosen) if chosen else None
    base = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    folder = base / "deepssim_jax" / "compiled"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    if not private(folder):
        return None
    os.environ[VARIABLE] = str(folder)
    os.environ.setdefault(_MIN_SECONDS, "0.3")
    return folder
