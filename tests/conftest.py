"""What every test stands on: eight CPU devices, no network, no silent broadcasting.

Children started by a test inherit the closed network and the compile cache, not the eight
devices: a command is tested as a user has it.
"""

import gc
import importlib.metadata
import itertools
import os
import pathlib
import stat
import sys
import tempfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
OFFLINE = ROOT / "tests" / "offline"


def _private_cache() -> pathlib.Path:
    """Returns a folder for compiled programs that only this user can write.

    Whoever can write the cache can run code here, so a folder of someone else's is not used.
    """
    home = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
    for parent in (home, pathlib.Path(tempfile.gettempdir())):
        folder = parent / f"deepssim_jax-tests-{os.getuid()}"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = folder.lstat()
        except OSError:
            continue
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid():
            folder.chmod(0o700)
            return folder
    return pathlib.Path(tempfile.mkdtemp(prefix="deepssim_jax-tests-"))


sys.path.insert(0, str(OFFLINE))
os.environ["PYTHONPATH"] = os.pathsep.join(
    p for p in (str(OFFLINE), str(ROOT), os.environ.get("PYTHONPATH", "")) if p
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_private_cache()))
# Every program is kept: a small one, too, takes longer to compile than to read.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Of a suite that compiles for four fifths of its time, LLVM's higher levels take more than they give back,
# and so do fused loops, which newer versions of jaxlib cannot do without.
QUICK = ["--xla_backend_optimization_level=1"]
if importlib.metadata.version("jaxlib").startswith("0.10."):
    QUICK.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(QUICK))
# Two workers have two cores: threads of BLAS that wait for work would take the other's time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ["MPLBACKEND"] = "agg"

import jax  # noqa: E402  (reads the variables set above)
from absl import flags  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
flags.FLAGS.mark_as_parsed()

import close_network  # noqa: E402, F401  (after jax, so that only our own doings are judged)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two workers work in two halves of the suite: neighbours need the same programs, and both would
    compile them.
    """
    files = list(dict.fromkeys(item.path for item in items))
    half = -(-len(files) // 2)
    pairs = itertools.zip_longest(files[:half], files[half:])
    order = {path: place for place, path in enumerate(itertools.chain.from_iterable(pairs))}
    items.sort(key=lambda item: order[item.path])


def pytest_collection_finish() -> None:
    """Flags of a script that is imported while tests are gathered would meet those of the commands."""
    _collect_seldom()
    defined = flags.FLAGS.flags_by_module_dict()
    if early := [name for name in defined if name.startswith("benchmarks.")]:
        raise pytest.UsageError(f"import {', '.join(early)} inside of tests: it defines flags")


@pytest.fixture(autouse=True)
def _flags_can_be_read():
    """A test that ran a command leaves the flags unparsed when the command line was wrong."""
    flags.FLAGS.mark_as_parsed()


@pytest.fixture(scope="module", autouse=True)
def _programs_are_let_go():
    """A compiled program holds mappings of memory until it is dropped, and Linux grants 65,530.

    A process with the programs of all tests came to 58,801, and once to a segmentation fault in LLVM.
    Most modules need programs of the one before, so that they are dropped only when there are many.
    """
    yield
    if _mappings() > 30_000:
        jax.clear_caches()
        gc.collect()


def _collect_seldom() -> None:
    """Tracing makes millions of objects that stay; looking for garbage among them took a twentieth of all.

    What is imported by now is never looked at again.
    """
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


def _mappings() -> int:
    """Of this process; many where no one says."""
    try:
        return pathlib.Path("/proc/self/maps").read_bytes().count(b"\n")
    except OSError:
        return sys.maxsize


def _shared(name: str, variable: str) -> pathlib.Path | None:
    folder = pathlib.Path(os.environ.get(variable) or ROOT.parent / "shared" / name)
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def data_dir() -> pathlib.Path:
    """The folder of real images, DEEPSSIM_DATA or ../shared/data; skips where there is none."""
    folder = _shared("data", "DEEPSSIM_DATA")
    if folder is None:
        pytest.skip(
            "no real images here: set DEEPSSIM_DATA to the folder that holds cxr/, brain3d/"
        )
    return folder


@pytest.fixture(scope="session")
def golden_dir() -> pathlib.Path:
    """The folder of golden values, DEEPSSIM_GOLDEN or ../shared/golden; skips where there is none.

    A test that does not find its file inside it must fail: open it, do not ask whether it exists.
    """
    folder = _shared("golden", "DEEPSSIM_GOLDEN")
    if folder is None:
        pytest.skip("no golden values here: set DEEPSSIM_GOLDEN to the folder that holds them")
    return folder
