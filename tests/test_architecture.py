"""The house keeps its shape: who may import whom, and what no file may do.

The checker reads syntax trees and imports nothing. Each rule is shown to be able to fail on a
planted violation.
"""

import ast
import dataclasses
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = "deepssim_jax"

# From the bottom up. A room may import what stands below its row, and itself.
ROWS = (
    {"typing", "workspace"},
    {"ops", "parallel"},
    {"nn", "diffusion", "data"},
    {"features"},
    {"training", "scoring", "interop"},
    {"detection"},
    {"audit"},
    {"jobs"},
    {"cli", "testing"},
)
LEVEL = {room: level for level, row in enumerate(ROWS) for room in row}
# The public face and `python -m` stand above everything; nothing imports them but cli, for the
# version.
FACE = {"__init__", "__main__"}

# Who may import a library: rooms, or single files.
HOMES = {
    "orbax": {"training/checkpoints.py"},
    "grain": {"data"},
    "nibabel": {"data"},
    "pydicom": {"data"},
    "tifffile": {"data"},
    "imagecodecs": {"data"},
    "nrrd": {"data"},
    "PIL": {"data", "audit"},
    "absl": {"cli"},
    "ml_collections": {"cli"},
    "torch": {"interop"},
    "tensorflow": set(),
}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
NETWORK_MODULES = {"requests", "urllib", "http", "socket", "ftplib", "httpx", "aiohttp"}
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "misc"}

MESH_MAKERS = {"make_mesh", "Mesh", "AbstractMesh", "create_device_mesh", "set_mesh", "use_mesh"}
SPECS = {"P", "PartitionSpec"}
COLLECTIVES = {
    "psum", "pmean", "pmax", "pmin", "all_gather", "all_to_all", "ppermute", "psum_scatter",
    "axis_index", "axis_size", "pvary", "pcast",
}  # fmt: skip
AXIS_KEYWORDS = {"axis_name", "axis_names", "mesh_axes", "spmd_axis_name"}

MAX_LINES = 400
# Of a function, its docstring apart, and of its parameters.
MAX_CODE, MAX_PARAMETERS = 60, 7
# What takes more, and why. This list may only shrink.
WIDE = {
    "data/prepared.py:prepare": "a public job, each argument a flag",
    "features/matching.py:_rank": "arrays of one compiled program",
    "scoring/embed.py:build_side": "what is read, how, and where it is kept",
    "scoring/match.py:match": "what is searched, how, and where it is kept",
    "scoring/pairs.py:_step": "arrays of one compiled program",
    "scoring/pairs.py:largest_products": "a public function, most arguments with a default",
    "scoring/pairs.py:nearest": "a public function, most arguments with a default",
    "scoring/pairs.py:plan": "the arguments of the public functions",
    "scoring/points.py:_verified": "arrays of one compiled program",
    "scoring/volume_points.py:_into": "arrays of one compiled program",
    "training/autoencoder_step.py:create": "the parts of a training state",
    "workspace/steps.py:by_content": "what is made, of what, and who makes it",
    "workspace/steps.py:by_rows": "what is made, of what, and who makes it",
    "workspace/workspace.py:open": "who owns a folder: each argument is a rule of its own",
}

