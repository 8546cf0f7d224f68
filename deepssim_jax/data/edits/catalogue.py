"""The list of edits that controls and the stress test share: 81 of them, with strengths.

Contract: `EDITS` is in a fixed order with unique names, a name states the strength with its unit,
and a label holds by construction. Identity, right angles and mirrorings, moves, crops, noise, blur
and changes of intensity keep every structure that they show: exact duplicates. What adds, hides,
bends or mixes is a near duplicate, and a partial copy where the rest is somebody else's picture.
"""

from collections.abc import Callable, Iterable

import numpy as np

from deepssim_jax.data.edits import acquisition, combinations, geometry, mixtures, regions
from deepssim_jax.data.edits.types import Apply, Edit, Edited, Group, Label, Relation


def alone(change: Callable[..., np.ndarray], **strength: float) -> Apply:
    """A change of the image by itself as what `Edit` applies."""
    return lambda image, donor, rng: Edited(change(image, rng, **strength))


def _with_donor(change: Callable[..., Edited], **strength: float) -> Apply:
    return lambda image, donor, rng: change(image, donor, rng, **strength)


def _occluded(share: float) -> Apply:
    return lambda image, donor, rng: mixtures.occluded(image, rng, share=share)


def _d4(turns: int, *, transposed: bool) -> Apply:
    return lambda image, donor, rng: Edited(np.rot90(image.T if transposed else image, turns))


def _moves() -> Iterable[Edit]:
    for degrees in (5, 15, 30, 45, 90, 135, 180):
        change = alone(geometry.rotated, degrees=degrees)
        yield Edit(f"rotation {degrees} degrees", Group.ROTATION, degrees, change)
    yield Edit(
        "rotation by any angle", Group.ROTATION, None, alone(geometry.rotated_randomly, limit=180)
    )
    for turns in (1, 2, 3):
        yield Edit(f"quarter turns {turns}", Group.D4, turns, _d4(turns, transposed=False))
    mirrored = ("transposed", "upside down", "transposed the other way", "left to right")
    for turns, name in enumerate(mirrored):
        yield Edit(name, Group.D4, None, _d4(turns, transposed=True))
    for percent in (10, 25, 50):
        change = alone(geometry.shifted, share=percent / 100)
        yield Edit(f"shift {percent} %", Group.SHIFT, percent, change)
    for factor in (0.5, 0.75, 1.25, 1.5, 2.0):
        yield Edit(f"zoom {factor:g}", Group.ZOOM, factor, alone(geometry.zoomed, factor=factor))
    for percent in (20, 30, 40, 50):
        change = alone(geometry.cropped, share=percent / 100)
        yield Edit(f"crop {percent} % of both sides", Group.CROP, percent, change)
    for percent in (20, 30, 40, 50):
        change = alone(geometry.cropped_at_one_side, share=percent / 100)
        yield Edit(f"crop {percent} % at one edge", Group.CROP, percent, change)
    for ratio in (0.7, 0.8, 1.25, 1.4):
        yield Edit(f"aspect {ratio:g}", Group.ASPECT, ratio, alone(geometry.stretched, ratio=ratio))
    yield Edit("shear 0.2", Group.SHEAR, 0.2, alone(geometry.sheared, amount=0.2))


def _acquisitions() -> Iterable[Edit]:
    for deviation in (0.05, 0.1, 0.2, 0.3):
        change = alone(acquisition.noisy, deviation=deviation)
        yield Edit(f"noise {deviation:g}", Group.NOISE, deviation, change)
    for sigma in (1, 2, 4, 6):
        yield Edit(f"blur {sigma}", Group.BLUR, sigma, alone(acquisition.blurred, sigma=sigma))
    for quality in (30, 10, 5):
        yield Edit(f"JPEG {quality}", Group.JPEG, quality, alone(acquisition.jpeg, quality=quality))
    for side in (64, 32):
        change = alone(acquisition.downsampled, side=side)
        yield Edit(f"down to {side} pixels", Group.DOWNSAMPLE, side, change)
    for exponent in (0.4, 0.6, 1.7, 2.5):
        change = alone(acquisition.gamma, exponent=exponent)
        yield Edit(f"gamma {exponent:g}", Group.GAMMA, exponent, change)
    yield Edit("equalised", Group.HISTOGRAM, None, alone(acquisition.equalised))
    yield Edit(
        "window of half the range", Group.HISTOGRAM, 0.5, alone(acquisition.windowed, width=0.5)
    )
    for levels in (8, 4):
        change = alone(acquisition.posterised, levels=levels)
        yield Edit(f"posterised to {levels} levels", Group.HISTOGRAM, levels, change)
    yield Edit("negative", Group.NEGATIVE, None, alone(acquisition.negative))


def _contents() -> Iterable[Edit]:
    yield Edit("text", Group.MARKS, None, alone(mixtures.lettered), Label.NEAR)
    yield Edit("circle, arrow and ruler", Group.MARKS, None, alone(mixtures.marked), Label.NEAR)
    for percent in (10, 20, 40):
        change = _occluded(percent / 100)
        yield Edit(f"black box {percent} %", Group.OCCLUSION, percent, change, Label.NEAR)
    for name, reach in (("mild", 0.02), ("strong", 0.05)):
        change = alone(geometry.elastic, reach=reach)
        yield Edit(f"elastic, {name}", Group.ELASTIC, reach, change, Label.NEAR)
    for percent in (10, 25):
        change = _with_donor(mixtures.patched, share=percent / 100)
        name = f"patch of another image {percent} %"
        yield Edit(name, Group.BLEND, percent, change, Label.NEAR)
    yield Edit(
        "half of another image",
        Group.BLEND,
        50,
        _with_donor(mixtures.half_replaced),
        Label.NEAR,
        Relation.PARTIAL_COPY,
    )
    change = _with_donor(mixtures.blended, alpha=0.5)
    yield Edit("half-and-half blend", Group.BLEND, 0.5, change, Label.NEAR)
    for moved, where in ((False, "in place"), (True, "moved")):
        for percent in (12, 25, 40):
            change = _with_donor(mixtures.part, share=percent / 100, moved=moved)
            name = f"part {percent} %, {where}"
            yield Edit(name, Group.PART, percent, change, Label.NEAR, Relation.PARTIAL_COPY)
    yield Edit("lesion added", Group.LESION, None, alone(regions.lesion_added), Label.NEAR)
    yield Edit("lesion removed", Group.LESION, None, alone(regions.structure_removed), Label.NEAR)


def _combinations() -> Iterable[Edit]:
    both = (*combinations.GEOMETRIC, *combinations.OF_INTENSITY)
    for name, of in (
        ("three moves", combinations.GEOMETRIC),
        ("three changes of intensity", combinations.OF_INTENSITY),
        ("three of any", both),
    ):
        change = _three(of)
        yield Edit(name, Group.COMBINATION, 3, change)


def _three(of: tuple[combinations.Mild, ...]) -> Apply:
    return lambda image, donor, rng: Edited(combinations.three(image, rng, of=of))


EDITS: tuple[Edit, ...] = (
    Edit("identity", Group.IDENTITY, None, lambda image, donor, rng: Edited(image)),
    *_moves(),
    *_acquisitions(),
    *_contents(),
    *_combinations(),
)
