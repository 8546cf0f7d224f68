"""No device rounds what a reported score is made of.

Every kernel is lowered for GPUs and TPUs, and each product and convolution in the text must have
float32 operands at the highest precision. Products of bfloat16 stand where they choose candidates
alone, and `tests/scoring/test_pairs.py` and `test_aligned.py` hold the bounds on their error.
"""

import ast
import dataclasses
import functools
import re
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepssim_jax.diffusion import steering
from deepssim_jax.diffusion.schedule import Schedule
from deepssim_jax.features import extract, matching
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.nn import explain
from deepssim_jax.nn.embedder import EmbedderSpec
from deepssim_jax.ops import (
    augment,
    degradation,
    fsim,
    overlap,
    registration,
    search_rigid,
    ssim,
    tissue,
    volume_keypoints,
    volume_poses,
    volume_similarity,
    volume_structure,
    volume_votes,
)
from deepssim_jax.ops.search_grid import SearchGrid
from deepssim_jax.ops.search_rigid import RigidGrid
from deepssim_jax.ops.transform import MotionModel, Transform
from deepssim_jax.scoring import (
    aligned,
    detail,
    embed,
    in_place,
    membership,
    pairs,
    points,
    tiles,
    verify,
    volume_points,
    volume_search,
)
from deepssim_jax.scoring.tiles import Queries, Tiling
from deepssim_jax.training import restoration

