"""Whether held-out images can be a control: none of them is a real one, and they are of one make.

A held-out image that the model was trained on makes copies look like chance; held-out images of
another resolution, format or intensity make chance look rarer than it is.
"""

import collections
import dataclasses

import numpy as np
from scipy import stats

from deepssim_jax.data.formats import suffix_of
from deepssim_jax.data.manifest import InputError, Manifest
from deepssim_jax.data.readers import read_image
from deepssim_jax.data.store import ImageStore
from deepssim_jax.data.volume import SliceSpec, Unreadable
from deepssim_jax.ops.batches import even_rows

_LOOKED_AT = 24  # images of a side that are read at full size, evenly spread
_INTENSITIES = 200
_SIZES = 1.25  # median sizes that differ by this factor are of another make
_DISTANCE, _CHANCE = 0.5, 1e-3  # of Kolmogorov and Smirnov's test of the images' mean intensities
_SAME_FORMAT = {".jpeg": ".jpg", ".tiff": ".tif", ".nii": ".nii.gz"}


def overlap_error(count: int, total: int, how: str) -> InputError:
    """For held-out images that are real ones."""
    one = count == 1
    return InputError(
        f"--holdout: {count:,} of its {total:,} images {'is' if one else 'are'} {how} of --real: a "
        "control must be of images that the model never saw. Take "
        f"{'it' if one else 'them'} out of --holdout; an audit of --holdout as --synthetic lists "
        f"{'it' if one else 'them'}"
    )


def refuse_same_files(real: ImageStore, held_out: ImageStore) -> None:
    """Raises InputError if a held-out file is, byte for byte, one of the real side."""
    known = set(real.sha256)
    count = sum(digest in known for digest in held_out.sha256)
    if count:
        raise overlap_error(count, len(held_out), "the same file as one")


@dataclasses.dataclass(frozen=True)
class Make:
    """What images are like: median longer side in pixels, most frequent format, and mean intensities [n].

    Intensities are of each image's own range, on [0, 1].
    """

    side: float
    format: str
    means: np.ndarray

    @classmethod
    def of(cls, manifest: Manifest, images: ImageStore, slice_spec: str) -> "Make":
        """Of a side that was read; the slice is that of volumes."""
        spec, records = SliceSpec.parse(slice_spec), manifest.records
        sizes = []
        for row in even_rows(len(records), most=_LOOKED_AT):
            try:
                sizes.append(max(read_image(records[row], spec=spec).shape))
            except (Unreadable, OSError):
                continue  # it is counted where images are read
        names = collections.Counter(suffix_of(r.path.name) for r in records)
        name = min(names, key=lambda n: (-names[n], n))
        pixels = images.take(even_rows(len(images), most=_INTENSITIES))
        means = pixels.reshape(len(pixels), -1).mean(1) / np.iinfo(np.uint16).max
        return cls(float(np.median(sizes or [0])), _SAME_FORMAT.get(name, name), means)


def difference(real: Make, held_out: Make) -> str | None:
    """In what two makes differ, as a part of a sentence; None if they do not."""
    found = []
    low, high = sorted((real.side, held_out.side))
    if low and high / low >= _SIZES:
        found.append(
            f"a median longer side of {held_out.side:,.0f} and not {real.side:,.0f} pixels"
        )
    if real.format != held_out.format:
        found.append(f"{held_out.format or 'no suffix'} and not {real.format or 'no suffix'}")
    test = stats.ks_2samp(real.means, held_out.means)
    if test.statistic >= _DISTANCE and test.pvalue <= _CHANCE:
        found.append(
            f"a median of the mean intensities of {np.median(held_out.means):.2f} and not "
            f"{np.median(real.means):.2f} of an image's range"
        )
    return "; ".join(found) or None
