"""Positive controls: copies of this very audit's real images, under every edit, looked for among them.

The copies are made by `data.edits`, which shares no code with what detects them, from the pictures as
they are kept, and go through the same search and verification as the synthetic images.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from deepssim_jax.data.edits import EDITS, Edit
from deepssim_jax.data.edits.types import SIDES
from deepssim_jax.nn.encoder import Encoder
from deepssim_jax.scoring.embed import side_of_images
from deepssim_jax.scoring.match import PAIR, Progress, match
from deepssim_jax.scoring.retrieval import Proposals
from deepssim_jax.scoring.side import Side
from deepssim_jax.workspace import By, Section


@dataclasses.dataclass(frozen=True)
class Controls:
    """Copies to be made: of row `rows[i]` of the real side by `edits[i]`, with a donor's row."""

    rows: np.ndarray
    donors: np.ndarray
    edits: tuple[Edit, ...]
    seed: int

    @classmethod
    def of(cls, real: Side, rows: np.ndarray, *, count: int, seed: int) -> "Controls":
        """`count` copies of the given rows, one of each row before a second of any.

        About equally many of each edit, which are drawn without order, so that few copies are of
        every kind. Donors are of another patient where there is one. Rows whose picture an edit does not
        take are left out; where none is left, there are no controls.
        """
        _, groups = real.grouped()
        rng = np.random.default_rng([seed, 2])
        usable = np.array([row for row in rows if _usable(_picture(real, int(row)))], int)
        if not len(usable) or not count:
            return cls(usable[:0], usable[:0], (), seed)
        chosen = np.resize(usable, count)
        donors = np.array([_donor(groups, usable, int(row), rng) for row in chosen], int)
        order = rng.permutation(len(EDITS))
        edits = tuple(EDITS[order[i % len(EDITS)]] for i in range(count))
        return cls(chosen, donors, edits, seed)

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, real: Side) -> list[np.ndarray]:
        """The copies, float64 [h, w] on [0, 1], rounded as a file of eight bits rounds them."""
        out = []
        for number, edit in enumerate(self.edits):
            image, donor = (_picture(real, int(x[number])) for x in (self.rows, self.donors))
            rng = np.random.default_rng([self.seed, 3, number])
            out.append(np.round(edit.make(image, donor=donor, rng=rng).image * 255) / 255)
        return out

    def search(
        self,
        real: Side,
        encoder: Callable[[], Encoder],
        *,
        journal: Section,
        proposals: Proposals,
        on_progress: Progress,
    ) -> np.ndarray:
        """Pairs, as of `match`, of each copy with its own patient's images."""
        real, groups = real.grouped()
        section = journal.section("controls", self.rows, self.donors, self.seed)
        size = real.take(np.arange(1)).shape[-1]

        def found() -> np.ndarray:
            if not len(self):
                return np.zeros(0, PAIR)
            copies = side_of_images(
                self.images(real), encoder(), size=size, points=real.points is not None
            )
            return match(
                copies,
                real,
                journal=section,
                proposals=proposals,
                on_progress=on_progress,
                what="edited copies with real",
            )

        names = [edit.name for edit in self.edits]
        pairs = section.step(
            "found", [proposals, names, real.low, real.embeddings], found, by=By.ALL
        )
        return pairs[groups[pairs["reference"]] == groups[self.rows[pairs["query"]]]]


def _picture(real: Side, row: int) -> np.ndarray:
    """One image, float [h, w] on [0, 1], as fine as it is kept."""
    rows = np.array([row])
    if real.pictures is not None:
        return real.pictures(rows)[0]
    image = real.take(rows)[0].astype(np.float32)
    low, high = float(image.min()), float(image.max())
    return (image - low) / max(high - low, 1e-9)


def _usable(image: np.ndarray) -> bool:
    return SIDES[0] <= min(image.shape) and max(image.shape) <= SIDES[1]


def _donor(groups: np.ndarray, rows: np.ndarray, row: int, rng: np.random.Generator) -> int:
    others = rows[groups[rows] != groups[row]]
    return int(rng.choice(others)) if len(others) else row
