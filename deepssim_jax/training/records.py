"""Numbers written down as training goes: one JSON object a line."""

import json
from collections.abc import Mapping
from pathlib import Path


class Records:
    """Appends to a `.jsonl` file; lines after `step` of an earlier, stopped run are dropped."""

    def __init__(self, path: Path, *, step: int):
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = []
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:  # the line a killed run was writing
                    continue
                if entry["step"] <= step:
                    kept.append(line)
        path.write_text("".join(line + "\n" for line in kept))
        self._path = path

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds one line."""
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
