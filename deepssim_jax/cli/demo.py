"""Plants copies in a made-up cohort, audits it, and says how many were found.

    deepssim demo --out=demo_out

Needs no data and no network. The report to look at is demo_out/audit/report.html.
"""

from pathlib import Path

from absl import flags

from deepssim_jax.cli import console
from deepssim_jax.cli.exit_codes import ExitCode
from deepssim_jax.cli.progress import progress

_OUT = flags.DEFINE_string("out", None, "folder for the cohort and its audit", required=True)
_SEED = flags.DEFINE_integer("seed", 7, "seed of the cohort", lower_bound=0, upper_bound=2**32 - 1)


def main() -> int:
    """Runs the demo.

    Returns:
        `ExitCode.DONE`, or `ExitCode.FAILED` if a copy was missed or an unrelated image flagged.
    """
    from deepssim_jax.audit.console import print_result
    from deepssim_jax.audit.demo import demo

    out = Path(_OUT.value)
    with progress() as on_progress:
        result = demo(out, seed=_SEED.value, on_progress=on_progress)
    print_result(result.audit, out / "audit")
    console.finish(
        [
            ("planted copies found", f"{result.found} of {result.planted}"),
            ("unrelated images called copies", f"{result.false} of {result.unrelated}"),
            ("anatomy", result.anatomy),
        ],
        written=[out / "audit" / "report.html"],
    )
    good = result.found == result.planted and not result.false
    return ExitCode.DONE if good else ExitCode.FAILED
