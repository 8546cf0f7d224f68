"""What a generator is told and how often it sees whom."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from deepssim_jax.data import conditions, pipelines
from deepssim_jax.data.manifest import InputError
from deepssim_jax.nn import network_file
from deepssim_jax.nn.autoencoder import Autoencoder, AutoencoderSpec
from deepssim_jax.training import latents as latent_files
from deepssim_jax.training.generator_config import SourceConfig
from deepssim_jax.training.images import Rows, open_source
from deepssim_jax.training.latents import Duplication, DuplicationRange, LatentMaker, Latents
from deepssim_jax.workspace import Workspace
from tests.kept import within, write_phantoms, write_png

TABLE = """image_id,path,age,sex,prompt
a,a.png,40,F,T1 of a woman of 40
b,b.png,60,M,T1 of a man of 60
c,c.png,,F,FLAIR of a woman
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(TABLE)
    return path


def test_variables_are_standardised_and_words_one_hot(table: Path) -> None:
    rows = conditions.rows_of(table, ["b", "a", "c"], ["age", "sex"])
    columns = conditions.fit_columns(rows, ["age", "sex"])
    found = conditions.variables(rows, columns)
    np.testing.assert_allclose(found[:, 0], [[1, 0, 1, 1], [-1, 1, 0, 1], [0, 1, 0, 1]])
    stored = json.loads(conditions.columns_to_json(columns))
    assert [column["name"] for column in stored] == ["age", "sex"]
    assert [tuple(column["words"]) for column in stored] == [c.words for c in columns]


def test_a_missing_column_or_row_is_said(table: Path) -> None:
    with pytest.raises(InputError, match="no column weight among the 5 that") as error:
        conditions.rows_of(table, ["a"], ["age", "weight"])
    assert "prompt" not in str(error.value)
    with pytest.raises(InputError, match="no row for 1 of 2 images"):
        conditions.rows_of(table, ["a", "d"], ["age"])


def test_texts_are_told_apart_and_the_same_everywhere(table: Path) -> None:
    rows = conditions.rows_of(table, ["a", "b", "c"], ["prompt"])
    found = conditions.texts(rows, root=table.parent)
    assert found.shape == (3, 1, conditions.TEXT_DIM + 1)
    np.testing.assert_allclose(np.linalg.norm(found[:, 0, :-1], axis=1), 1.0, rtol=1e-5)
    alike = found[:, 0, :-1] @ found[:, 0, :-1].T
    assert alike[0, 1] > alike[1, 2] and alike[0, 1] < 0.95
    # Written down once: it must not change with the machine or the version.
    vector = conditions.embed_text("T1 of a woman of 40")
    assert np.flatnonzero(vector)[:4].tolist() == FIRST_PLACES


FIRST_PLACES = [35, 64, 80, 109]


def test_embeddings_come_from_files(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([0.5, -1.0]))
    np.save(tmp_path / "b.npy", np.array([0.5, -1.0, 2.0]))
    rows = [{"embedding": "a.npy"}]
    np.testing.assert_array_equal(conditions.texts(rows, root=tmp_path), [[[0.5, -1.0, 1.0]]])
    for other, words in (("b.npy", "has 3 numbers, the first 2"), ("c.npy", "cannot be read")):
        with pytest.raises(InputError, match=words):
            conditions.texts([*rows, {"embedding": other}], root=tmp_path)


@pytest.mark.parametrize(
    ("duplication", "whose", "most"),
    [("none", "code", 1), ("low", "code", 4), ("high", "code", 14), ("low", "paper", 5),
     ("high", "paper", 15)],
)  # fmt: skip
def test_how_often_images_are_repeated(duplication: str, whose: str, most: int) -> None:
    found = latent_files.copies(
        5000, duplication=Duplication(duplication), whose=DuplicationRange(whose), seed=1
    )
    assert (found.min(), found.max()) == (1, most)
    assert found.mean() == pytest.approx((1 + most) / 2, rel=0.03)


def test_an_epoch_holds_every_image_as_often_as_it_is_repeated() -> None:
    values = np.arange(6, dtype=np.float32)[:, None, None, None]
    rows = Rows(np.array([0, 2, 3, 5]), np.array([1, 4]))
    maker = LatentMaker.of(
        Latents(values, np.zeros_like(values), scale=2.0),
        rows,
        condition=None,
        copies=np.array([1, 3, 2, 2]),
        batch=4,
        seed=0,
    )
    seen = np.concatenate([np.asarray(maker(step).mean).ravel() for step in range(2)]) / 2
    assert sorted(seen) == [0, 2, 2, 2, 3, 3, 5, 5]
    assert {float(x) for x in np.asarray(maker(-1).mean).ravel() / 2} <= {1, 4}
    np.testing.assert_array_equal(maker(5).mean, maker(5).mean)


def test_phantoms_do_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "few", 3, size=(32, 24), seed=4)
    write_phantoms(tmp_path / "more", 11, size=(32, 24), seed=4)
    for path in sorted((tmp_path / "few").glob("*.png")):
        assert path.read_bytes() == (tmp_path / "more" / path.name).read_bytes()
    assert len(list((tmp_path / "more").glob("p*.png"))) == 11


def pictures(folder: Path, count: int) -> Path:
    """Images of noise, each of another person."""
    values = np.random.default_rng(0).uniform(size=(count, 24, 20))
    for number, image in enumerate(values):
        write_png(folder / "pictures" / f"{number:02d}.png", image)
    return folder / "pictures"


def test_latents_are_made_once_and_their_scale_is_measured(tmp_path: Path, monkeypatch) -> None:
    config = SourceConfig(images=str(pictures(tmp_path, 11)), size=(24, 20))
    images, rows = within(tmp_path / "w", lambda w: open_source(config, w), command="train_ldm")
    assert not set(rows.training) & set(rows.held) and len(rows.training) + len(rows.held) == 11
    spec = AutoencoderSpec(channels=(4, 8), blocks=1, groups=4)
    model = Autoencoder(spec, rngs=nnx.Rngs(0))
    params = nnx.as_pure(nnx.split(model, nnx.Param)[1])

    def cached(workspace: Workspace) -> Latents:
        return latent_files.cache_latents(
            images, spec, params, workspace=workspace, rows=rows.training
        )

    found = within(tmp_path / "w", cached, command="train_ldm")
    pixels = images.take(np.arange(11)) / np.float32(65535)
    mean, deviation = jax.jit(
        lambda p, x: nnx.merge(network_file.blueprint(spec)[0], p, copy=True).encode(x)
    )(params, pixels)
    np.testing.assert_allclose(found.mean, mean, atol=1e-5)
    rng = np.random.default_rng(0)
    drawn = np.asarray(mean) + np.asarray(deviation) * rng.standard_normal((400, *mean.shape))
    assert found.scale * drawn[:, rows.training].std() == pytest.approx(1, abs=5e-3)
    monkeypatch.setattr(latent_files, "_padded", None)  # nothing is encoded again
    again = within(tmp_path / "w", cached, command="train_ldm")
    stored = latent_files.load_latents(tmp_path / "w")
    np.testing.assert_array_equal(stored.mean, found.mean)
    assert again.scale == found.scale


def test_a_source_that_holds_nobody_out(tmp_path: Path) -> None:
    config = SourceConfig(images=str(pictures(tmp_path, 2)), size=(24, 24), held_out=0.0)
    _, rows = within(tmp_path / "w", lambda w: open_source(config, w))
    assert rows.training.tolist() == [0, 1] == rows.validation.tolist()
    data = pipelines.row_batches(rows.training, batch=2, seed=0)
    assert sorted(data[0].tolist()) == [0, 1]
