"""Steps are keyed by content, settings and code; whole or absent; made once."""

import ast
import dataclasses
import enum
import importlib
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deepssim_jax.workspace import Workspace, code_of, key_of, keys

PAIR = np.dtype([("query", "<i4"), ("score", "<f4")])


class Kind(enum.StrEnum):
    """A setting."""

    A = "a"
    B = "b"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings."""

    size: int = 3
    kind: Kind = Kind.A


@dataclasses.dataclass(frozen=True)
class Others:
    """The same fields under another name."""

    size: int = 3
    kind: Kind = Kind.A


DIFFERENT = [
    None, True, 1, 1.0, "1", "a", b"a", Kind.A, Kind.B, Settings(), Settings(4), Others(), float("nan"),
    np.zeros(3), np.zeros(3, np.float32), np.zeros((3, 1)), np.int32(1), np.zeros(0), np.zeros((0, 3)),
    [1, 2], [2, 1], [[1], 2], {"a": 1}, {"a": 2}, {"b": 1}, {"a", "b"}, [], {}, -0.0, 0.0, np.zeros(1, PAIR),
]  # fmt: skip


def test_values_that_differ_have_keys_that_differ():
    found = [key_of(value) for value in DIFFERENT]
    assert len(set(found)) == len(DIFFERENT)


def test_equal_values_have_equal_keys():
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    assert key_of((1, 2)) == key_of([1, 2]) == key_of(range(1, 3))
    grid = np.arange(12).reshape(3, 4)
    assert key_of(grid.T) == key_of(np.ascontiguousarray(grid.T)) != key_of(grid)
    assert len(key_of(1)) == 64


@pytest.mark.parametrize("value", [lambda: 1, object(), np.array([object()]), Settings, iter([])])
def test_what_has_no_content_is_no_input(value):
    with pytest.raises(TypeError, match="no content"):
        key_of(value)


def test_a_path_is_no_input(tmp_path):
    with pytest.raises(TypeError, match="sha256"):
        key_of(tmp_path)


def test_the_key_is_the_same_in_every_process():
    code = (
        "from deepssim_jax.workspace import code_of, key_of, files\n"
        "print(key_of({'a', 'b'}), code_of(files.sha256))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1 and len(found.pop()) == 130


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of three modules: `top` imports `middle`, which imports `low` within a function."""
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "__init__.py").write_text("from house import other\n")
    (tmp_path / "house" / "top.py").write_text("from . import middle\ndef make(): return 1\n")
    (tmp_path / "house" / "middle.py").write_text("def f():\n    from house.low import g\n")
    (tmp_path / "house" / "low.py").write_text("def g(): return 1\n")
    (tmp_path / "house" / "other.py").write_text("X = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(keys, "_PACKAGE", "house")

    def fingerprint():
        for name in [n for n in sys.modules if n.split(".")[0] == "house"]:
            del sys.modules[name]
        importlib.invalidate_caches()
        keys._code_of_module.cache_clear()
        keys._file_of.cache_clear()
        return code_of(importlib.import_module("house.top").make)

    yield tmp_path / "house", fingerprint
    keys._code_of_module.cache_clear()
    keys._file_of.cache_clear()
    for name in [n for n in sys.modules if n.split(".")[0] == "house"]:
        del sys.modules[name]


@pytest.mark.parametrize("module", ["top", "middle", "low"])
def test_the_code_is_that_of_all_it_can_reach(package, module):
    folder, fingerprint = package
    before = fingerprint()
    assert before == fingerprint()
    with (folder / f"{module}.py").open("a") as file:
        file.write("# another line\n")
    assert fingerprint() != before


def test_code_that_cannot_be_reached_does_not_count(package):
    folder, fingerprint = package
    before = fingerprint()
    (folder / "other.py").write_text("X = 2\n")
    assert fingerprint() == before


@pytest.mark.parametrize(
    "line",
    [
        "import house.low as deep, house.middle",
        "from house import low  # the lower one",
        "from house import (\n    low,  # one, of two\n    middle as m,\n)",
        "from house import low, \\\n    middle",
        "    from . import low",
        "from .low import (g)",
        "x = 1; from .low import g\nfrom .low import g; y = 2",
    ],
)
def test_every_form_of_an_import_counts(package, line):
    folder, fingerprint = package
    found = set(keys._imported("house.top", line.encode()))
    assert "house.low" in found and found <= {"house.low", "house.middle"}


def test_imports_of_this_package_are_those_of_its_syntax_trees():
    root = Path(keys.__file__).parents[1]
    for path in root.rglob("*.py"):
        parts = path.relative_to(root.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        wanted = {
            node.module
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("deepssim_jax.")
        }
        assert wanted <= set(keys._imported(name, path.read_bytes())), name


def test_a_reader_of_another_version_makes_another_key(monkeypatch):
    known, version = code_of(key_of), importlib.metadata.version

    def other(name):
        if name == "pydicom":
            raise importlib.metadata.PackageNotFoundError
        return version(name)

    try:
        for cached in (keys._code_of_module, keys._versions):
            cached.cache_clear()
        with monkeypatch.context() as patch:
            patch.setattr(importlib.metadata, "version", other)
            assert code_of(key_of) != known
    finally:
        for cached in (keys._code_of_module, keys._versions):
            cached.cache_clear()
    assert code_of(key_of) == known


def test_the_code_of_a_search_holds_the_kernels_below_it():
    """By names, so that a file which moves is not forgotten here."""
    from deepssim_jax.scoring import match

    seen, waiting = set(), [match.__name__]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += keys._imported(name, keys._source(name))
    assert {"deepssim_jax.ops.registration", "deepssim_jax.scoring.verify"} <= seen
    assert not {name for name in seen if ".cli" in name or ".report" in name}


def counted(value):
    """A function that gives a value and counts its calls."""

    def make(*rows):
        make.calls += 1
        return value

    make.calls = 0
    return make


VALUES = [
    np.arange(6.0).reshape(2, 3), np.zeros((0, 4), np.uint16), np.array([(1, 0.5)], PAIR),
    np.array(["a", "bc"]),
    {"a": np.arange(3), "b": np.zeros(2, PAIR)}, {"x": 1, "y": [1.5, None, "t"]}, [], None, 0.1,
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda v: type(v).__name__)
def test_a_step_is_made_once_and_comes_back_equal(tmp_path, value):
    make = counted(value)
    for _ in range(2):
        with Workspace.open(tmp_path / "out", command="a") as workspace:
            for _ in range(2):
                np.testing.assert_equal(workspace.step("x", [1], make), value)
                found = workspace.step("x", [1], make)
                if isinstance(value, np.ndarray):
                    assert found.dtype == value.dtype and found.flags.writeable
    assert make.calls == 1


def test_the_same_value_has_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        with Workspace.open(tmp_path / name, command="a") as workspace:
            workspace.step("x", 1, lambda: {"b": np.arange(3), "a": np.zeros(2, PAIR)})
    files = [sorted((tmp_path / name / "work" / "steps").iterdir()) for name in ("a", "b")]
    assert [p.name for p in files[0]] == [p.name for p in files[1]]
    assert files[0][0].read_bytes() == files[1][0].read_bytes()


def test_other_inputs_names_sections_and_code_make_other_steps(tmp_path):
    with Workspace.open(tmp_path / "out", command="a") as workspace:
        makers = [counted(number) for number in range(5)]
        found = [
            workspace.step("x", 1, makers[0]),
            workspace.step("x", 2, makers[1]),
            workspace.step("y", 1, makers[2]),
            workspace.section("s", "key").step("x", 1, makers[3]),
            workspace.section("s", "other").step("x", 1, makers[4]),
        ]
        assert found == [0, 1, 2, 3, 4]
        assert workspace.section("s", "key").step("x", 1, makers[0]) == 3


def test_a_changed_file_of_equal_size_is_another_input(tmp_path):
    with Workspace.open(tmp_path / "out", command="a") as workspace:
        a, b = np.zeros(3), np.zeros(3)
        b[1] = 1
        assert [workspace.step("x", x, lambda x=x: x.tolist()) for x in (a, b)] == [
            [0] * 3,
            [0, 1, 0],
        ]


def test_a_damaged_step_is_made_again(tmp_path):
    make = counted([1, 2])
    with Workspace.open(tmp_path / "out", command="a") as workspace:
        workspace.step("x", 1, make)
        (path,) = (tmp_path / "out" / "work" / "steps").iterdir()
        path.write_bytes(b"[1, 3]")
        assert workspace.step("x", 1, make) == [1, 2]
        path.unlink()
        assert workspace.step("x", 1, make) == [1, 2]
    assert make.calls == 3


@pytest.mark.parametrize("count", [0, 1, 7, 8])
@pytest.mark.parametrize("block", [1, 3, 8])
def test_rows_are_joined_whatever_the_block(tmp_path, count, block):
    def make(rows):
        return np.array([(r, r / 2) for r in rows for _ in range(r % 3)], PAIR)

    told = []
    with Workspace.open(tmp_path / "out", command="a") as workspace:
        found = workspace.by_rows(
            "x", 1, make, count=count, block=block, on_progress=lambda *a: told.append(a), what="w"
        )
    np.testing.assert_array_equal(found, make(np.arange(count)))
    assert found.dtype == PAIR and told[-1] == (count, count, "w")
    assert len(list((tmp_path / "out" / "work" / "steps").iterdir())) == 1


def test_finished_blocks_are_kept(tmp_path):
    seen = []

    def make(rows):
        if len(seen) == 3:
            seen.append(None)
            raise KeyboardInterrupt
        seen.append(rows.tolist())
        return {"r": rows, "s": rows * 2}

    for attempt in range(2):
        with Workspace.open(tmp_path / "out", command="a") as workspace:
            if not attempt:
                with pytest.raises(KeyboardInterrupt):
                    workspace.by_rows("x", 1, make, count=9, block=2)
            else:
                found = workspace.by_rows("x", 1, make, count=9, block=2)
    assert seen == [[0, 1], [2, 3], [4, 5], None, [6, 7], [8]]
    np.testing.assert_array_equal(found["s"], np.arange(9) * 2)


def test_prune_drops_only_own_steps_that_were_not_used(tmp_path):
    steps, cache = tmp_path / "out" / "work" / "steps", tmp_path / "out" / "work" / "cache"
    with Workspace.open(tmp_path / "out", command="a") as workspace:
        for number in range(3):
            workspace.step("x", number, lambda: [1])
    (steps / "notes.txt").write_text("mine")
    (steps / "folder").mkdir()
    with Workspace.open(tmp_path / "out", command="a") as workspace:
        workspace.step("x", 1, lambda: [1])
        workspace.step("y", 1, lambda: [1])
        workspace.prune()
    left = sorted(p.name.split("-")[0] for p in steps.iterdir())
    assert left == ["folder", "notes.txt", "x", "y"] and not cache.exists()


def test_what_has_no_file_is_refused(tmp_path):
    import ml_dtypes

    with Workspace.open(tmp_path / "out", command="a") as workspace:
        for value in (object(), np.array([object()]), np.zeros(2, ml_dtypes.bfloat16)):
            with pytest.raises((TypeError, ValueError), match="serializable|[Oo]bject|bfloat16"):
                workspace.step("x", 1, lambda value=value: value)
        with pytest.raises(ValueError, match="must be of letters"):
            workspace.step("../x", 1, lambda: 1)
