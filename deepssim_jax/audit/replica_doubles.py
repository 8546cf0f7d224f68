"""Real volumes that are copies of each other, under other patients' names: one patient from there on.

As `audit.doubles` does for images: a volume whose double lies under another patient would look like a
copy that chance made. Doubles are volumes of equal voxels, and those whose keypoints and structure agree as
only copies' do; scans of one person at two times stay below.
"""

import dataclasses

import numpy as np

from deepssim_jax.audit.doubles import PAIRS, Doubles, equal_pairs, stand_for
from deepssim_jax.audit.volume_join import VolumeJoin, measure_noted
from deepssim_jax.data.store import ImageStore
from deepssim_jax.scoring.match import Progress
from deepssim_jax.scoring.volume_match import Reference
from deepssim_jax.scoring.volume_measure import MatchSettings
from deepssim_jax.workspace import Section

# Points count as a share of those that the poorer of two volumes has with itself: of the brains at hand, two
# scans of one person come to 0.43 of them at most. Unrelated volumes of any kind come to an evidence of 4.3.
# Points say more than evidence of a crop, which lacks most of its original; the structure of a half that is
# another's, or of a noisy copy, agrees to 0.7.
MIN_EVIDENCE, MIN_SHARE, MIN_STRUCTURE = 5.0, 0.47, 0.65
# A search of everything against itself takes a second a volume; of more volumes only those of equal
# voxels are found.
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
      images: its store, for what is equal as decoded.
      settings: of the comparison.
      journal: keeps what is found.
      on_progress: called with (volumes done, volumes in all, what).
    """
    side = references.side
    join = VolumeJoin.nothing(len(side))
    if len(side) <= MAX_SEARCHED:
        what = "duplicates among the real volumes"
        join = VolumeJoin.of(references, journal=journal, on_progress=on_progress, what=what)
    noted = join.pairs()
    # Scans of a patient known to be one need no comparison.
    apart = side.groups[noted["query"]] != side.groups[noted["reference"]]
    noted = noted[apart & (noted["evidence"] >= MIN_EVIDENCE)]
    plain = dataclasses.replace(settings, labels=())
    found = measure_noted(noted, references, settings=plain, journal=journal)
    close = np.zeros(len(noted), PAIRS)
    close["first"] = np.minimum(noted["query"], noted["reference"])
    close["second"] = np.maximum(noted["query"], noted["reference"])
    close["score"], close["evidence"] = found["structure"], noted["evidence"]
    close = close[are_volume_doubles(noted["evidence"], found["share"], found["structure"])]
    same = equal_pairs(stand_for(images.decoded()))
    return Doubles.of(np.concatenate([same, close]), side.groups)


def are_volume_doubles(
    evidence: np.ndarray, share: np.ndarray, structure: np.ndarray
) -> np.ndarray:
    """Bool [n]: which pairs agree as only copies do, by the evidence of the search and two measures."""
    return (evidence >= MIN_EVIDENCE) & (share >= MIN_SHARE) & (structure >= MIN_STRUCTURE)
