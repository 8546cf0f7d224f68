"""How the review page draws pairs of 2D images."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from deepssim_jax.data.store import InputSettings
from deepssim_jax.data.volume import Unreadable
from deepssim_jax.jobs.review_controls import Control, make_controls
from deepssim_jax.jobs.review_page import fits
from deepssim_jax.jobs.review_pictures import Fields, PairView, views
from deepssim_jax.jobs.review_source import ReviewPair, ReviewSource

_SIDES = (256, 192, 160, 128)
Loaded = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class ImageDrawer:
    """Draws pairs of `source` with pictures of `side` pixels; shifts are of squares of `declared`."""

    source: ReviewSource
    form: InputSettings
    declared: int

    @classmethod
    def of(cls, source: ReviewSource, form: InputSettings, *, pairs: int) -> "ImageDrawer":
        """With the largest pictures at which so many pairs keep the page bounded."""
        side = picture_side(pairs)
        return cls(source, dataclasses.replace(form, size=(side, side)), form.size[0])

    @property
    def side(self) -> int:
        """Of the pictures, in pixels."""
        return self.form.size[0]

    def views(self, pairs: Sequence[ReviewPair]) -> dict[ReviewPair, PairView]:
        """Of those pairs whose files can be read."""
        read = {pair: self._read(pair) for pair in pairs}
        loaded = {pair: images for pair, images in read.items() if images is not None}
        if not loaded:
            return {}
        own, other = (Fields.of(images) for images in zip(*loaded.values(), strict=True))
        found = views(own, other, [pair.placed for pair in loaded], declared=self.declared)
        return dict(zip(loaded, found, strict=True))

    def controls(self, count: int, rng: np.random.Generator) -> list[Control]:
        """So many pairs of each kind of known truth, see `review_controls`."""
        return make_controls(
            self.source, count=count, form=self.form, declared=self.declared, rng=rng
        )

    def _read(self, pair: ReviewPair) -> tuple[Loaded, Loaded] | None:
        """Both images; None where one is gone, or cannot be read any more."""
        moving, fixed = self.source.moving, self.source.fixed
        try:
            return self.form.load(moving[pair.moving]), self.form.load(fixed[pair.fixed])
        except (KeyError, Unreadable, OSError):
            return None


def picture_side(pairs: int) -> int:
    """Of the pictures of so many pairs: 256 up to 288 of them, 192 up to 512, then 160 and 128."""
    return next((side for side in _SIDES[:-1] if fits(pairs, 2 * side**2)), _SIDES[-1])
