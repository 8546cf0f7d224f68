"""A workspace through whatever may happen to it: kills, resumes, strangers' files, two at once.

The model knows which files are not the workspace's. They never change; a run that ends has written
exactly what its inputs ask for; a run that refuses has a reason.
"""

import contextlib
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from deepssim_jax.workspace import MARKER, Made, Workspace, WorkspaceError, files

OUTPUTS = ("a.csv", "deep/b.csv")
CALLS = ("fsync", "replace", "unlink", "mkdir", "open")


class Killed(BaseException):
    """The process is gone: nothing that it would still do is done."""


@contextlib.contextmanager
def killed_after(calls: int | None):
    """From the given call of the operating system on, every one of them fails."""
    left = [calls]

    def guarded(function):
        def call(*arguments, **how):
            if left[0] is not None:
                left[0] -= 1
                if left[0] < 0:
                    raise Killed
            return function(*arguments, **how)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(files.os, name, guarded(getattr(files.os, name)))
        yield


def expected(version: int) -> dict[str, bytes]:
    return {
        "a.csv": f"{version},{[version * row for row in range(5)]}".encode(),
        "deep/b.csv": f"{version},{sum(range(version + 3))}".encode(),
    }


def work(folder: Path, version: int) -> None:
    """A command: a step in blocks, entries of images, two outputs."""
    with Workspace.open(folder, command="work") as workspace:
        rows = workspace.by_rows("rows", version, lambda r: version * r, count=5, block=2)
        ids = [str(number) for number in range(version + 3)]
        entries = workspace.cache("images", 0, code=work).compute(
            ids, lambda places: Made({"x": np.array([int(ids[p]) for p in places])}), block=2
        )
        workspace.write("a.csv", f"{version},{rows.tolist()}".encode())
        workspace.write("deep/b.csv", f"{version},{entries.field('x').sum()}".encode())
        workspace.prune()


class Machine(RuleBasedStateMachine):
    """See the module."""

    def __init__(self):
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="machine-"))
        self.out = self.root / "out"
        self.strangers: dict[Path, bytes] = {}

    def teardown(self):
        shutil.rmtree(self.root)

    def refusal_has_a_reason(self, error: WorkspaceError) -> None:
        if "did not make" in str(error):
            assert not (self.out / MARKER).exists()
            assert any(self.out in path.parents for path in self.strangers)
        else:
            # A run that was killed before it began its list can prove nothing to be its own.
            listed = (self.out / "work" / "outputs.jsonl").exists()
            assert ("changed" if listed else "no list of what was written") in str(error)
            assert any(self.out / name in self.strangers for name in OUTPUTS), str(error)

    @rule(version=st.integers(0, 2))
    def run(self, version):
        foreign = any(self.out in path.parents for path in self.strangers)
        taken = any(self.out / name in self.strangers for name in OUTPUTS)
        must_refuse = taken or (foreign and not (self.out / MARKER).exists())
        try:
            work(self.out, version)
        except WorkspaceError as error:
            # A stranger's file under a name that was never written is met only when it is its turn.
            self.refusal_has_a_reason(error)
            return
        assert not must_refuse
        for name, content in expected(version).items():
            assert (self.out / name).read_bytes() == content
        assert set(self.out.rglob("*.tmp")) <= self.strangers.keys()
        steps = [p.name for p in (self.out / "work" / "steps").iterdir()]
        assert len([name for name in steps if name.startswith("rows-")]) == 1

    @rule(version=st.integers(0, 2), calls=st.integers(0, 60))
    def run_and_be_killed(self, version, calls):
        with contextlib.suppress(Killed), killed_after(calls):
            try:
                work(self.out, version)
            except WorkspaceError as error:
                self.refusal_has_a_reason(error)

    @rule(
        place=st.sampled_from(
            [".", "deep", "work", "work/steps", "work/cache", "work/cache/images*"]
        ),
        name=st.sampled_from(["notes-{}.npy", "00000{}.json", ".deepssim-{:016x}.tmp"]),
    )
    def a_stranger_leaves_a_file(self, place, name):
        """Under any name, as those that the workspace itself gives."""
        folder = next(iter(sorted(self.root.glob(f"out/{place}"))), self.out)
        path = folder / name.format(len(self.strangers))
        if folder != self.out or place == ".":
            folder.mkdir(exist_ok=True)
            path.write_bytes(b"mine")
            self.strangers[path] = b"mine"

    @precondition(lambda self: (self.out / MARKER).exists())
    @rule(name=st.sampled_from(OUTPUTS))
    def a_stranger_takes_an_outputs_place(self, name):
        path = self.out / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"edited")
        self.strangers[path] = b"edited"

    @precondition(lambda self: self.strangers)
    @rule(data=st.data())
    def a_stranger_takes_a_file_away(self, data):
        path = data.draw(st.sampled_from(sorted(self.strangers)))
        path.unlink()
        del self.strangers[path]

    @precondition(lambda self: (self.out / MARKER).exists())
    @rule()
    def another_command_and_a_second_process_are_refused(self):
        with (
            pytest.raises(WorkspaceError, match="holds the work of `work`"),
            Workspace.open(self.out, command="other"),
        ):
            pass
        with (
            contextlib.suppress(WorkspaceError),
            Workspace.open(self.out, command="work"),
            pytest.raises(WorkspaceError, match="in use by process"),
        ):
            work(self.out, 0)

    @invariant()
    def strangers_files_are_as_they_were(self):
        for path, content in self.strangers.items():
            assert path.read_bytes() == content


Machine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)
TestWorkspace = Machine.TestCase
