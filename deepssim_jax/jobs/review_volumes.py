"""How the review page draws pairs of volumes: slices in three planes, the moving volume aligned again.

Contract: volumes are read at the grid of the search, from its workspace; slices run from 5 to 95 % of each
axis, with the head up. Each volume is scaled by its own 0.5th and 99.5th percentile.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from deepssim_jax.audit.gallery import grey_bytes
from deepssim_jax.data.manifest import Manifest, Record, Role
from deepssim_jax.jobs.review_controls import Control, Known
from deepssim_jax.jobs.review_page import fits
from deepssim_jax.jobs.review_pictures import PairView, Plane
from deepssim_jax.jobs.review_source import ReviewPair, ReviewSource, VolumeForm
from deepssim_jax.ops.resample import resize
from deepssim_jax.scoring.plant_volumes import Edit, plant_copies
from deepssim_jax.scoring.volume_match import Reference, shown_together
from deepssim_jax.scoring.volume_search import VolumeSide
from deepssim_jax.scoring.volume_sides import LevelSources, build_volume_side
from deepssim_jax.workspace import Workspace

_SIDES, _SLICES = (128, 96, 64), 7  # a larger picture only with so many slices
_PLANES = ("axial", "coronal", "sagittal")
_CHOICE = 12


@dataclasses.dataclass(frozen=True)
class VolumeDrawer:
    """Draws pairs of volumes of `source`, `slices` of `side` pixels a plane."""

    source: ReviewSource
    form: VolumeForm
    workspace: Workspace
    side: int
    slices: int

    @classmethod
    def of(
        cls, source: ReviewSource, form: VolumeForm, workspace: Workspace, *, pairs: int
    ) -> "VolumeDrawer":
        """With as many slices as keep the page of so many pairs bounded."""
        size = form.grid.size[0]
        sides = [side for side in _SIDES if side <= size] or [size]
        for side in sides:
            most = [n for n in range(1, size + 1) if fits(pairs, 2 * 3 * n * side**2)]
            if most and most[-1] >= _SLICES:
                break
        return cls(source, form, workspace, side, most[-1] if most else 1)

    def views(self, pairs: Sequence[ReviewPair]) -> dict[ReviewPair, PairView]:
        """Of those pairs whose files can be read."""
        moving = [self.source.moving[x.moving] for x in pairs if x.moving in self.source.moving]
        fixed = [self.source.fixed[x.fixed] for x in pairs if x.fixed in self.source.fixed]
        if not moving or not fixed:
            return {}
        own, own_rows = self._side(Role.SYNTHETIC, moving)
        other, other_rows = self._side(Role.REAL, fixed)
        references = self._references(other)
        return {
            pair: self._drawn(own, own_rows[pair.moving], references, other_rows[pair.fixed])
            for pair in pairs
            if pair.moving in own_rows and pair.fixed in other_rows
        }

    def controls(self, count: int, rng: np.random.Generator) -> list[Control]:
        """So many copies made by `scoring.plant_volumes`, and so many pairs of two patients.

        Raises:
          ValueError: fewer than two patients' volumes can be read.
        """
        names = [name for name in sorted(self.source.fixed) if name not in self.source.doubles]
        names = [names[row] for row in rng.permutation(len(names))[: count + _CHOICE]]
        side, rows = self._side(Role.REAL, [self.source.fixed[name] for name in names])
        known = sorted(rows, key=rows.__getitem__)
        if len(set(side.groups.tolist())) < 2:
            raise ValueError("controls=0 is all that one patient's volumes allow: two are needed")
        references, out = self._references(side), []
        # No volume is taken twice before all were taken once.
        taken = [np.resize(rng.permutation(len(known)), count) for _ in Known]
        for copied, still in zip(*(rows.tolist() for rows in taken), strict=True):
            donor = int(rng.choice(np.flatnonzero(side.groups != side.groups[copied])))
            edit = list(Edit)[int(rng.integers(len(Edit)))]
            copy = self._copy(side, copied, donor, edit, seed=int(rng.integers(2**31)))
            view = self._drawn(copy, 0, references, copied)
            out.append(Control(Known.COPY, known[copied], edit.value, view))
            other = int(rng.choice(np.flatnonzero(side.groups != side.groups[still])))
            view = self._drawn(side, other, references, still)
            out.append(Control(Known.UNRELATED, known[still], known[other], view))
        return out

    def _copy(self, side: VolumeSide, row: int, donor: int, edit: Edit, *, seed: int) -> VolumeSide:
        rows = np.array([row, donor])
        planted = plant_copies(
            side.take(rows),
            side.geometry[rows],
            edits=[edit],
            donors=np.array([1]),
            seed=seed,
        )
        return VolumeSide(
            take=lambda chosen: planted.volumes[chosen],
            shape=side.shape,
            groups=np.zeros(1, np.int32),
            geometry=planted.geometry,
        )

    def _side(self, role: Role, records: Sequence[Record]) -> tuple[VolumeSide, dict[str, int]]:
        """The volumes of records, each once, and their rows by id."""
        distinct = {record.image_id: record for record in records}
        manifest = Manifest(
            source=self.workspace.root,
            role=role,
            kind="review",
            records=tuple(distinct[name] for name in sorted(distinct)),
            rejected=(),
        )
        side, images = build_volume_side(
            manifest, self.workspace, settings=self.form.grid, sources=LevelSources()
        )
        return side, {name: row for row, name in enumerate(images.image_ids)}

    def _references(self, side: VolumeSide) -> Reference:
        content = [side.take(np.arange(len(side)))]
        return Reference.of(
            side,
            alignment=self.form.alignment,
            journal=self.workspace.section("review", content),
        )

    def _drawn(self, moving: VolumeSide, query: int, references: Reference, row: int) -> PairView:
        aligned = shown_together(
            moving, references, query=query, reference=row, alignment=self.form.alignment
        ).aligned
        fixed = references.side.take(np.array([row]))
        contrast = self.form.modality.contrast
        volumes = [
            _unit(contrast(np.asarray(x, np.float32), self.form.grid)[0]) for x in (fixed, aligned)
        ]
        still, moved = (self._planes(volume) for volume in volumes)
        return PairView(
            tuple(Plane(n, a, b) for n, a, b in zip(_PLANES, still, moved, strict=True))
        )

    def _planes(self, volume: np.ndarray) -> list[np.ndarray]:
        """uint8 [n, s, s] of each plane."""
        out = []
        for axis in range(3):
            last = volume.shape[axis] - 1
            places = np.linspace(0.05 * last, 0.95 * last, self.slices).round().astype(int)
            slices = np.moveaxis(volume, axis, 0)[places]
            if axis:
                slices = slices[:, ::-1]
            if slices.shape[-1] != self.side:
                slices = np.asarray(resize(slices, (self.side, self.side)))
            out.append(grey_bytes(np.clip(slices, 0, 1)))
        return out


def _unit(volume: np.ndarray) -> np.ndarray:
    low, high = np.percentile(volume, (0.5, 99.5))
    return np.clip((volume - low) / max(float(high - low), 1e-6), 0, 1)