PACKAGE = Path(__file__).resolve().parent.parent / "deepssim_jax"
GRID = SearchGrid(size=16, rotations=3, scales=2)
_PRODUCT = re.compile(r"stablehlo\.(?:dot_general|dot|convolution)\b.*")
_OPERANDS = re.compile(r": \(tensor<[^>]*x(\w+)>, tensor<[^>]*x(\w+)>\) -> tensor<[^>]*x(\w+)>")


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A program and what it is given; `chooses` says that bfloat16 may pick its candidates."""

    run: Callable[..., object]
    given: tuple[object, ...]
    chooses: bool = False


def _like(*shape: int, dtype: object = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def _encoder(spec: EmbedderSpec) -> encoders.Encoder:
    """One block a stage, without numbers: lowering asks for neither more."""
    backbone = dataclasses.replace(spec.backbone, depths=(1,) * len(spec.backbone.depths))
    spec = dataclasses.replace(spec, backbone=backbone)
    graph, state = encoders._abstract(spec)
    return encoders.Encoder(graph, state, spec)


def _embedding(spec: EmbedderSpec, *space: int) -> Kernel:
    return Kernel(encoders.apply, (_encoder(spec), _like(2, *space)))


def _explained() -> Kernel:
    given = _encoder(EmbedderSpec.nano()), _like(2, 64, 64), _like(2, 64, 64)
    return Kernel(explain._explain, given)


def _nearest(*, surely: bool) -> Kernel:
    """The search with halves, as accelerators do it, with patients kept apart."""
    tiling = Tiling(rows=8, tile=64, strips=2, spans=2, half=True)
    run = tiles.visit_best(tiling=tiling, in_order=True, surely=surely)
    labels, norms = functools.partial(_like, dtype=jnp.int32), (_like(128), _like(128))
    low = _like(128, 16, dtype=jnp.bfloat16)
    references = tiles.References(_like(128, 16), labels(128), low, norms)
    state = _like(16, 4), labels(16, 4), _like(16)
    given = state, Queries(_like(16, 16), labels(16)), references, labels(), labels()
    return Kernel(run, given, chooses=not surely)


def _histogram() -> Kernel:
    run = tiles.visit_histogram(bins=10, tiling=Tiling(rows=8, tile=64))
    count = _like(dtype=jnp.int32)
    rows = Queries(_like(8, 16)), tiles.References(_like(64, 16))
    return Kernel(run, ((_like(8, 10, dtype=jnp.int32),), *rows, count, count))


def _aligned_tile(*, half: bool) -> Kernel:
    run = functools.partial(aligned._search_tile, k=3, chunk=8, half=half)
    labels = functools.partial(_like, dtype=jnp.int32)
    return Kernel(run, (_like(2, 64, 16), _like(16, 256), labels(256), labels(2)), chooses=half)


def _aligned_features() -> Kernel:
    pixels = int(aligned.search_grid.disc(GRID).sum())
    run = functools.partial(aligned._features, grid=GRID)
    return Kernel(run, (_like(2, GRID.size, GRID.size), _like(pixels, 16)))


def _points_ranked() -> Kernel:
    labels = functools.partial(_like, dtype=jnp.int32)
    run = functools.partial(matching._rank, count=4)
    given = (
        _like(5, 8, 16),
        labels(5),
        _like(2, 3, 8, 16),
        labels(2, 3),
        _like(3, 8, 16),
        labels(3),
        _like(16),
    )
    return Kernel(run, given)


def _points_verified() -> Kernel:
    bytes_ = functools.partial(_like, dtype=jnp.uint8)
    given = (
        _like(2, 8, 6), bytes_(2, 8, 128), _like(2, 12, 8, 6), bytes_(2, 12, 8, 128),
        _like(2, 12, dtype=jnp.int32), _like(2, 12, dtype=jnp.bool_), _like(128), _like(128, 16), _like(16),
    )  # fmt: skip
    return Kernel(points._verified, given)


def _partial() -> Kernel:
    start = Transform(_like(2, dtype=jnp.int32), _like(2, 2, 2), _like(2, 2))
    common = _like(detail.BANDS, 3, detail._SIDE**2), _like(detail._SIDE, detail._SIDE)
    return Kernel(detail._partial, (_like(2, 96, 96), _like(2, 96, 96), start, _like(2), *common))


def _verified_from() -> Kernel:
    start = Transform(_like(2, dtype=jnp.int32), _like(2, 2, 2), _like(2, 2))
    return Kernel(verify._verify_from, (_like(2, 64, 64), _like(2, 64, 64), start, _like(2)))


def _likelihoods() -> Kernel:
    low, index = _like(2, 16, 16), _like(2, 3, dtype=jnp.int32)
    return Kernel(
        functools.partial(aligned._likelihoods, grid=GRID), (low, _like(2, 3, 16, 16), index)
    )


def _ssim_tile(window: ssim.Window) -> Kernel:
    def tile(real: jax.Array, synthetic: jax.Array) -> jax.Array:
        x, y = (ssim.moments(images, window) for images in (real, synthetic))
        return ssim.ssim_tile(x, y, x.extent, window=window)

    return Kernel(tile, (_like(24, 24, 2), _like(24, 24, 3)))


def _refined(model: MotionModel) -> Kernel:
    start = Transform(_like(2, dtype=jnp.int32), _like(2, 3, 3), _like(2, 3))
    run = functools.partial(registration.align, model=model)
    return Kernel(run, (_like(2, 12, 12, 12), _like(2, 12, 12, 12), start))


def _attack(attack: membership.Attack) -> Kernel:
    def score(x: jax.Array, weights: jax.Array, keys: jax.Array) -> jax.Array:
        def predict(x: jax.Array, times: jax.Array, condition: None) -> jax.Array:
            del times, condition
            return (x.reshape(len(x), -1) @ weights).reshape(x.shape)

        return membership.scores(predict, x, keys, attack=attack, schedule=Schedule())

    return Kernel(score, (_like(2, 4, 4, 1), _like(16, 16), jax.random.split(jax.random.key(0), 2)))


def _restored() -> Kernel:
    draw = functools.partial(restoration._drawn, channels=4)
    params = jax.eval_shape(draw, jax.random.key(0))
    return Kernel(functools.partial(restoration._apply, channels=4), (params, _like(2, 32, 32)))


def _augmented(*space: int) -> Kernel:
    config = augment.AugmentConfig.volumes() if len(space) == 3 else augment.AugmentConfig.v2()

    def run(images: jax.Array) -> jax.Array:
        key = jax.random.key(0)
        return augment.augment(images, augment.sample_params(key, images.shape, config), key)

    return Kernel(run, (_like(2, *space),))


def _volume_aligned() -> Kernel:
    volumes = _like(2, 16, 16, 16)
    starts = Transform(_like(2, 1, dtype=jnp.int32), _like(2, 1, 3, 3), _like(2, 1, 3))
    return Kernel(volume_structure.align, (volumes, volumes, volumes, volumes, starts))


def _pair(run: Callable[..., object], *shape: int, **how: object) -> Kernel:
    return Kernel(functools.partial(run, **how), (_like(*shape), _like(*shape)))


KERNELS: dict[str, Callable[[], Kernel]] = {
    "ssim": lambda: _pair(ssim.ssim, 2, 24, 24, data_range=1.0),
    "ssim_3d": lambda: _pair(ssim.ssim, 2, 12, 12, 12, data_range="first", spatial_dims=3),
    "ssim_matrix": lambda: _ssim_tile("uniform"),
    "ssim_matrix_gaussian": lambda: _ssim_tile("gaussian"),
    "embed_nano": lambda: _embedding(EmbedderSpec.nano(), 64, 64),
    "embed_tiny": lambda: _embedding(EmbedderSpec.tiny(), 64, 64),
    "embed_volume": lambda: _embedding(EmbedderSpec.volume(), 32, 32, 32),
    "explain_pair": _explained,
    "nearest": lambda: _nearest(surely=False),
    "nearest_surely": lambda: _nearest(surely=True),
    "histogram": _histogram,
    "nearest_aligned_features": _aligned_features,
    "nearest_aligned": lambda: _aligned_tile(half=True),
    "nearest_aligned_surely": lambda: _aligned_tile(half=False),
    "nearest_aligned_transforms": lambda: Kernel(
        aligned._best_transforms, (_like(2, 8, 16), _like(2, 3, 16))
    ),
    "most_likely": _likelihoods,
    "nearest_in_place": lambda: Kernel(
        functools.partial(in_place._tile, k=2),
        (
            _like(4, 3, 256),
            _like(32, 16, 16),
            _like(3, dtype=jnp.int32),
            _like(32, dtype=jnp.int32),
        ),
    ),
    "low_resolution": lambda: Kernel(functools.partial(embed._low, grid=GRID), (_like(2, 64, 64),)),
    "register": lambda: _pair(registration._locate, 2, 64, 64, grid=GRID),
    "register_affine": lambda: _pair(
        registration._locate, 2, 64, 64, grid=GRID, model=MotionModel.AFFINE
    ),
    "register_volumes": lambda: _pair(
        search_rigid.coarse_rigid, 2, 16, 16, 16, grid=RigidGrid(size=8, rotations=2)
    ),
    "refine_rigid": lambda: _refined(MotionModel.RIGID),
    "refine_affine": lambda: _refined(MotionModel.AFFINE),
    "points": lambda: Kernel(
        functools.partial(extract.extract, points=16), (_like(2, 64, 64), _like(2, 2))
    ),
    "points_ranked": _points_ranked,
    "points_verified": _points_verified,
    "verify_from": _verified_from,
    "partial_correlation": _partial,
    "verify_pairs": lambda: _pair(verify._figures, 2, 64, 64, grid=GRID),
    "volume_similarity": lambda: _pair(volume_similarity.volume_similarity, 2, 12, 12, 12),
    "volume_keypoints": lambda: Kernel(
        volume_keypoints.keypoints, (_like(1, 16, 16, 16), _like(1, 3), _like(1, 3))
    ),
    "volume_votes": lambda: Kernel(
        volume_votes.agreeing, (_like(99, 3), _like(2, 99, 3), _like(2, 99))
    ),
    "volume_closest": lambda: Kernel(
        volume_points._closest, (_like(5, 8), _like(2, 7, 8), _like(2, 7, dtype=jnp.bool_))
    ),
    "volume_coarse": lambda: Kernel(
        volume_poses.coarse, (_like(1, 40, 40, 40), _like(1, 3), _like(1, 3))
    ),
    "volume_poses": lambda: Kernel(volume_poses.best_poses, (_like(16, 16, 16), _like(2, 16**3))),
    "volume_aligned": _volume_aligned,
    "occupancy": lambda: Kernel(
        functools.partial(volume_search.occupancy_of, labels=(1, 2)), (_like(2, 20, 20, 20),)
    ),
    "overlap": lambda: Kernel(
        functools.partial(overlap._moments, labels=(1, 2)),
        (_like(8, 9, 10, dtype=jnp.int32), _like(8, 9, 10, dtype=jnp.int32)),
    ),
    "tissues": lambda: Kernel(tissue._tissues, (_like(1, 8, 9, 10), _like(1, 1, 1, 3))),
    "fsim": lambda: _pair(fsim.fsim, 2, 24, 24),
    "membership_loss": lambda: _attack(membership.Attack.LOSS),
    "membership_secmi": lambda: _attack(membership.Attack.SECMI),
    "membership_pia": lambda: _attack(membership.Attack.PIA),
    "restored": _restored,
    "degraded": lambda: Kernel(
        functools.partial(degradation.degrade, task=degradation.Task.SUPER_RESOLUTION),
        (jax.random.key(0), _like(2, 16, 16)),
    ),
    "steered": lambda: Kernel(steering.steer, (_like(2, 16), _like(5, 16), _like())),
    "augmented": lambda: _augmented(24, 24),
    "augmented_volumes": lambda: _augmented(12, 12, 12),
}


def rounded(text: str) -> list[tuple[str, str]]:
    """Of a lowered program every product that is not of float32 at the highest precision.

    What its operands are ("f32", "bf16") and its line. Wider ones and integers are never rounded.
    """
    found = []
    for line in _PRODUCT.findall(text):
        operands = _OPERANDS.search(line)
        assert operands, f"cannot read {line}"
        kinds = set(operands.groups()[:2])
        if kinds <= {"f64"} or all(kind.startswith(("i", "ui")) for kind in kinds):
            continue
        if kinds != {"f32"} or line.count("HIGHEST") != 2:
            found.append(("f32" if kinds == {"f32"} else "+".join(sorted(kinds)), line))
    return found


def products(text: str) -> int:
    """How many products a lowered program has."""
    return len(_PRODUCT.findall(text))


@pytest.mark.parametrize("name", KERNELS)
def test_lowers_at_the_highest_precision(name: str) -> None:
    kernel = KERNELS[name]()
    traced = jax.jit(kernel.run).trace(*kernel.given)
    for platform in ("cuda", "tpu"):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        wrong = rounded(text)
        if kernel.chooses:
            # Candidates: bfloat16 in, float32 out, which a bound covers; the rest is exact.
            assert any(kind == "bf16" for kind, _ in wrong), "no fast pass is left to allow"
            assert all(line.rstrip().endswith("xf32>") for kind, line in wrong if kind == "bf16")
            wrong = [(kind, line) for kind, line in wrong if kind != "bf16"]
        assert not wrong, f"{name} for {platform}: {wrong[0][1]}"


def test_the_check_can_fail() -> None:
    def text_of(run: Callable[..., object], dtype: object = jnp.float32) -> str:
        given = _like(4, 4, dtype=dtype), _like(4, 4, dtype=dtype)
        return jax.jit(run).trace(*given).lower(lowering_platforms=("cuda",)).as_text()

    def convolve(a: jax.Array, b: jax.Array, precision: str | None = None) -> jax.Array:
        return jax.lax.conv(a[None, None], b[None, None], (1, 1), "SAME", precision=precision)

    assert [kind for kind, _ in rounded(text_of(lambda a, b: a @ b))] == ["f32"]
    assert [kind for kind, _ in rounded(text_of(convolve))] == ["f32"]
    assert [kind for kind, _ in rounded(text_of(lambda a, b: a @ b, jnp.bfloat16))] == ["bf16"]
    high = functools.partial(jnp.matmul, precision="high")  # three passes of bfloat16, or TF32
    assert [kind for kind, _ in rounded(text_of(high))] == ["f32"]
    exact = functools.partial(jnp.matmul, precision="highest")
    assert products(text_of(exact)) == 1 and not rounded(text_of(exact))
    assert not rounded(text_of(functools.partial(convolve, precision="highest")))


# Layers of networks: the precision is that of the program that they stand in.
LAYERS = {"ops/layers.py", "ops/depthwise.py"}
_CALLS = {
    "einsum",
    "matmul",
    "dot",
    "tensordot",
    "vdot",
    "inner",
    "dot_general",
    "conv",
    "convolve",
}


def unnamed(source: str) -> list[int]:
    """Lines of calls of `jnp` or `jax.lax` that multiply and name neither precision nor result."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        owner = ast.unparse(node.func.value)
        named = {word.arg for word in node.keywords} & {"precision", "preferred_element_type"}
        multiplies = node.func.attr in _CALLS or node.func.attr.startswith("conv_general")
        if owner in {"jnp", "jax.numpy", "lax", "jax.lax"} and multiplies and not named:
            lines.append(node.lineno)
    return lines


def test_every_product_in_the_source_names_its_precision() -> None:
    assert unnamed("import jax.numpy as jnp\njnp.einsum('ij,jk', a, b)") == [2]
    assert not unnamed("jnp.matmul(a, b, precision=exact)\nnp.dot(a, b)\nproducts.einsum('i', a)")
    found = {
        str(path.relative_to(PACKAGE)): lines
        for room in ("ops", "scoring", "diffusion", "features")
        for path in sorted((PACKAGE / room).rglob("*.py"))
        if (lines := unnamed(path.read_text()))
    }
    assert set(found) <= LAYERS, found


def test_fast_passes_change_no_answer() -> None:
    """With bfloat16 choosing, as accelerators search, scores and places are those of float32."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(330, 32)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    exact, fast = (
        pairs.nearest(rows[:30], rows[30:], k=5, tiling=Tiling(rows=16, tile=64, half=half))
        for half in (False, True)
    )
    np.testing.assert_array_equal(fast.indices, exact.indices)
    np.testing.assert_allclose(fast.scores, exact.scores, atol=2e-7, rtol=0)
