"""Writes a page on which people decide the pairs of a finished audit by eye, and sums their ratings up.

    deepssim review audit/
    deepssim review audit/ --blind
    deepssim review audit/ --ratings=ratings_a.csv --ratings=ratings_b.csv

The page is one file that shows patients' images, works without a network and exports each reader's ratings.
With ratings, the agreement of the readers and the rate of copies as they see it are written beside the audit.
The folder may also be one of `deepssim duplicates`.
"""

from absl import flags

from deepssim_jax.cli import console, usage
from deepssim_jax.cli.exit_codes import ExitCode
from deepssim_jax.cli.progress import progress

POSITIONALS = ("AUDIT",)
_PAIRS = flags.DEFINE_integer(
    "pairs", 200, "pairs on the page, a sample of each label; at most 1000", lower_bound=1
)
_BLIND = flags.DEFINE_bool(
    "blind", False, "hide scores, labels and names, and mix in pairs whose truth is known"
)
_CONTROLS = flags.DEFINE_integer(
    "controls", 20, "with --blind: known copies, and known unrelated pairs, of each so many"
)
_SEED = flags.DEFINE_integer("seed", 0, "of the sample")
_RATINGS = flags.DEFINE_multi_string(
    "ratings", [], "ratings that a reader exported; may be given several times, once a reader"
)
_ADJUDICATOR = flags.DEFINE_string(
    "adjudicator", None, "ratings of who settles what the readers disagree on"
)
_LEVEL = flags.DEFINE_float("level", 0.95, "coverage of intervals, between 0.5 and 1")


def main(folder: str) -> int:
    """Writes the page, or sums ratings up.

    Args:
        folder: The finished folder.

    Returns:
        `ExitCode.DONE`.
    """
    usage.exists(_RATINGS, "file")
    usage.exists(_ADJUDICATOR, "file")
    usage.belong([_CONTROLS], "--blind", wanted=_BLIND.value)
    usage.belong([_ADJUDICATOR, _LEVEL], "--ratings", wanted=bool(_RATINGS.value))
    usage.belong([_PAIRS, _BLIND, _SEED], "no --ratings", wanted=not _RATINGS.value)
    return _rate(folder) if _RATINGS.value else _write(folder)


def _write(folder: str) -> int:
    # Imported here so that --help and a wrong flag answer at once.
    from deepssim_jax.jobs.review import Reading, ReviewSettings, review

    settings = ReviewSettings(
        pairs=_PAIRS.value,
        reading=Reading.BLIND if _BLIND.value else Reading.OPEN,
        controls=_CONTROLS.value,
        seed=_SEED.value,
    )
    with progress() as on_progress:
        made = review(folder, settings=settings, on_progress=on_progress)
    rows = [
        ("pairs", f"{made.pairs:,}"),
        ("pairs of known truth", f"{made.controls:,}"),
        ("pictures", f"{made.side} pixels a side"),
        ("size of the page", f"{made.bytes / 2**20:.1f} MiB"),
    ]
    if made.unread:
        rows.append(("pairs whose files are gone", f"{made.unread:,}"))
    console.finish(rows, written=[made.page, made.key])
    return ExitCode.DONE


def _rate(folder: str) -> int:
    from deepssim_jax.jobs.rate_agreement import rate_agreement
    from deepssim_jax.jobs.review_outputs import agreement_rows, headline

    found = rate_agreement(
        folder, _RATINGS.value, adjudicator=_ADJUDICATOR.value, level=_LEVEL.value
    )
    rows = [(words, categories) for words, categories, _, _ in agreement_rows(found)]
    for x in found.readers:
        rows.append((f"pairs rated by {x.reader}", f"{x.rated:,}, copies {x.copies:,}"))
    rows.append(("pairs with different ratings", f"{len(found.disagreements):,}"))
    print(headline(found))
    console.finish(rows, written=found.written)
    return ExitCode.DONE
