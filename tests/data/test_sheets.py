"""Sheets of several pictures, and pictures on an empty page: where their parts lie."""

import io

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
from deepssim_jax.data.volume import SliceSpec, Unreadable
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


@pytest.mark.parametrize("shape", [(1, 300), (300, 1), (2, 2), (31, 200)])
def test_what_is_too_narrow_for_a_field_is_no_sheet(shape):
    assert fields(np.random.default_rng(0).uniform(size=shape).astype(np.float32)) == []


def test_more_fields_than_are_compared_are_refused():
    many = np.random.default_rng(0).uniform(100, 255, (289, 40, 40)).astype(np.float32)
    assert len(fields(sheet(many, 16, 16, 2, 0.0))) == MOST_FIELDS == 256
    with pytest.raises(Unreadable, match="sheet of 289 pictures, and at most 256"):
        fields(sheet(many, 17, 17, 2, 0.0))


@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (2, 4)])
def test_pictures_in_a_figure_are_its_fields(films, rows, columns):
    """As a plot of samples has them: far from each other, a title over each, on white."""
    page = np.full((rows * 120 + 40, columns * 110 + 60), 255, np.float32)
    for place in range(rows * columns):
        top, left = 40 + place // columns * 120, 50 + place % columns * 110
        page[top : top + SIDE, left : left + SIDE] = films[place]
        page[top - 12 : top - 5, left + 20 : left + 44] = 0
    assert SIDE**2 * rows * columns < 0.4 * page.size
    assert len(fields(page)) == rows * columns


@pytest.mark.parametrize("value", [0.0, 255.0])
def test_a_sheet_that_is_mostly_empty_has_the_fields_that_are_there(films, value):
    page = sheet(films, 4, 4, 2, value)
    page[SIDE + 4 :, SIDE + 4 :] = value
    page[2 * SIDE + 6 :] = value
    assert len(fields(page)) == 5


@pytest.mark.parametrize(("rows", "columns"), [(2, 3), (4, 4)])
def test_textures_are_parted_where_nothing_is_between_them(rows, columns):
    noise = np.random.default_rng(0).normal(size=(16, SIDE, SIDE))
    pictures = ndimage.gaussian_filter(noise, (0, 1.5, 1.5)).astype(np.float32)
    found = fields(sheet(pictures, rows, columns, 0, 0.0))
    assert [(box.top, box.left) for box in found] == [
        (row * SIDE, column * SIDE) for row in range(rows) for column in range(columns)
    ]


def test_blocks_of_compression_are_no_fields():
    (texture,) = np.asarray(textures(jax.random.key(2), 1, size=(256, 256)))
    file = io.BytesIO()
    Image.fromarray((texture * 255).astype(np.uint8)).save(file, "JPEG", quality=5)
    assert fields(np.asarray(Image.open(file), np.float32)) == []


@pytest.mark.parametrize("step", [5, 6])
def test_squared_paper_is_no_sheet(step):
    """Curves on paper whose lines repeat within what would be the fields, as of an electrocardiogram."""
    page = np.full((192, 320), 255.0)
    for every, value in ((step, 230), (5 * step, 190)):
        page[::every], page[:, ::every] = value, value
    x = np.arange(320)
    for lead, amplitude in enumerate((40, 25, -30, 15)):
        beat = np.exp(-((((x + 11 * lead) % 64) - 30) ** 2) / 20)
        y = 30 + 45 * lead - amplitude * beat
        for below in range(2):
            page[np.clip(y + below, 0, 191).astype(int), x] = 20
    page = ndimage.gaussian_filter(page, 0.5).astype(np.float32)
    assert fields(page) == []


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
