"""What the public functions say to arguments that cannot be meant, and that they run under `jit`."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import deepssim_jax as ds
from tests.kept import small_encoder

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(3, 64, 64)).astype(np.float32)
UNIT = RNG.normal(size=(5, 8)).astype(np.float32)
UNIT /= np.linalg.norm(UNIT, axis=1, keepdims=True)


register = jax.jit(ds.register)  # one program for all tests


@pytest.fixture(scope="module")
def encoder() -> ds.Encoder:
    return small_encoder()


def changed(value: object, row: int = 1) -> np.ndarray:
    """IMAGES with one pixel of a row, or the whole row if `value` is "constant", changed."""
    out = IMAGES.copy()
    if value == "constant":
        out[row] = 7.0
    else:
        out[row, 3, 4] = value
    return out


# What no function of images takes, with words of the answer.
BAD_IMAGES = {
    "nan": (changed(np.nan), "row 1 of 3 holds NaN"),
    "inf": (changed(np.inf), "row 1 of 3 holds NaN, infinite"),
    "huge": (changed(1e30), "beyond 1e15"),
    "list": (IMAGES.tolist(), "is of type list"),
    "none": (None, "is of type NoneType"),
    "text": ("images/", "is of type str"),
    "complex": (IMAGES.astype(complex), "complex128"),
    "objects": (IMAGES.astype(object), "dtype object"),
    "one image": (IMAGES[0], "leading axis"),
    "no pixel": (IMAGES[:, :0], "empty axis"),
    "masked": (np.ma.masked_greater(IMAGES, 1.0), "is a masked array"),
}
ON_IMAGES: dict[str, Callable[[object, ds.Encoder], object]] = {
    "embed": lambda x, e: ds.embed(e, x),
    "ssim a": lambda x, e: ds.ssim(x, IMAGES, data_range=1.0),
    "ssim b": lambda x, e: ds.ssim(IMAGES, x, data_range=1.0),
    "ssim_matrix real": lambda x, e: ds.ssim_matrix(x, IMAGES),
    "ssim_matrix synthetic": lambda x, e: ds.ssim_matrix(IMAGES, x),
    "register moving": lambda x, e: ds.register(x, IMAGES),
    "register fixed": lambda x, e: ds.register(IMAGES, x),
    "verify_pairs moving": lambda x, e: ds.verify_pairs(x, IMAGES),
    "verify_pairs fixed": lambda x, e: ds.verify_pairs(IMAGES, x),
    "nearest_aligned synthetic": lambda x, e: ds.nearest_aligned(x, IMAGES, k=1),
    "nearest_aligned real": lambda x, e: ds.nearest_aligned(IMAGES, x, k=1),
    "explain_pair a": lambda x, e: ds.explain_pair(x, IMAGES, encoder=e),
    "explain_pair b": lambda x, e: ds.explain_pair(IMAGES, x, encoder=e),
}


@pytest.mark.parametrize("bad", BAD_IMAGES)
@pytest.mark.parametrize("function", ON_IMAGES)
def test_bad_images_are_refused_by_name(function: str, bad: str, encoder: ds.Encoder) -> None:
    value, words = BAD_IMAGES[bad]
    name = function.split()[-1] if " " in function else "images"
    with pytest.raises(ValueError, match=words) as caught:
        ON_IMAGES[function](value, encoder)
    assert str(caught.value).startswith(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda e: ds.embed(e, changed("constant")), "images: row 1 of 3 is constant"),
        (lambda e: ds.embed(e, IMAGES * 1e-9), "images: row 0 of 3 is constant, or varies by less"),
        (
            lambda e: ds.embed(e, changed(1e12)),
            "images: row 1 of 3 is ruled by a few .*without_outl",
        ),
        (lambda e: ds.verify_pairs(IMAGES, changed(-1e6)), "fixed: row 1 of 3 is ruled by a few"),
        (lambda e: ds.register(changed(1e9), IMAGES), "moving: row 1 of 3 is ruled by a few"),
        (lambda e: ds.verify_pairs(IMAGES[:, :3, :3], IMAGES), "moving .* too small: .* 8 pixels"),
        (lambda e: ds.register(IMAGES[:, :3, :3], IMAGES[:, :3, :3]), "moving .* too small"),
        (lambda e: ds.audit(["a"], "b"), "real is of type list and must be str or Path"),
        (lambda e: ds.audit(None, "b"), "real is of type NoneType"),
        (lambda e: ds.audit("a", "b", settings={}), "settings is of type dict"),
        (lambda e: ds.AuditSettings(seed=2**32), r"seed 4294967296 must .* in \[0, 4294967295\]"),
        (lambda e: ds.ReplicaSettings(seed=2**70), "seed 1180591620717411303424"),
        (lambda e: ds.AuditSettings(allow_same="yes"), "allow_same 'yes' must be True or False"),
        (lambda e: ds.AuditSettings(explain=1), "explain 1 must be True or False"),
        (lambda e: ds.embed("default", IMAGES), "encoder is of type str .* load_encoder"),
        (lambda e: ds.embed(e, IMAGES, batch_size=-1), "batch_size -1 must be a whole number"),
        (lambda e: ds.encode(e, IMAGES[0]), "images .* leading axis"),
        (
            lambda e: ds.ssim(changed("constant"), IMAGES, data_range="first"),
            "a: row 1 .* constant",
        ),
        (lambda e: ds.ssim(IMAGES, IMAGES, data_range="frist"), "data_range 'frist'"),
        (lambda e: ds.ssim(IMAGES, IMAGES, data_range=-1), "data_range -1"),
        (lambda e: ds.ssim(IMAGES, IMAGES, data_range=np.nan), "data_range nan"),
        (lambda e: ds.ssim(IMAGES, IMAGES, data_range=np.ones(2)), "data_range .* 3 images"),
        (lambda e: ds.ssim(IMAGES, IMAGES[:2], data_range=1.0), "same shape"),
        (lambda e: ds.ssim(IMAGES[:0], IMAGES[:0], data_range=1.0), "n is 0"),
        (lambda e: ds.ssim(IMAGES, IMAGES, data_range=1, window="box"), "window 'box'"),
        (lambda e: ds.ssim(IMAGES, IMAGES, data_range=1, reduction="sum"), "reduction 'sum'"),
        (lambda e: ds.ssim(IMAGES, IMAGES, data_range=1, spatial_dims=4), "spatial_dims 4"),
        (lambda e: ds.ssim_matrix(changed("constant"), IMAGES), "real: row 1 of 3 is constant"),
        (lambda e: ds.ssim_matrix(IMAGES, IMAGES[:, :32]), "one image shape"),
        (lambda e: ds.ssim_matrix(IMAGES, IMAGES, tile=-4), "tile -4"),
        (lambda e: ds.ssim_matrix(IMAGES, IMAGES, tile=0), "tile 0"),
        (lambda e: ds.ssim_matrix(IMAGES, IMAGES, data_range=[1.0, 2.0, 3.0]), "one number"),
        (
            lambda e: ds.nearest(2 * UNIT, UNIT, k=1),
            "queries: row 0 has norm 2 and must have norm 1",
        ),
        (
            lambda e: ds.nearest(UNIT, UNIT * [[1], [1], [3], [1], [1]], k=1),
            "references: row 2 .* 3 ",
        ),
        (
            lambda e: ds.nearest(np.where(np.arange(8) == 1, np.nan, UNIT), UNIT, k=1),
            "row 0 .* nan",
        ),
        (lambda e: ds.nearest(0 * UNIT, UNIT, k=1), "queries: row 0 has norm 0"),
        (lambda e: ds.nearest(UNIT.tolist(), UNIT, k=1), "queries is of type list"),
        (lambda e: ds.nearest(UNIT + 0j, UNIT, k=1), "queries has dtype complex"),
        (lambda e: ds.nearest(UNIT, UNIT[:0], k=1), "m >= 1"),
        (lambda e: ds.nearest(UNIT, UNIT[:, :4], k=1), "one d"),
        (lambda e: ds.nearest(UNIT, UNIT, k=0), r"k 0 must be a whole number in \[1, 5\]"),
        (lambda e: ds.nearest(UNIT, UNIT, k=2.0), "k 2.0"),
        (
            lambda e: ds.nearest_aligned(IMAGES, IMAGES, k=4),
            r"k 4 must be a whole number in \[1, 3\]",
        ),
        (lambda e: ds.nearest_aligned(IMAGES, IMAGES[:0], k=1), "m is 0"),
        (lambda e: ds.nearest_aligned(IMAGES, IMAGES, k=1, components=0), "components 0"),
        (lambda e: ds.nearest_aligned(IMAGES, IMAGES, k=1, grid="fine"), "grid is of type str"),
        (lambda e: ds.nearest_aligned(IMAGES[:, :32], IMAGES, k=1), "must be square"),
        (
            lambda e: ds.register(IMAGES, IMAGES, model="rigid"),
            "model 'rigid' .* MotionModel.RIGID",
        ),
        (lambda e: ds.register(IMAGES, IMAGES, batch_size=0), "batch_size 0"),
        (lambda e: ds.register(IMAGES, IMAGES, grid=ds.RigidGrid()), "grid is of type RigidGrid"),
        (lambda e: ds.register(IMAGES, IMAGES[:2]), "must be alike"),
        (lambda e: ds.register(IMAGES[:0], IMAGES[:0]), "n is 0"),
        (lambda e: ds.verify_pairs(IMAGES, IMAGES[:2]), "must be alike"),
        (lambda e: ds.verify_pairs(IMAGES, IMAGES, grid=None), "grid is of type NoneType"),
        (lambda e: ds.explain_pair(changed("constant"), IMAGES, encoder=e), "a: row 1 .* constant"),
        (lambda e: ds.load_encoder(3), "source is of type int"),
        (
            lambda e: ds.clopper_pearson(1, 10**400),
            r"total of 1329 bits .* \[0, 9007199254740992\]",
        ),
        (lambda e: ds.clopper_pearson(1, 10**9999), "total of 33216 bits"),
        (lambda e: ds.AuditSettings(plant=10**30), r"plant 10{30} must .* \[0, 1000000\]"),
        (lambda e: ds.SearchGrid(high_pass=10**30), r"high_pass 10{30} must lie in \(0, 32\]"),
        (lambda e: ds.SearchGrid(size=10**30), "size 10{30} must be a whole number"),
        (lambda e: ds.RigidGrid(high_pass=10**400), r"high_pass of 1329 bits .* \(0, 24\]"),
        (lambda e: ds.RigidGrid(high_pass=10**30), r"high_pass 10{30} must lie in \(0, 24\]"),
        (lambda e: ds.embed(e, IMAGES, batch_size=10**30), "batch_size 10{30} must be"),
        (lambda e: ds.duplicates("a", against=3), "against must be a list of folders"),
        (lambda e: ds.rate_agreement(None, []), "folder is of type NoneType"),
        (lambda e: ds.rate_agreement("a", None), "ratings must be a list of files"),
        (lambda e: ds.rate_agreement("a", "b.csv"), "ratings must be a list of files"),
        (lambda e: ds.rate_agreement("a", [None]), "ratings is of type NoneType"),
        (
            lambda e: ds.train_encoder(ds.EncoderConfig(), workdir=None),
            "workdir is of type NoneType",
        ),
        (lambda e: ds.clopper_pearson(3, 2), r"count 3 must be a whole number in \[0, 2\]"),
        (lambda e: ds.clopper_pearson(0.5, 2), "count 0.5"),
        (lambda e: ds.clopper_pearson(1, 2, level=1.0), "level 1.0"),
        (lambda e: ds.AuditSettings(size=100), "size 100"),
        (lambda e: ds.AuditSettings(size=-128), "size -128"),
        (lambda e: ds.AuditSettings(retrieval="both"), "retrieval 'both' .* Retrieval.BOTH"),
        (lambda e: ds.AuditSettings(level=95), "level 95"),
        (lambda e: ds.AuditSettings(seed=-1), "seed -1"),
        (lambda e: ds.AuditSettings(slice_spec="axial"), "slice 'axial'"),
        (lambda e: ds.AuditSettings(subject_regex="("), "no regular expression"),
        (lambda e: ds.AuditSettings(plant=-1), "plant -1"),
        (lambda e: ds.ReplicaSettings(size=8), "size 8"),
        (lambda e: ds.ReplicaSettings(spacing=0.0), "spacing 0.0"),
        (lambda e: ds.ReplicaSettings(modality="ct"), "modality 'ct' .* Modality.CT"),
        (lambda e: ds.ReplicaSettings(candidates=0), "candidates 0"),
        (lambda e: ds.SearchGrid(size=-1), "size -1"),
        (lambda e: ds.SearchGrid(min_scale=2.0), "must not be more than max_scale"),
        (lambda e: ds.SearchGrid(rotations=0), "rotations 0"),
        (lambda e: ds.SearchGrid(max_shift=float("nan")), "max_shift nan"),
        (lambda e: ds.RigidGrid(radius=2), "radius 2"),
        (lambda e: ds.SearchGrid(rotations=10**7), r"rotations 10000000 must .* \[1, 720\]"),
        (lambda e: ds.SearchGrid(scales=10**7), "scales 10000000"),
        (lambda e: ds.RigidGrid(rotations=10**7), r"rotations 10000000 must .* \[1, 32\]"),
        (lambda e: ds.AuditSettings(encoder=""), "encoder is empty"),
        (lambda e: ds.ReplicaSettings(encoder=""), "encoder is empty"),
        (lambda e: ds.lookup("scan.png", index="x"), "index is of type str .* open_index"),
        (
            lambda e: ds.LevelFiles(segmentations={"real": "x"}),
            "segmentations, a key: 'real' must be one of Role.REAL",
        ),
        (lambda e: ds.nearest(UNIT, UNIT, k=1, tiling="a"), "tiling is of type str .* Tiling"),
        (lambda e: ds.nearest(UNIT, UNIT, k=1, mesh="a"), "mesh is of type str .* Mesh"),
        (lambda e: ds.nearest(UNIT, UNIT, k=1, journal="a"), "journal is of type str .* Section"),
        (lambda e: ds.nearest(UNIT, UNIT, k=1, ring="a"), "ring is of type str .* bool"),
        (lambda e: ds.audit("a", "b", on_progress="x"), "on_progress is of type str"),
        (lambda e: ds.replicas("a", "b", on_progress="x"), "on_progress is of type str"),
        (lambda e: ds.duplicates("a", on_progress="x"), "on_progress is of type str"),
        (lambda e: ds.index("a", out="b", on_progress="x"), "on_progress is of type str"),
        (lambda e: ds.review("a", on_progress="x"), "on_progress is of type str"),
        (
            lambda e: ds.train_encoder(ds.EncoderConfig(), workdir="a", on_progress="x"),
            "on_progress is of type str",
        ),
        (lambda e: ds.review("a", settings=None), "settings is of type NoneType"),
        (lambda e: ds.progress(-1).__enter__(), "total -1 must be"),
        (lambda e: ds.progress(every_s=-1).__enter__(), "every_s -1 must be"),
    ],
)
def test_what_cannot_be_meant_is_said(call, words: str, encoder: ds.Encoder) -> None:
    with pytest.raises(ValueError, match=words):
        call(encoder)


def test_documented_values_of_flat_and_empty_input(encoder: ds.Encoder) -> None:
    flat = changed("constant")
    assert ds.verify_pairs(flat, flat).score[1] == 0
    assert ds.register(flat, flat).correlation[1] == 0
    found = ds.nearest_aligned(flat, IMAGES, k=2)
    assert (found.scores[1] == 0).all()
    assert ds.embed(encoder, IMAGES[:0]).shape == (0, encoder.dim)
    assert ds.encode(encoder, IMAGES[:0]).shape == (0, encoder.dim)
    assert ds.verify_pairs(IMAGES[:0], IMAGES[:0]).score.shape == (0,)
    assert ds.nearest_aligned(IMAGES[:0], IMAGES, k=2).scores.shape == (0, 2)
    assert ds.ssim_matrix(IMAGES[:0], IMAGES).shape == (0, 3)
    assert ds.ssim(IMAGES[:0], IMAGES[:0], data_range=1.0, reduction="none").shape == (0,)


def test_they_run_under_jit_with_the_same_values(encoder: ds.Encoder) -> None:
    plain = ds.embed(encoder, IMAGES, batch_size=2)
    traced = jax.jit(lambda x: ds.embed(encoder, x, batch_size=2))(IMAGES)
    np.testing.assert_allclose(traced, plain, atol=1e-6)

    found = jax.jit(lambda q: ds.nearest(q, UNIT, k=3))(UNIT)
    eager = ds.nearest(UNIT, UNIT, k=3)
    np.testing.assert_array_equal(found.indices, eager.indices)
    np.testing.assert_allclose(found.scores, eager.scores, atol=1e-6)

    matrix = jax.jit(lambda a, b: ds.ssim_matrix(a, b))(IMAGES, IMAGES)
    np.testing.assert_allclose(matrix, ds.ssim_matrix(IMAGES, IMAGES), atol=1e-6)


def test_under_jit_what_cannot_be_measured_is_nan(encoder: ds.Encoder) -> None:
    bad, flat = changed(np.nan), changed("constant")
    alone = [False, True, False]
    encode, embed = jax.jit(ds.encode), jax.jit(ds.embed)
    for images in (bad, changed(np.inf), flat):
        for found in (
            encode(encoder, images),
            embed(encoder, images),
            ds.encode(encoder, images),
        ):
            assert np.isnan(found).all(1).tolist() == alone
            assert np.isnan(found).any(1).tolist() == alone
    slope = jax.jit(jax.grad(lambda x: jnp.nansum(ds.encode(encoder, x))))(bad)
    assert np.isfinite(slope).all()
    verify = jax.jit(lambda a, b: ds.verify_pairs(a, b).score)
    for pair in ((bad, IMAGES), (IMAGES, bad)):
        assert np.isnan(register(*pair).correlation).tolist() == alone
        found = verify(*pair)
        assert np.isnan(found).tolist() == alone


@pytest.mark.parametrize("function", [name for name in ON_IMAGES if "ssim" not in name])
def test_the_order_of_bytes_changes_nothing(function: str, encoder: ds.Encoder) -> None:
    same, other = (ON_IMAGES[function](IMAGES.astype(kind), encoder) for kind in ("<f4", ">f4"))
    for one, two in zip(jax.tree.leaves(same), jax.tree.leaves(other), strict=True):
        if isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, two)


def test_the_picture_of_large_integers_is_not_rounded_away() -> None:
    skimage = pytest.importorskip("skimage.metrics", reason="skimage is not installed")
    a, b = ((1000 * x).astype(np.int32) + 10**6 for x in (IMAGES, IMAGES[::-1] + IMAGES))
    wanted = [
        skimage.structural_similarity(*(x.astype(float) for x in pair), data_range=5000.0)
        for pair in zip(a, b, strict=True)
    ]
    far = [x + (10**9 - 10**6) for x in (a, b)]  # of which float32 keeps every 64th value
    for pair in ((a, b), far, [x.astype(float) for x in far], [x.astype(">i8") for x in far]):
        found = ds.ssim(*pair, data_range=5000.0, reduction="none")
        np.testing.assert_allclose(found, wanted, atol=2e-5)
        matrix = ds.ssim_matrix(*pair, data_range=5000.0)
        np.testing.assert_allclose(np.diag(matrix), wanted, atol=2e-5)


def test_more_rows_at_a_time_than_there_are_cost_nothing(encoder: ds.Encoder) -> None:
    plain = ds.embed(encoder, IMAGES)
    np.testing.assert_array_equal(ds.embed(encoder, IMAGES, batch_size=10**12), plain)
    assert ds.register(IMAGES[:1], IMAGES[:1], batch_size=10**12).correlation.shape == (1,)


def test_registration_runs_under_jit() -> None:
    moving = np.roll(IMAGES, 3, axis=2)
    traced, eager = register(moving, IMAGES), ds.register(moving, IMAGES)
    np.testing.assert_allclose(traced.correlation, eager.correlation, atol=1e-4)
    np.testing.assert_allclose(traced.transform.shift, eager.transform.shift, atol=1e-2)


def test_the_encoder_can_be_differentiated_by_images_and_weights(encoder: ds.Encoder) -> None:
    other = ds.embed(encoder, IMAGES[1:2])

    @jax.jit
    def cosine(images: jax.Array, encoder: ds.Encoder) -> jax.Array:
        return (ds.encode(encoder, images) * other).sum()

    image = IMAGES[:1]
    slope, weights = jax.jit(jax.grad(cosine, argnums=(0, 1)))(image, encoder)
    assert np.isfinite(np.asarray(slope)).all() and np.abs(slope).max() > 0
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(weights))
    # Against a difference along one direction, with a step that float32 can see.
    direction = RNG.normal(size=image.shape).astype(np.float32)
    step = 1e-3
    rise = cosine(image + step * direction, encoder) - cosine(image - step * direction, encoder)
    np.testing.assert_allclose((slope * direction).sum(), rise / (2 * step), rtol=0.05, atol=1e-4)


FOLDERS: dict[str, Callable[[object], object]] = {
    "real": lambda x: ds.audit(x, "b"),
    "synthetic": lambda x: ds.audit("a", x),
    "holdout": lambda x: ds.audit("a", "b", holdout=x) if x is not None else ds.audit(x, "b"),
    "model": lambda x: ds.audit("a", "b", model=x) if x is not None else ds.audit(x, "b"),
    "out": lambda x: ds.audit("a", "b", out=x) if x is not None else ds.audit(x, "b"),
    "real of replicas": lambda x: ds.replicas(x, "b"),
    "synthetic of replicas": lambda x: ds.replicas("a", x),
    "rated": lambda x: ds.replicas("a", "b", rated=x) if x is not None else ds.replicas(x, "b"),
    "segmentations": lambda x: ds.LevelFiles(segmentations={ds.Role.REAL: x, ds.Role.SYNTHETIC: x}),
    "folder of duplicates": lambda x: ds.duplicates(x),
    "against": lambda x: ds.duplicates("a", against=[x]),
    "folder of index": lambda x: ds.index(x, out="b"),
    "out of index": lambda x: ds.index("a", out=x),
    "folder of open_index": lambda x: ds.open_index(x),
    "source": lambda x: ds.load_encoder(x),
}


@pytest.mark.parametrize("value", [None, 3, ["a"], b"a", ""], ids=repr)
@pytest.mark.parametrize("name", sorted(FOLDERS))
def test_what_is_no_path_is_said(name: str, value: object) -> None:
    words = "is empty" if value == "" else f"of type {type(value).__name__} and must be str or Path"
    with pytest.raises(ValueError, match=words) as error:
        FOLDERS[name](value)
    if value is not None:
        assert str(error.value).startswith(name.partition(" ")[0])


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize("name", sorted(FOLDERS))
def test_text_and_paths_are_taken_alike(name: str, kind: type, tmp_path: Path) -> None:
    """What is not there is missed by whoever looks for it, not by the type of its name."""
    if name == "segmentations":  # nobody has looked yet
        FOLDERS[name](kind(tmp_path / "nowhere"))
        return
    with pytest.raises(
        ValueError, match=r"there is no|must be the|missing|is not there|finished"
    ) as error:
        FOLDERS[name](kind(tmp_path / "nowhere"))
    assert "of type" not in str(error.value)


def test_one_folder_to_compare_with_is_no_list() -> None:
    with pytest.raises(ValueError, match=r"against=\['test/'\]"):
        ds.duplicates("a", against="test/")
