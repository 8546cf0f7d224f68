"""Several processes on one workspace: they share blocks, and come to the same values and bytes.

Threads stand for processes: what they share is the folder and the agreement, as real ones do.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from deepssim_jax.workspace import By, Made, Processes, Workspace, WorkspaceError
from tests.workspace.folders import tree


def together(count, work):
    """Runs `work(processes)` once a process."""
    barrier, said = threading.Barrier(count, timeout=20), [True]

    def agreed(index):
        def ask(answer):
            if index == 0:
                said[0] = answer
            barrier.wait()
            found = said[0]
            barrier.wait()  # nobody asks again before all have heard
            return found

        return ask

    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(work, Processes(i, count, agreed(i))) for i in range(count)]
        return [future.exception() or future.result() for future in futures]


def alone(workspace):
    """What the first process makes while the others wait may be made of steps that all share else."""
    return [int(workspace.by_rows("inner", 1, lambda rows: rows, count=7, block=3).sum()) - 7]


def outputs(workspace, made):
    made.append("both")
    workspace.write("twice.txt", b"42")
    assert workspace.secret() and workspace.intact("twice.txt")


def job(out, made):
    def run(processes):
        with Workspace.open(out, command="a", processes=processes) as workspace:

            def block(rows):
                made.append((processes.index, rows.tolist()))
                return rows * 2

            rows = workspace.by_rows("rows", 1, block, count=7, block=2)
            one = workspace.step("one", 1, lambda: [processes.index])
            both = workspace.step("both", 1, lambda: [made.append("both")], by=By.ALL)
            ids = [str(i) for i in range(7)]
            cache = workspace.cache("x", 1, code=job)
            own = ids[processes.index :: processes.count]
            cache.compute(own, lambda p: Made({"x": np.array([int(own[i]) for i in p])}), block=2)
            cache.share()
            entries = cache.entries(ids)
            ones = workspace.by_content("ones", 1, lambda p: Made({"x": p}), ids=ids, block=2)
            assert ones.field("x").tolist() == list(range(7))
            apart = workspace.step("apart", 1, lambda: alone(workspace))
            assert apart == [14]
            workspace.write("sum.csv", str(rows.sum()).encode())
            workspace.append("lines.txt", "one")
            workspace.by_first(lambda: outputs(workspace, made))
            assert workspace.path("twice.txt").read_text() == "42"
            workspace.prune()
            return rows, one, both, entries.field("x")

    return run


@pytest.mark.parametrize("count", [2, 3])
def test_blocks_are_shared_and_values_the_same(tmp_path, count):
    made = []
    for attempt in range(2):
        for rows, one, both, field in together(count, job(tmp_path / "many", made)):
            np.testing.assert_array_equal(rows, np.arange(7) * 2)
            np.testing.assert_array_equal(field, np.arange(7))
            assert one == [0] and both == [None]
        if not attempt:
            blocks = [x for x in made if x != "both"]
            assert sorted(rows for _, rows in blocks) == [[0, 1], [2, 3], [4, 5], [6]]
            assert {index for index, _ in blocks} == set(range(count))
            assert made.count("both") == count + 1  # the step of all, and the outputs once
            before = len(made)
    assert len(made) == before + 1  # the outputs
    together(1, job(tmp_path / "one", []))
    one, many = (tree(tmp_path / name) for name in ("one", "many"))
    for name, content in one.items():
        if name.startswith(("work/steps", "work/cache")) or name == "sum.csv":
            assert "inner" in name or "/x-" in name or many[name] == content, name


@pytest.mark.parametrize("new", [["a"], ["a", "b"]])
def test_the_same_new_image_of_two_processes_is_written_once(tmp_path, new):
    """Equal files in two chunks: both processes find them new at the same moment."""
    meet = threading.Barrier(2, timeout=20)

    def run(processes):
        with Workspace.open(tmp_path / "out", command="a", processes=processes) as workspace:
            cache = workspace.cache("x", 1, code=job)

            def make(places):
                meet.wait()
                return Made({"x": places.astype(np.float64).repeat(100_000).reshape(-1, 100_000)})

            cache.compute(new, make, block=2)
            cache.share()
            return cache.entries(new).field("x")[:, 0].tolist()

    assert together(2, run) == [list(range(len(new)))] * 2
    assert len(list((tmp_path / "out" / "work" / "cache").rglob("*.json"))) == 1


def test_where_the_first_cannot_no_one_goes_on(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    errors = together(2, job(tmp_path, []))
    assert all(isinstance(error, WorkspaceError) for error in errors)
    assert "did not make" in str(errors[0]) and "says why" in str(errors[1])
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
