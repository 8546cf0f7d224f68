"""Numbers written down as training goes: one JSON object a line, and TensorBoard where installed."""

import importlib
import importlib.util
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from deepssim_jax.workspace import Workspace

_METRICS, _SPEED = "metrics.jsonl", "speed.jsonl"

# Dense bfloat16 flops a second of one device, by the start of its name (the makers' data sheets).
_PEAK = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}


class Records:
    """Appends to `metrics.jsonl`; lines after `step` of an earlier, stopped run are dropped.

    With the `tensorboard` extra the same numbers go to `tensorboard/` as well. Of several processes
    the first one writes.
    """

    def __init__(self, workspace: Workspace, *, step: int):
        self._workspace = workspace
        path = workspace.path(_METRICS)
        kept = [(line, entry) for line, entry in _lines(path) if entry["step"] <= step]
        # Kept in memory too, so that every process knows them without reading the file again.
        self._entries = [entry for _, entry in kept]
        self._first = jax.process_index() == 0
        self._board: Any = None
        if not self._first:
            return
        # Whole or as it was: the best state so far is known from these lines alone.
        workspace.write(_METRICS, "".join(line + "\n" for line, _ in kept).encode())
        if importlib.util.find_spec("tensorboardX") is not None:
            board = importlib.import_module("tensorboardX")
            folder = str(workspace.lend("tensorboard"))
            self._board = board.SummaryWriter(folder, purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds one line."""
        self._entries.append({"step": step, **values})
        if not self._first:
            return
        self._workspace.append(_METRICS, json.dumps(self._entries[-1]))
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def lowest(self, name: str) -> float:
        """The smallest value of this name so far; infinite without one."""
        return min((e[name] for e in self._entries if name in e), default=float("inf"))

    def close(self) -> None:
        """Writes out what TensorBoard still holds."""
        if self._board is not None:
            self._board.close()


class Speed:
    """Images a second, and the share of the devices' peak where that is known, into `speed.jsonl`.

    Apart from the metrics, which are the same whenever the same run is made. `peak` is that of one
    device or None; `flops` of one step is for the caller to fill in.
    """

    def __init__(self, workspace: Workspace, *, images: int):
        kind = jax.devices()[0].device_kind
        self.peak = next((p for name, p in _PEAK.items() if kind.startswith(name)), None)
        self.flops: float | None = None
        self._workspace, self._images = workspace, images
        self._mark: tuple[int, float] | None = None

    def tick(self, step: int) -> None:
        """Says that this many steps are done; the first call starts the clock."""
        now = time.perf_counter()
        if self._mark is not None and step > self._mark[0]:
            rate = (step - self._mark[0]) / (now - self._mark[1])
            entry: dict[str, float] = {"step": step, "images_per_s": round(rate * self._images, 1)}
            if self.peak is not None and self.flops is not None:
                most = self.peak * jax.device_count()
                entry["utilisation"] = round(rate * self.flops / most, 4)
            self._workspace.append(_SPEED, json.dumps(entry))
        self._mark = (step, now)


def _lines(path: Path) -> list[tuple[str, dict]]:
    out = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            out.append((line, json.loads(line)))
        except json.JSONDecodeError:  # the line a killed run was writing
            continue
    return out
