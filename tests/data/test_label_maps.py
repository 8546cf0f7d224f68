"""Which label map belongs to which volume, and tables of what labels are called."""

from pathlib import Path

import pytest

from deepssim_jax.data.label_maps import map_of, read_label_names
from deepssim_jax.data.manifest import InputError


def test_a_map_belongs_to_the_longest_name_that_it_begins_with() -> None:
    volumes = ["p1.nii.gz", "p1_T1.nii.gz", "sub/p2.nii", "p3.nii.gz"]
    maps = ["p1_T1_synthseg.nii.gz", "p1_synthseg.nii.gz", "sub/p2.nii.gz", "p33_synthseg.nii.gz"]
    assert map_of(volumes, maps) == [1, 0, 2, -1]
    # What bears the name itself comes before what bears more.
    assert map_of(["a.nii"], ["a_b.nii", "a.nii"]) == [1]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("#No. Label Name: R G B A\n\n17  Left-Hippocampus  220 216 20 0\n", {17: "Left-Hippocampus"}),
        ("index\tname\tcolor\n1\tgrey matter\t#fff\n2\twhite\t#000\n", {1: "grey matter", 2: "white"}),
        ('label,name\n3,"left kidney"\n', {3: "left kidney"}),
        ('{"1": "liver", "2": "spleen"}', {1: "liver", 2: "spleen"}),
        ('{"labels": {"background": 0, "liver": 5}}', {0: "background", 5: "liver"}),
    ],
)  # fmt: skip
def test_names_are_read_from_the_tables_that_tools_write(
    tmp_path: Path, text: str, wanted: dict[int, str]
) -> None:
    (tmp_path / "names").write_text(text)
    assert read_label_names(tmp_path / "names") == wanted


@pytest.mark.parametrize("text", ["", "no number here\n", "{"])
def test_a_table_without_names_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "names").write_text(text)
    with pytest.raises(InputError, match="--label_names: names"):
        read_label_names(tmp_path / "names")


@pytest.mark.parametrize("text", ["10,left lung\n10,right lung\n", '{"left": 10, "right": 10}'])
def test_a_label_of_two_names_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(InputError, match="label 10 has two names"):
        read_label_names(tmp_path / "names.txt")
