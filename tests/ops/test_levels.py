"""Images of any real type and scale give what the same picture in small float32 numbers gives."""

import functools
from collections.abc import Callable

import numpy as np
import pytest
from skimage.metrics import structural_similarity

import deepssim_jax as ds
from deepssim_jax.ops import levels
from deepssim_jax.testing import phantom_images
from tests.kept import small_encoder

WHOLE = (phantom_images(3, size=(64, 64)) * 200).round().astype(np.int64)
MOVED = np.roll(WHOLE, 2, 1)
FORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "int64 beyond 32 bits": lambda x: x * 2**33,
    "uint64 beyond 32 bits": lambda x: (x * 2**33).astype(np.uint64),
    "int64 far from zero": lambda x: x + 2**60,
    "uint32 beyond 31 bits": lambda x: (x + 3 * 10**9).astype(np.uint32),
    "float64 far from zero": lambda x: x * 0.5 + 1e9,
    "another order of bytes": lambda x: (x * 0.5 + 1e9).astype(">f8"),
    "longdouble": lambda x: x.astype(np.longdouble) * 0.5 + 1e15,
    "large float32": lambda x: x.astype(np.float32) * np.float32(2**40),
}


@pytest.fixture(scope="module")
def encoder() -> ds.Encoder:
    return small_encoder()


def answers(moving: np.ndarray, fixed: np.ndarray, encoder: ds.Encoder) -> dict[str, np.ndarray]:
    aligned = ds.nearest_aligned(moving, fixed, k=1)
    explained = ds.explain_pair(moving[:1], fixed[:1], encoder=encoder)
    found = {
        "embed": ds.embed(encoder, moving),
        "encode": ds.encode(encoder, moving),
        "verify_pairs": ds.verify_pairs(moving, fixed).score,
        "register": ds.register(moving, fixed).correlation,
        "nearest_aligned": np.stack([aligned.scores, aligned.indices]),
        "explain_pair": explained.scores,
    }
    return {name: np.asarray(value) for name, value in found.items()}


@functools.cache
def plain() -> dict[str, np.ndarray]:
    given = (x.astype(np.float32) for x in (MOVED, WHOLE))
    return answers(*given, small_encoder())


@pytest.mark.parametrize("form", FORMS)
def test_a_picture_is_the_same_in_any_type_and_scale(form: str, encoder: ds.Encoder) -> None:
    found = answers(FORMS[form](MOVED), FORMS[form](WHOLE), encoder)
    for name, value in plain().items():
        np.testing.assert_allclose(found[name], value, atol=2e-6, err_msg=name)


def test_a_number_that_float32_does_not_hold_is_refused(encoder: ds.Encoder) -> None:
    for given in (WHOLE * 10**16, WHOLE * 1e300, WHOLE.astype(np.longdouble) * np.longdouble(1e15)):
        with pytest.raises(ValueError, match="images: row 0 of 3 holds NaN, infinite or values"):
            ds.embed(encoder, given)
    with pytest.raises(ValueError, match="a: row 0 of 3 holds NaN, infinite or values"):
        ds.ssim(WHOLE * 10**16, WHOLE, data_range=1e10)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize("scale", [1e-14, 1e-10, 1e-8, 1.0, 1e10, 1e12])
def test_ssim_does_not_depend_on_the_unit(scale: float, kind: type) -> None:
    a, b = WHOLE / 200, MOVED / 200
    wanted = [structural_similarity(x, y, data_range=1.0) for x, y in zip(a, b, strict=True)]
    x, y = ((side * scale).astype(kind) for side in (a, b))
    found = ds.ssim(x, y, data_range=scale, reduction="none")
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    matrix = ds.ssim_matrix(x, y, data_range=scale)
    np.testing.assert_allclose(np.diag(matrix), wanted, atol=1e-5)
    assert float(ds.ssim(x, x, data_range=scale)) == pytest.approx(1.0, abs=1e-6)
    if scale >= 1:
        first = [
            structural_similarity(p, q, data_range=np.ptp(p)) for p, q in zip(a, b, strict=True)
        ]
        found = ds.ssim(x, y, data_range="first", reduction="none")
        np.testing.assert_allclose(found, first, atol=1e-5)
        np.testing.assert_allclose(np.diag(ds.ssim_matrix(x, y)), first, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 2.0**30])
@pytest.mark.parametrize("kind", [np.int64, np.float64, np.longdouble])
def test_ssim_of_images_far_from_zero(kind: type, scale: float) -> None:
    a, b = WHOLE.astype(np.float64) + 10_000, MOVED.astype(np.float64) + 10_000
    wanted = [structural_similarity(x, y, data_range=200.0) for x, y in zip(a, b, strict=True)]
    x, y = ((side * scale).astype(kind) for side in (a, b))
    found = ds.ssim(x, y, data_range=200.0 * scale, reduction="none")
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_range_that_float32_cannot_square_is_refused() -> None:
    for wrong in (1e-16, 1e16, np.array([1.0, 1e-20, 1.0])):
        with pytest.raises(ValueError, match=r"data_range .* must lie in \[1e-15, 1e\+15\]"):
            ds.ssim(WHOLE, MOVED, data_range=wrong)


def test_only_what_lies_far_from_zero_is_moved() -> None:
    near = np.array([[1.0, 2.0]])
    assert levels.near_zero(near) is near
    flat = np.full((2, 2), 1e9)
    assert levels.near_zero(flat) is flat  # its value is what a message shows
    np.testing.assert_array_equal(levels.near_zero(near + 1e9), [[0.0, 1.0]])
    np.testing.assert_array_equal(
        levels.near_zero(np.array([2**63, 2**63 + 5], np.uint64)), np.array([0, 5], np.uint64)
    )
