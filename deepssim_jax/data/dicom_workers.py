"""The headers of many DICOM files, read by several processes: Python parses one at a time in each.

Contract: an answer is what `dicom.plain_header` gives. A worker is this module, run by the same
interpreter: it reads paths, each ended by a NUL, from its input, and writes their headers as JSON. Started
so, it needs nothing of the program that asks, such as a guarded `__main__`.
"""

import concurrent.futures
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from deepssim_jax.data import dicom
from deepssim_jax.data.dicom import Header

# A worker takes half a second to start, in which that many files are read.
_LEAST = 2_000
_MOST_WORKERS = 8


def plain_headers(paths: Sequence[Path]) -> dict[Path, Header | None]:
    """`dicom.plain_header` of each file, with as many processes as there are cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = min(cores or 1, _MOST_WORKERS, max(len(paths) // _LEAST, 1))
    shares = [paths[i * len(paths) // count : (i + 1) * len(paths) // count] for i in range(count)]
    with concurrent.futures.ThreadPoolExecutor(count) as threads:
        others = [threads.submit(_asked, share) for share in shares[1:]]
        headers = [dicom.plain_header(path) for path in shares[0]]
        for other in others:
            headers += other.result()
    return dict(zip(paths, headers, strict=True))


def _asked(paths: Sequence[Path]) -> list[Header | None]:
    """The headers by a worker; by this process where no worker can be started."""
    content = b"".join(os.fsencode(path.absolute()) + b"\0" for path in paths)
    there = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])
    command = [sys.executable, "-P", "-m", __name__]
    try:
        ended = subprocess.run(
            command,
            input=content,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": there},
            check=True,
        )
        headers = json.loads(ended.stdout)
        if len(headers) == len(paths):
            return headers
    except (OSError, subprocess.SubprocessError, ValueError):
        pass
    return [dicom.plain_header(path) for path in paths]


def main() -> None:
    """Answers for the paths of the standard input."""
    paths = [Path(os.fsdecode(name)) for name in sys.stdin.buffer.read().split(b"\0")[:-1]]
    sys.stdout.write(json.dumps([dicom.plain_header(path) for path in paths]))


if __name__ == "__main__":
    main()
