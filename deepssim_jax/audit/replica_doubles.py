"""Real volumes that are copies of each other, under other patients' names: one patient from there on.

As `audit.doubles` does for images: a volume whose double lies under another patient would look like a
copy that chance made. Doubles are byte-equal files, and volumes whose keypoints and structure agree as
only copies' do; scans of one person at two times stay below.
"""

import dataclasses

import numpy as np

from deepssim_jax.audit.doubles import PAIRS, Doubles, equal_pairs, stand_for
from deepssim_jax.data.store import ImageStore
from deepssim_jax.scoring.match import Progress
from deepssim_jax.scoring.volume_match import Reference, measure_pairs
from deepssim_jax.scoring.volume_measure import MatchSettings
from deepssim_jax.workspace import Section

# Of the brains at hand, two scans of one person come to at most 13, and copies with noise, blur or a
# change of intensities to 20 and more.
_MIN_EVIDENCE, _MIN_POINTS, _MIN_STRUCTURE = 10.0, 15.0, 0.8
_BLOCK = 32
# A search of everything against itself takes a second a volume; of more volumes only byte-equal files
# are found.
MAX_SEARCHED = 1000


def find_volume_doubles(
    references: Reference,
    images: ImageStore,
    *,
    settings: MatchSettings,
    journal: Section,
    on_progress: Progress,
) -> Doubles:
    """Searches the real side against itself.

    Args:
      references: the real side.
      images: its store, for the files' hashes.
      settings: of the comparison.
      journal: keeps what is found.
      on_progress: called with (volumes done, volumes in all, what).
    """
    side, index = references.side, references.index
    same = equal_pairs(stand_for(np.array(images.keys)))
    close = np.zeros(0, PAIRS)
    if index is not None and 1 < len(side) <= MAX_SEARCHED:

        def block(rows: np.ndarray) -> np.ndarray:
            if not len(rows):
                return np.zeros(0, PAIRS)
            evidence = index.vote(side.rows(rows)).evidence
            evidence[np.arange(len(rows)), rows] = 0.0
            query, reference = np.nonzero(evidence >= _MIN_EVIDENCE)
            out = np.zeros(len(query), PAIRS)
            out["first"], out["second"] = rows[query], reference
            out["evidence"] = evidence[query, reference]
            return out

        close = journal.by_rows(
            "doubles",
            "keypoints",
            block,
            count=len(side),
            block=_BLOCK,
            on_progress=on_progress,
            what="doubles among the real volumes",
        )
        # Scans of a patient known to be one need no comparison.
        apart = side.groups[close["first"]] != side.groups[close["second"]]
        close = close[apart & (close["first"] < close["second"])]
        measured = measure_pairs(
            [(int(a), int(b)) for a, b in zip(close["first"], close["second"], strict=True)],
            side,
            references,
            settings=dataclasses.replace(settings, labels=()),
            journal=journal.section("measured"),
        )
        close["score"] = measured["structure"]
        close = close[
            (measured["structure"] >= _MIN_STRUCTURE) & (measured["points"] >= _MIN_POINTS)
        ]
    return Doubles.of(np.concatenate([same, close]), side.groups)