# What creates, replaces or deletes files and folders; only the workspace does. Names that mean the
# same wherever they stand, those that do in these modules alone, and the workspace's own tools.
WORKSPACE = "workspace"
WRITERS = {
    "write_bytes", "write_text", "mkdir", "makedirs", "rmdir", "removedirs", "rmtree", "unlink",
    "rename", "renames", "touch", "chmod", "symlink_to", "hardlink_to", "tofile", "savez",
    "savez_compressed", "savetxt", "save_file", "to_csv", "mkstemp", "mkdtemp", "TemporaryDirectory",
    "NamedTemporaryFile", "TemporaryFile", "SpooledTemporaryFile", "copyfile", "copytree", "copyfileobj",
    "write_array", "replacing", "append_line", "make_folder", "truncate",
}  # fmt: skip
WRITERS_OF = {
    "os": {"open", "replace", "remove", "link", "symlink", "mkfifo", "mknod", "write"},
    "shutil": {"move", "copy", "copy2", "copymode", "copystat", "chown", "make_archive", "unpack_archive"},
    "np": {"save"},
    "numpy": {"save"},
    "nibabel": {"save"},
    "nib": {"save"},
    "torch": {"save"},
}  # fmt: skip
# Programs, compiled or traced, are the user's cache and nobody's output. PyTorch writes into memory.
# What a test asks for is no output of a command: a folder that an audit will read has no marker.
WRITES_ALLOWED = {
    ("cli/compile_cache.py", "mkdir"),
    ("interop/torch_files.py", "save"),
    ("ops/programs.py", "write_bytes"),
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """A place that breaks a rule."""

    path: str  # relative to the package, posix
    line: int
    text: str

    def __str__(self) -> str:
        return f"{PACKAGE}/{self.path}:{self.line}: {self.text}"


def _room(path: str) -> str:
    return path.split("/")[0].removesuffix(".py")


def _imports(tree: ast.AST, path: str) -> Iterator[tuple[str, int]]:
    """Yields every dotted name that the file imports, wherever it stands in the file."""
    package = [PACKAGE, *path.split("/")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{stem}.{alias.name}", node.lineno
        elif isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__"):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value, node.lineno


def _called(node: ast.Call) -> str:
    function = node.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _holds_text(node: ast.AST) -> bool:
    return any(isinstance(x, ast.Constant) and isinstance(x.value, str) for x in ast.walk(node))


def _import_findings(tree: ast.AST, path: str) -> Iterator[tuple[int, str]]:
    here = _room(path)
    for target, line in _imports(tree, path):
        top, _, rest = target.partition(".")
        if top in FORBIDDEN_MODULES:
            yield line, f"imports {top}, which runs code that it reads"
        if top in NETWORK_MODULES:
            yield line, f"imports {top}: nothing here uses the network"
        if top in HOMES and not HOMES[top] & {here, path}:
            allowed = " and ".join(sorted(HOMES[top])) or "no file"
            yield line, f"imports {top}, which {allowed} may"
        if top != PACKAGE or here in FACE:
            continue
        there = rest.split(".")[0]
        if not there or there not in LEVEL:
            if here != "cli":
                yield line, "imports the public face: name the module that holds what it needs"
        elif there != here and LEVEL[there] > LEVEL[here]:
            yield line, f"{here} imports {there}, which stands above it"
        elif there != here and LEVEL[there] == LEVEL[here]:
            yield line, f"{here} imports {there}, which stands on the same row"


def _mesh_findings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = _called(node)
        if name in MESH_MAKERS:
            yield node.lineno, f"calls {name}: only parallel.py builds a mesh"
        spelled = [k.value for k in node.keywords if k.arg in AXIS_KEYWORDS]
        if name in SPECS:
            spelled += node.args
        if name in COLLECTIVES:
            spelled += node.args[:2]
        if any(_holds_text(value) for value in spelled):
            yield node.lineno, f"spells an axis name in {name}(): only parallel.py does"


def _loader_findings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        for keyword in node.keywords:
            if keyword.arg == "allow_pickle" and getattr(keyword.value, "value", None) is not False:
                yield node.lineno, "allow_pickle must be False"
            if keyword.arg == "autoescape" and getattr(keyword.value, "value", None) is False:
                yield node.lineno, "autoescape must not be off"
        function = node.func
        if (
            isinstance(function, ast.Attribute)
            and function.attr == "load"
            and isinstance(function.value, ast.Name)
            and function.value.id == "torch"
            and not any(
                k.arg == "weights_only" and getattr(k.value, "value", None) is True
                for k in node.keywords
            )
        ):
            yield node.lineno, "torch.load without weights_only=True runs code that it reads"
        if isinstance(function, ast.Name) and function.id in ("eval", "exec"):
            yield node.lineno, f"calls {function.id}"


def _write_findings(tree: ast.AST, path: str) -> Iterator[tuple[int, str]]:
    # Such as `from shutil import move`.
    taken = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in WRITERS_OF
        for alias in node.names
        if alias.name in WRITERS_OF[node.module]
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name, function = _called(node), node.func
        owner = ""
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
            owner = function.value.id
        writes = name in WRITERS or name in WRITERS_OF.get(owner, ())
        if name == "open" and owner not in ("os", "Workspace", "tarfile", "zipfile"):
            writes = _opens_to_write(node)
        # Of one argument it is a path's; of text it has two, and dataclasses' has keywords.
        if name == "replace" and isinstance(function, ast.Attribute):
            writes |= len(node.args) == 1 and not node.keywords
        if isinstance(function, ast.Name):
            writes |= name in taken
        if writes and (path, name) not in WRITES_ALLOWED:
            yield node.lineno, f"calls {name}, and only {WORKSPACE} writes or deletes files"


def _opens_to_write(node: ast.Call) -> bool:
    """Whether a mode is given that is not known to read."""
    modes = [k.value for k in node.keywords if k.arg == "mode"]
    place = 1 if isinstance(node.func, ast.Name) else 0
    named = [x for x in node.args[place : place + 2] if _holds_text(x)]
    texts = [x.value for x in (*modes, *named) if isinstance(x, ast.Constant)]
    return any(set(str(text)) & set("wax+") for text in texts if len(str(text)) <= 3) or any(
        not isinstance(x, ast.Constant) for x in modes
    )


def _sizes(tree: ast.AST, path: str) -> Iterator[tuple[str, int, int, int]]:
    """Name, line, lines of code and number of parameters of every function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            end = node.end_lineno or node.lineno
            first = node.body[0]
            text = ast.get_docstring(node, clean=False) is not None
            told = (first.end_lineno or first.lineno) - first.lineno + 1 if text else 0
            taken = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            lines = end - node.lineno + 1 - told
            yield f"{path}:{node.name}", node.lineno, lines, len(taken)


def _size_findings(tree: ast.AST, path: str) -> Iterator[tuple[int, str]]:
    for name, line, lines, parameters in _sizes(tree, path):
        if lines > MAX_CODE:
            yield line, f"{name}: {lines} lines of code: does it do two things?"
        if parameters > MAX_PARAMETERS and name not in WIDE:
            yield line, f"{name}: {parameters} parameters: which of them belong together?"


def check(root: pathlib.Path) -> list[Finding]:
    """Returns every place under `root` (a folder laid out as the package) that breaks a rule."""
    findings = []
    for file in sorted(root.rglob("*.py")):
        path = file.relative_to(root).as_posix()
        text = file.read_text(encoding="utf-8")
        tree = ast.parse(text, filename=str(file))
        found = [*_import_findings(tree, path), *_loader_findings(tree)]
        found += _size_findings(tree, path)
        if path != "parallel.py":
            found += _mesh_findings(tree)
        if _room(path) != WORKSPACE:
            found += _write_findings(tree, path)
        if _room(path) not in LEVEL.keys() | FACE:
            found.append((1, f"{_room(path)} is no room of the design"))
        if FORBIDDEN_NAMES & {part.removesuffix(".py") for part in path.split("/")}:
            found.append((1, "a name that says nothing: call it what it holds"))
        if text.count("\n") > MAX_LINES:
            found.append((1, f"{text.count(chr(10))} lines: does it hold two things?"))
        if not ast.get_docstring(tree):
            found.append((1, "no module docstring: it states the array contract"))
        findings += [Finding(path, line, words) for line, words in sorted(set(found))]
    return findings


def test_the_package_keeps_its_shape():
    findings = check(ROOT / PACKAGE)
    assert not findings, "\n" + "\n".join(map(str, findings))


def test_the_list_of_wide_functions_only_shrinks():
    """A name leaves the list as soon as its function is small again, or gone."""
    wide = set()
    for file in sorted((ROOT / PACKAGE).rglob("*.py")):
        path = file.relative_to(ROOT / PACKAGE).as_posix()
        for name, _, _, parameters in _sizes(ast.parse(file.read_text("utf-8")), path):
            wide |= {name} if parameters > MAX_PARAMETERS else set()
    assert WIDE.keys() <= wide, WIDE.keys() - wide
    assert len(WIDE) <= 14


def test_benchmarks_and_configs_use_only_what_stands_below_them():
    """They stand beside cli: nothing in the package may know of them."""
    names = ("benchmarks", "configs", "tests", "launch")
    for file in sorted((ROOT / PACKAGE).rglob("*.py")):
        path = file.relative_to(ROOT / PACKAGE).as_posix()
        for target, line in _imports(ast.parse(file.read_text(encoding="utf-8")), path):
            top = target.split(".")[0]
            assert top not in names, f"{path}:{line} imports {top}"


PLANTED = [
    ("ops/ssim.py", "from deepssim_jax.data import store", "stands above it"),
    ("ops/ssim.py", "from ..scoring.pairs import nearest", "stands above it"),
    ("ops/ssim.py", "def f():\n    import deepssim_jax.audit.audit", "stands above it"),
    ("typing.py", "from . import ops", "stands above it"),
    ("nn/embedder.py", "from deepssim_jax.data import store", "same row"),
    ("ops/ssim.py", "from deepssim_jax import parallel", "same row"),
    ("scoring/embed.py", "import deepssim_jax.training.loop", "same row"),
    ("audit/audit.py", "import deepssim_jax as ds", "public face"),
    ("training/loop.py", "import orbax.checkpoint as ocp", "imports orbax"),
    ("training/loop.py", "import grain", "imports grain"),
    ("scoring/embed.py", "from PIL import Image", "imports PIL"),
    ("audit/audit.py", "import nibabel", "imports nibabel"),
    ("audit/audit.py", "import importlib\nimportlib.import_module('pydicom')", "imports pydicom"),
    ("training/loop.py", "from absl import flags", "imports absl"),
    ("nn/embedder.py", "import ml_collections", "imports ml_collections"),
    ("data/store.py", "import torch\ntorch.load('x')", "torch.load"),
    ("data/store.py", "import torch\ntorch.load('x', weights_only=FLAG)", "torch.load"),
    ("data/store.py", "import pickle", "runs code"),
    ("data/store.py", "from urllib import request", "network"),
    ("data/store.py", "import numpy as np\nnp.load('x', allow_pickle=True)", "allow_pickle"),
    ("data/store.py", "import numpy as np\nnp.load('x', allow_pickle=FLAG)", "allow_pickle"),
    ("audit/report.py", "E(autoescape=False)", "autoescape"),
    ("data/store.py", "eval('1')", "calls eval"),
    ("training/loop.py", "import jax\njax.make_mesh((8,), AXES)", "builds a mesh"),
    ("training/loop.py", "import jax\nX = jax.P('data')", "axis name"),
    ("training/loop.py", "import jax\nX = jax.P(('data', 'fsdp'), None)", "axis name"),
    ("nn/embedder.py", "import jax\njax.lax.pmean(x, 'data')", "axis name"),
    ("nn/embedder.py", "import jax\njax.lax.pmean(x, axis_name='data')", "axis name"),
    ("ops/utils.py", "X = 1", "says nothing"),
    ("audit/audit.py", "open('x', 'w')", "writes or deletes"),
    ("audit/audit.py", "open('x', mode='ab')", "writes or deletes"),
    ("audit/audit.py", "open('x', mode=HOW)", "writes or deletes"),
    ("audit/audit.py", "import io\nio.open('x', 'r+')", "writes or deletes"),
    ("audit/audit.py", "p.open('xb')", "writes or deletes"),
    ("audit/audit.py", "import gzip\ngzip.open('x', 'wb')", "writes or deletes"),
    ("audit/audit.py", "p.write_bytes(b'')", "writes or deletes"),
    ("audit/audit.py", "p.write_text('')", "writes or deletes"),
    ("audit/audit.py", "p.mkdir()", "writes or deletes"),
    ("audit/audit.py", "import os\nos.makedirs('x')", "writes or deletes"),
    ("audit/audit.py", "import shutil\nshutil.rmtree('x')", "writes or deletes"),
    ("audit/audit.py", "from shutil import rmtree\nrmtree('x')", "writes or deletes"),
    ("audit/audit.py", "from shutil import move\nmove('x', 'y')", "writes or deletes"),
    ("audit/audit.py", "import shutil\nshutil.copy('x', 'y')", "writes or deletes"),
    ("audit/audit.py", "p.unlink()", "writes or deletes"),
    ("audit/audit.py", "import os\nos.remove('x')", "writes or deletes"),
    ("audit/audit.py", "p.rename(q)", "writes or deletes"),
    ("audit/audit.py", "p.replace(q)", "writes or deletes"),
    ("audit/audit.py", "import os\nos.replace('x', 'y')", "writes or deletes"),
    ("audit/audit.py", "import os\nos.open('x', os.O_CREAT)", "writes or deletes"),
    ("audit/audit.py", "p.chmod(0o644)", "writes or deletes"),
    ("audit/audit.py", "p.symlink_to(q)", "writes or deletes"),
    ("audit/audit.py", "import numpy as np\nnp.save('x', A)", "writes or deletes"),
    ("audit/audit.py", "import numpy as np\nnp.savez('x', A)", "writes or deletes"),
    ("audit/audit.py", "a.tofile('x')", "writes or deletes"),
    ("data/store.py", "import nibabel\nnibabel.save(I, 'x')", "writes or deletes"),
    ("audit/audit.py", "import tempfile\ntempfile.mkstemp()", "writes or deletes"),
    ("audit/audit.py", "import tempfile\ntempfile.TemporaryDirectory()", "writes or deletes"),
    (
        "audit/audit.py",
        "from deepssim_jax.workspace.files import write_bytes\nwrite_bytes(p, b'')",
        "writes or deletes",
    ),
    ("common/x.py", "X = 1", "no room"),
    ("ops/long.py", "X = 1\n" * 500, "lines"),
    ("ops/long.py", "def f():\n" + "    x = 1\n" * 60, "61 lines of code"),
    ("ops/wide.py", "def f(a, b, c, d, e, f, *, g, h): ...", "8 parameters"),
]


@pytest.mark.parametrize(("path", "code", "words"), PLANTED)
def test_a_planted_violation_is_found(tmp_path, path, code, words):
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f'"""Planted."""\n{code}\n')
    assert any(words in finding.text for finding in check(tmp_path)), check(tmp_path)


def test_a_missing_module_docstring_is_found(tmp_path):
    (tmp_path / "typing.py").write_text("X = 1\n")
    assert [finding.text[:19] for finding in check(tmp_path)] == ["no module docstring"]


ALLOWED = [
    ("cli/audit.py", "from absl import flags\nfrom deepssim_jax.audit import audit"),
    ("cli/main.py", "import deepssim_jax"),
    ("training/checkpoints.py", "import orbax.checkpoint as ocp"),
    (
        "training/loop.py",
        "from deepssim_jax import parallel\nfrom deepssim_jax.data import phantom",
    ),
    ("data/readers.py", "import nibabel\nfrom PIL import Image\nimport grain"),
    ("data/store.py", "import numpy as np\nnp.load('x', allow_pickle=False)"),
    ("parallel.py", "import jax\nMESH = jax.make_mesh((8,), ('data',))\nROWS = jax.P('data')"),
    ("nn/embedder.py", "import jax\njax.lax.pmean(x, AXIS)\nX = jax.P(AXIS)"),
    ("audit/report.py", "from PIL import Image"),
    ("workspace/files.py", "import os\nos.replace('x', 'y')\nopen('x', 'wb')"),
    ("audit/audit.py", "from deepssim_jax.workspace import Workspace\nWorkspace.open(OUT)"),
    ("audit/audit.py", "open('x')\nopen('x', 'rb')\np.open(newline='', encoding='utf-8')"),
    ("audit/audit.py", "'a'.replace('a', 'b')\nimport dataclasses\ndataclasses.replace(a, b=1)"),
    ("cli/compile_cache.py", "folder.mkdir()"),
    ("ops/short.py", 'def f():\n    """' + "A.\n" * 70 + '"""\n' + "    x = 1\n" * 50),
]


@pytest.mark.parametrize(("path", "code"), ALLOWED)
def test_what_the_design_allows_is_not_reported(tmp_path, path, code):
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f'"""Allowed."""\n{code}\n')
    assert check(tmp_path) == []
