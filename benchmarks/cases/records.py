"""Records of measurements: a JSON line each, added to OUT/NAME.jsonl."""

import datetime
import json
from pathlib import Path


def dated(record: dict[str, object]) -> dict[str, object]:
    """The record with jax's version and the day."""
    import jax  # here, because a script may still choose the platform

    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {**record, "jax": jax.__version__, "day": day}


def keep(record: dict[str, object], folder: str | None, name: str) -> None:
    """Adds the record to `folder`/`name`.jsonl, making the folder; nothing without a folder."""
    if folder is None:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    with (Path(folder) / f"{name}.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
