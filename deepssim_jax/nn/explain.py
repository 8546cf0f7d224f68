"""Where in two images their score comes from: LayerCAM at the four stages of an encoder.

Contract: pairs are two arrays [n, h, w] of any real type and scale, row for row; maps are float32
[n, 4, h, w] in [0, 1], fine to coarse.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from deepssim_jax.nn.embedder import Embedder
from deepssim_jax.nn.encoder import Encoder, prepared
from deepssim_jax.ops import arguments
from deepssim_jax.ops.resample import resize
from deepssim_jax.typing import Array, Images

_BATCH = 16


@dataclasses.dataclass(frozen=True)
class PairExplanation:
    """Of n pairs: cosines [n], and for either side the maps [n, 4, h, w] of what raised them.

    Each map is divided by its maximum; one without any positive contribution is 0.

    Examples:
      >>> import deepssim_jax as ds
      >>> from deepssim_jax import testing
      >>> phantoms = testing.phantom_images(5)
      >>> found = ds.explain_pair(phantoms[:1], phantoms[:1], encoder=ds.load_encoder("default"))
      >>> found.first.shape, float(found.first.max())
      ((1, 4, 96, 96), 1.0)
    """

    scores: np.ndarray
    first: np.ndarray
    second: np.ndarray


def explain_pair(a: Images, b: Images, *, encoder: Encoder) -> PairExplanation:
    """LayerCAM (Jiang et al., TIP 2021, eqs. 6 to 8) of the cosine between two images.

    The map of a stage with activations A is relu(sum_c relu(dS / dA_c) A_c), S the cosine: the
    gradient runs through all that comes behind the stage.

    Args:
      a: [n, h, w].
      b: [n, h, w].
      encoder: from `load_encoder`.

    Returns:
      Scores and maps at the size of the images.

    Raises:
      ValueError: if the shapes differ or are not [n, h, w], or an image is constant or holds NaN or
        infinite values.

    Examples:
      >>> import deepssim_jax as ds
      >>> from deepssim_jax import testing
      >>> phantoms = testing.phantom_images(5)
      >>> found = ds.explain_pair(phantoms[:1], phantoms[1:2], encoder=ds.load_encoder("default"))
      >>> found.scores.shape, found.second.shape  # a map for each of four stages
      ((1,), (1, 4, 96, 96))
    """
    arguments.instance(encoder, "encoder", Encoder, remedy="load_encoder gives one")
    remedy = "its embedding would match every other such image"
    a, b = (
        arguments.varied(
            arguments.levelled(arguments.images(x, name, shape="[n, h, w]", dims=(3,)), name),
            name,
            remedy=remedy,
        )
        for name, x in (("a", a), ("b", b))
    )
    if a.shape != b.shape:
        raise ValueError(f"a {a.shape} and b {b.shape} must be alike, [n, h, w]")
    parts = []
    for start in range(0, len(a), _BATCH):
        rows = np.arange(start, start + _BATCH) % len(a)
        parts.append(_explain(encoder, *(jnp.asarray(np.asarray(x)[rows]) for x in (a, b))))
    if not parts:
        empty = np.zeros((0, 4, *a.shape[1:]), np.float32)
        return PairExplanation(np.zeros(0, np.float32), empty, empty)
    columns = (np.concatenate(column)[: len(a)] for column in zip(*parts, strict=True))
    return PairExplanation(*columns)


@jax.jit
def _explain(encoder: Encoder, a: Array, b: Array) -> tuple[Array, ...]:
    with jax.default_matmul_precision("highest"):  # as embeddings are made
        cosines, *sides = _heat(encoder, a, b)
    shown = []
    for maps in sides:
        large = jnp.stack([resize(heat, a.shape[1:]) for heat in maps], 1)
        shown.append(large / jnp.maximum(large.max((2, 3), keepdims=True), 1e-12))
    return cosines, *shown


def _heat(encoder: Encoder, a: Array, b: Array) -> tuple[Array, list[Array], list[Array]]:
    """Cosines [n], and of either side the four maps [n, h / 2^i, w / 2^i] as eq. 8 gives them.

    Of a mirrored network the maps are those of the image as it lies, one of the views that count.
    """
    model = nnx.merge(encoder.graph, encoder.state, copy=True)
    views = [model.views(prepared(encoder.spec, x)) for x in (a, b)]
    count = views[0].shape[1]
    inputs = [model.channels(x.reshape(-1, *x.shape[2:])) for x in views]
    shapes = [x.shape for x in jax.eval_shape(lambda x: _stages(model, x, None), inputs[0])]
    nothing = [[jnp.zeros(shape) for shape in shapes]] * 2

    def score(added: list[list[Array]]) -> tuple[Array, tuple]:
        sides = [_stages(model, x, more) for x, more in zip(inputs, added, strict=True)]
        first, second = (model.joined(model.head(stages), count) for stages in sides)
        cosines = (first * second).sum(-1)
        # The sum over pairs has each pair's own gradient: no image sees another.
        return cosines.sum(), (cosines, sides)

    gradients, (cosines, sides) = jax.grad(score, has_aux=True)(nothing)
    first, second = (
        [
            jax.nn.relu((jax.nn.relu(slope) * stage).sum(-1))[::count]
            for slope, stage in zip(slopes, stages, strict=True)
        ]
        for slopes, stages in zip(gradients, sides, strict=True)
    )
    return cosines, first, second


def _stages(model: Embedder, x: Array, added: list[Array] | None) -> list[Array]:
    """The stages' outputs; what is added to one is seen by all behind it."""
    out = []
    for number, stage in enumerate(model.backbone.stages):
        x = stage(x)
        x = x if added is None else x + added[number]
        out.append(x)
    return out
