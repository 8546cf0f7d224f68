"""Sheets of several pictures, and pictures on an empty page: where their parts lie."""

import jax
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from deepssim_jax.data.manifest import Role, read_manifest
from deepssim_jax.data.phantom_chests import chests
from deepssim_jax.data.phantom_textures import textures
from deepssim_jax.data.readers import read_image
from deepssim_jax.data.sheet_records import named_fields, with_fields
from deepssim_jax.data.sheets import MOST_FIELDS, Box, content, fields
from deepssim_jax.data.volume import SliceSpec
from tests.kept import sheet

SIDE = 64


@pytest.fixture(scope="module")
def films() -> np.ndarray:
    return np.asarray(chests(jax.random.key(0), 16, size=(SIDE, SIDE))) * 255


# Without a margin not every sheet of dark pictures is known.
@pytest.mark.parametrize(
    ("rows", "columns", "pad", "value"),
    [
        *((rows, columns, 2, 0.0) for rows, columns in ((2, 2), (3, 3), (1, 5), (6, 1))),
        *((rows, columns, 4, 255.0) for rows, columns in ((4, 4), (5, 1))),
        *((rows, columns, 0, 0.0) for rows, columns in ((3, 3), (4, 4))),
    ],
)
def test_the_fields_of_a_sheet_are_where_they_were_laid(films, rows, columns, pad, value):
    image = sheet(films, rows, columns, pad, value)
    found = fields(image)
    assert len(found) == rows * columns
    for place, box in enumerate(found):
        top = pad + place // columns * (SIDE + pad)
        left = pad + place % columns * (SIDE + pad)
        # Dark rims of a picture look like margins.
        assert abs(box.top + box.height / 2 - top - SIDE / 2) < 4
        assert abs(box.left + box.width / 2 - left - SIDE / 2) < 4
        assert box.height > 0.85 * SIDE and box.width > 0.85 * SIDE


def test_single_pictures_are_no_sheets(films):
    others = np.asarray(textures(jax.random.key(0), 16, size=(SIDE, SIDE)))
    for image in (*films, *others):
        assert fields(image) == []
        assert content(image) == Box(0, 0, SIDE, SIDE)


def test_more_fields_than_are_kept_are_no_sheet(films):
    many = sheet(np.concatenate([films] * 6), 9, 9, 2, 0.0)
    assert MOST_FIELDS < 81 and fields(many) == []


@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_a_picture_on_an_empty_page_is_cut_out(films, noise):
    rng = np.random.default_rng(0)
    page = rng.normal(20, noise, (260, 300)).astype(np.float32)
    page[130 : 130 + SIDE, 40 : 40 + SIDE] = 60 + films[0]
    assert content(page) == Box(130, 40, SIDE, SIDE)
    assert fields(page) == []
    # Over a quarter of the image it is compared with the page, as it came.
    assert content(page[100:210, 20:130]) == Box(0, 0, 110, 110)


def test_a_page_that_is_no_page_stays(films):
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(200, 200)), 20)
    assert content(smooth.astype(np.float32)) == Box(0, 0, 200, 200)


def test_fields_become_records(films, tmp_path):
    """And are found again by their ids."""
    image = sheet(films, 3, 3, 2, 0.0)
    Image.fromarray(image.astype(np.uint8)).save(tmp_path / "b.png")
    Image.fromarray(films[3].astype(np.uint8)).save(tmp_path / "a.png")
    manifest = read_manifest(tmp_path, role=Role.SYNTHETIC)
    more = with_fields(manifest, {"b.png": fields(image)})
    names = [record.image_id for record in more.records]
    assert names == ["a.png", "b.png", *(f"b.png#{k}" for k in range(1, 10))]
    (note,) = more.notes
    assert note.startswith(
        "1 image looks like a sheet of several pictures: beside the whole, 9 fields"
    )
    records = {record.image_id: record for record in manifest.records}
    found = named_fields(records, [*names, "c.png#1", "b.png#10"], SliceSpec.parse("axial:0.5"))
    assert list(found.values()) == list(more.records[2:])
    field = read_image(found["b.png#4"], spec=None)
    rim = np.asarray(field.shape) - SIDE
    assert (np.abs(rim) < 8).all()
    box = found["b.png#4"].box
    assert box is not None
    np.testing.assert_array_equal(field, np.floor(box.of(image)))
