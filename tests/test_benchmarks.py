"""The benchmark runs, checks itself, and leaves a record that its table can show."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(*args: str) -> str:
    command = [sys.executable, "-W", "ignore", str(ROOT / "benchmarks" / "throughput.py"), *args]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_a_small_case_and_its_record(tmp_path: Path) -> None:
    small = ("--n=0.01", "--repeats=1", f"--out={tmp_path}")
    run("--case=nearest_square", "--case=histogram", "--case=ssim_2d", *small)
    records = [json.loads(x) for x in (tmp_path / "throughput.jsonl").read_text().splitlines()]
    assert [r["case"] for r in records] == ["nearest_square", "histogram", "ssim_2d"]
    for record in records:
        assert record["items_per_s"] > 0
        assert record["compile_s"] > 0
        assert 0 < record["share_of_ceiling"] < 2.5  # bfloat16 may be faster than float32
        assert {"jax", "numpy"} <= record["versions"].keys()
    assert records[2]["peers"]["skimage"]["ours_is_times"] > 0
    table = run(f"--table={tmp_path / 'throughput.jsonl'}")
    assert table.count("\n") == 5
    assert "`ssim_2d`" in table
