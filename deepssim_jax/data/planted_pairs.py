"""Pairs of images whose labels hold by construction: a benchmark for whatever finds copies.

Contract: pair number i is a pure function of the images, the seed and i. Every pair is a real image
and one made for it; unrelated ones are other real images. All three classes go through the same
artefacts as often as each other, so that an artefact gives no class away, and through the same
transformations of a setting. Patients who choose thresholds (`tune`) are in no pair of the others.

Settings: registered (as it is), perturbed (mirroring, 10 degrees, gamma 0.5 to 1.5, each with
probability 0.8; Scardace et al., arXiv 2609.03615, table 2B) and harsh (these, and each move of
`changes.MOVES` with probability 0.3).
"""

import dataclasses
import enum
from collections.abc import Callable, Iterator

import numpy as np

from deepssim_jax.data import changes
from deepssim_jax.data.edits import regions

UNRELATED, NEAR, EXACT = range(3)
OTHER_PATIENT, SAME_PATIENT, NEAREST_PATIENT = "other patient", "same patient", "nearest patient"
REPLACED = "region of another patient"
_P_ARTEFACT = 0.5
_P_MOVE = 0.8
_P_HARSH = 0.3


class Setting(enum.StrEnum):
    """How far a pair's images are from lying on each other."""

    REGISTERED = "registered"
    PERTURBED = "perturbed"
    HARSH = "harsh"


@dataclasses.dataclass(frozen=True)
class Pair:
    """One pair: rows of the real image and of the image its partner was made from.

    `label` is 0 unrelated, 1 near or 2 exact; `kind` says how; `donor` is the row that a region came
    from, or -1; `patient` that of the real image; `tune` whether thresholds may be chosen by it.
    """

    number: int
    real: int
    source: int
    donor: int
    label: int
    kind: str
    patient: int
    tune: bool


def tuning(patients: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Whether each image [n] is of a patient who chooses thresholds; what learns may see these alone.

    Args:
      patients: int [n], whose image each row is.
      rng: fresh, of the seed of `plan`.

    Raises:
      ValueError: fewer than four patients, because each half needs two.
    """
    people = np.unique(patients)
    if len(people) < 4:
        raise ValueError(
            f"{len(people)} patients are too few: each half of them needs two; give --subject_regex "
            "if every file seems to be of the same one"
        )
    return np.isin(patients, rng.permutation(people)[: (len(people) + 1) // 2])


def plan(
    patients: np.ndarray,
    *,
    contents: np.ndarray,
    seed: int,
    nearest: Callable[[np.ndarray], np.ndarray],
    rounds: int = 2,
) -> tuple[Pair, ...]:
    """Which pairs to make: `rounds` exact, near and unrelated ones of every real image.

    Args:
      patients: int [n], whose image each row is.
      contents: [n], equal for files of one picture: two of them are no two images of a patient.
      seed: of the two splits of the patients and of the kinds.
      nearest: rows to the position, among them, of the most similar one of another patient; asked
        for the two splits of the patients separately. Of each image's unrelated partners every other
        one is this, the rest another film of the same patient, where there is one, or anyone.
      rounds: pairs of each class and image.

    Raises:
      ValueError: fewer than four patients, because each half needs two.
    """
    rng = np.random.default_rng(seed)
    tune = tuning(patients, rng)
    pairs: list[Pair] = []
    near_kinds = [*changes.NEAR, REPLACED]
    for chosen in (True, False):
        rows = np.flatnonzero(tune == chosen)
        hardest = rows[nearest(rows)]
        for position, row in enumerate(rows):
            others = rows[patients[rows] != patients[row]]
            own = rows[(patients[rows] == patients[row]) & (contents[rows] != contents[row])]
            common = {"real": int(row), "patient": int(patients[row]), "tune": chosen}
            for turn in range(rounds):
                donor = int(rng.choice(others))
                kind = list(changes.EXACT)[(position * rounds + turn) % len(changes.EXACT)]
                pairs.append(
                    Pair(len(pairs), source=int(row), donor=-1, label=EXACT, kind=kind, **common)
                )
                kind = near_kinds[(position * rounds + turn) % len(near_kinds)]
                used = donor if kind == REPLACED else -1
                pairs.append(
                    Pair(len(pairs), source=int(row), donor=used, label=NEAR, kind=kind, **common)
                )
                source, kind = int(rng.choice(others)), OTHER_PATIENT
                if turn % 2 == 0:
                    source, kind = int(hardest[position]), NEAREST_PATIENT
                elif len(own):
                    source, kind = int(rng.choice(own)), SAME_PATIENT
                pairs.append(
                    Pair(len(pairs), source=source, donor=-1, label=UNRELATED, kind=kind, **common)
                )
    return tuple(pairs)


def partner(
    pair: Pair,
    setting: Setting,
    take: Callable[[int], np.ndarray],
    *,
    seed: int,
) -> np.ndarray:
    """The second image of a pair, float64 [s, s] on [0, 1].

    Args:
      pair: of `plan`.
      setting: the content of a pair is the same in all of them.
      take: a row to its image, float64 [s, s] on [0, 1].
      seed: with the pair's number, of everything drawn.
    """
    content = np.random.default_rng([seed, pair.number, 0])
    image = take(pair.source)
    if pair.label == NEAR:
        if pair.kind == REPLACED:
            image = regions.replaced(image, content, take(pair.donor))
        else:
            image = changes.NEAR[pair.kind](image, content)
    if pair.label == EXACT:
        image = changes.EXACT[pair.kind](image, content)
    elif content.random() < _P_ARTEFACT:
        image = changes.EXACT[str(content.choice(list(changes.EXACT)))](image, content)
    rng = np.random.default_rng([seed, pair.number, 1])
    if setting is not Setting.REGISTERED:
        for move in (
            lambda x: x[::-1],
            lambda x: x[:, ::-1],
            lambda x: changes.rotation(x, rng, degrees=10),
            lambda x: changes.gamma(x, rng),
        ):
            if rng.random() < _P_MOVE:
                image = move(image)
    if setting is Setting.HARSH:
        for name, change in changes.MOVES.items():
            if (
                name not in ("mirror", "rotation 15 degrees", "gamma 0.5-1.5")
                and rng.random() < _P_HARSH
            ):
                image = change(image, rng)
    return np.clip(image, 0, 1)


def partners(
    pairs: tuple[Pair, ...], setting: Setting, take: Callable[[int], np.ndarray], *, seed: int
) -> Iterator[np.ndarray]:
    """The second images of all pairs, in their order."""
    for pair in pairs:
        yield partner(pair, setting, take, seed=seed)
