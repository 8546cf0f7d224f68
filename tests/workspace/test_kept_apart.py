"""Outputs and inputs that lie in one another, or are the same, are refused."""

import os
import shutil

import pytest

from deepssim_jax.workspace import (
    Overlap,
    Workspace,
    WorkspaceError,
)
from tests.workspace.folders import refused, tree


@pytest.mark.parametrize(
    "place", ["images", "images/new", "images/inner", "images/inner/../inner/x"]
)
def test_an_output_inside_of_an_input_is_refused(images, place):
    before = tree(images)
    refused(images.parent / place, "--out is --real or lies inside", inputs={"--real": images})
    refused(images.parent / place, "--out is --model or lies inside", reads={"--model": images})
    assert tree(images) == before


@pytest.mark.parametrize(
    ("out", "work", "words"),
    [
        ("new", "new/work", "--work is --out or lies inside of it"),
        ("new", "NEW/deep/../deep/work", "--work is --out or lies inside of it"),
        ("work/new", "work", "--out is --work or lies inside of it"),
        ("new", "./new", "--out is --work or lies inside of it"),
        ("new", "images/new", "--work is --real or lies inside of it"),
    ],
)
def test_outputs_that_do_not_exist_yet_are_kept_apart(images, out, work, words):
    before, root = tree(images.parent), images.parent
    refused(root / out, words, work=f"{root}/{work}", inputs={"--real": images})
    assert tree(root) == before


def test_an_output_inside_of_an_input_is_seen_through_links(images):
    link = images.parent / "link"
    link.symlink_to(images)
    refused(link / "new", "lies inside", inputs={"--real": images})
    refused(images / "new", "lies inside", inputs={"--real": link})


def test_an_input_inside_of_the_output_is_refused(images):
    with Workspace.open(images.parent / "out", command="a") as workspace:
        workspace.write("report.html", b"x")
    inside = images.rename(images.parent / "out" / "images")
    refused(images.parent / "out", "--real lies inside of --out", inputs={"--real": inside})


def test_inputs_inside_of_each_other_are_refused(images):
    out = images.parent / "out"
    both = {"--real": images, "--synthetic": images / "inner"}
    refused(out, "--synthetic lies inside of --real", inputs=both)
    refused(
        out, "--real lies inside of --synthetic", inputs=dict(zip(both, reversed(both.values())))
    )
    assert not out.exists()


def test_a_listing_may_lie_beside_the_images_of_the_other_side(images):
    listing = images / "list.csv"
    listing.write_text("path\n")
    inputs = {"--real": images, "--synthetic": listing}
    with Workspace.open(images.parent / "out", command="a", inputs=inputs):
        pass


@pytest.mark.parametrize(
    ("out", "work"),
    [("images/out", None), ("images/new/out", None), ("elsewhere", None), ("new", "images/out")],
)
def test_files_that_are_read_elsewhere_are_kept_apart_too(images, out, work):
    """As a manifest names them, or a link leads to them."""
    root, folders = images.parent, {images}
    with Workspace.open(root / "elsewhere", command="a") as workspace:
        workspace.write("sub/p1.png", b"an earlier release")
    if out == "elsewhere":
        folders = {root / "elsewhere" / "sub"}
    before = tree(root)
    place = None if work is None else root / work
    with (
        pytest.raises(WorkspaceError, match="a link leads to") as error,
        Workspace.open(root / out, command="a", work=place) as workspace,
    ):
        workspace.keep_apart(folders)
    assert ("--work" in str(error.value)) == (work is not None)
    assert tree(root) == before
    with Workspace.open(root / "apart", command="a") as workspace:
        workspace.keep_apart(folders)


@pytest.mark.parametrize("spelling", ["images", "images/.", "images/inner/..", "link"])
def test_equal_inputs_are_seen_in_any_spelling(images, spelling):
    (images.parent / "link").symlink_to(images)
    other = images.parent / spelling
    inputs, out = {"--real": images, "--synthetic": other}, images.parent / "out"
    words = "--real and --synthetic are the same files"
    refused(out, f"{words}.*--allow_same", inputs=inputs, overlap=Overlap.REFUSED)
    refused(out, f"{words}.*another folder.$", inputs=inputs)  # a command without that flag
    with Workspace.open(out, command="a", inputs=inputs, overlap=Overlap.ALLOWED):
        pass


def test_equal_listings_are_seen_through_a_hard_link(images):
    first, second = images.parent / "a.csv", images.parent / "b.csv"
    first.write_text("path\n")
    os.link(first, second)
    refused(
        images.parent / "out", "the same files", inputs={"--real": first, "--synthetic": second}
    )


def test_folders_of_hard_links_are_equal_inputs(images):
    """Before anything is hashed; hidden files do not count, and one more file makes another folder."""
    (images / "inner" / "p2.png").write_bytes(b"other")
    other, out = images.parent / "other", images.parent / "out"
    shutil.copytree(images, other, copy_function=os.link)
    (other / ".notes").write_bytes(b"")
    inputs = {"--real": images, "--synthetic": other}
    refused(out, "same files.*--allow_same", inputs=inputs, overlap=Overlap.REFUSED)
    refused(out, "same files.*another folder.$", inputs=inputs)
    with Workspace.open(out, command="a", inputs=inputs, overlap=Overlap.ALLOWED):
        pass
    (other / "p3.png").write_bytes(b"new")
    with Workspace.open(out, command="a", inputs=inputs):
        pass


def test_folders_count_by_identity_and_not_by_name(images, monkeypatch):
    """As on a file system that does not tell `Images` from `images`."""
    stat = type(images).stat
    monkeypatch.setattr(
        type(images),
        "stat",
        lambda self, **how: stat(type(self)(str(self).replace("IMAGES", "images")), **how),
    )
    upper = images.parent / "IMAGES"
    refused(images.parent / "o", "the same", inputs={"--real": images, "--synthetic": upper})
    refused(upper / "new", "lies inside", inputs={"--real": images})
