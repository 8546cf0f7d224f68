"""What a program finds on Windows, as far as Linux can show it: `pretend()` in a process of its own.

Libraries are loaded first, because they choose their own ways when they are; then the names that Windows
lacks go, and files that are open or mapped can no longer be deleted or replaced.
"""

import contextlib
import importlib
import os
import shutil
import signal
import sys

LIBRARIES = (
    "absl.app", "asyncio", "concurrent.futures", "ctypes", "filelock", "flax.nnx", "grain.python",
    "imagecodecs", "jax", "jinja2", "matplotlib.figure", "ml_collections", "multiprocessing", "nibabel",
    "numpy.testing", "optax", "orbax.checkpoint", "PIL.Image", "rich.progress", "safetensors.numpy",
    "scipy.ndimage", "scipy.stats", "sklearn.cluster", "subprocess", "tempfile", "tifffile",
    "rich.console",
)  # fmt: skip
# os.set_blocking stays: Linux asks for it where Windows does not.
GONE = {
    os: (
        "getuid", "geteuid", "getgid", "fork", "forkpty", "killpg", "getpgid", "setsid", "chown", "lchown",
        "mkfifo", "mknod", "sync", "sched_getaffinity", "confstr", "sysconf", "statvfs", "getloadavg",
        "uname", "O_DIRECTORY", "O_CLOEXEC", "O_NOFOLLOW", "O_SYNC", "pread", "posix_fadvise",
    ),
    signal: ("SIGKILL", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCHLD", "SIGPIPE", "alarm"),
}  # fmt: skip
MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "pty", "syslog", "select")


def pretend() -> None:
    """Makes this process look like one on Windows."""
    for name in LIBRARIES:
        importlib.import_module(name)
    for module, names in GONE.items():
        for name in names:
            with contextlib.suppress(AttributeError):
                delattr(module, name)
    for name in MODULES:
        sys.modules[name] = None
    shutil._use_fd_functions = False
    for name in ("unlink", "remove", "replace", "rename"):
        setattr(os, name, _unless_in_use(getattr(os, name)))
    sys.platform = "win32"


def _in_use() -> set[str]:
    with open("/proc/self/maps", encoding="utf-8") as lines:
        found = {line.split(maxsplit=5)[-1].strip() for line in lines}
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{number}"))
    return found


def _unless_in_use(function):
    def call(path, *others, **how):
        if {os.path.realpath(p) for p in (path, *others)} & _in_use():
            raise PermissionError(13, "the file is in use by another process", str(path))
        return function(path, *others, **how)

    return call
