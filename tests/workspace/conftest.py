"""A folder of images for every test of workspaces."""

import pytest


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    (folder / "inner").mkdir(parents=True)
    (folder / "p1.png").write_bytes(b"patient")
    return folder
