"""An encoder ready for use: a frozen network, its weights, and how they are kept.

Weights are safetensors with our names and the specification in the metadata; nothing is loaded
before every name, shape and type has been compared with the specification.
"""

import dataclasses
import functools
import importlib.resources
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from flax import nnx

from deepssim_jax.nn.convnext import ConvNeXtSpec
from deepssim_jax.nn.embedder import Embedder, EmbedderSpec, Head
from deepssim_jax.ops import arguments
from deepssim_jax.ops.batches import batch_size, in_batches
from deepssim_jax.ops.intensity import zscore
from deepssim_jax.ops.resample import resize
from deepssim_jax.typing import Array, Images
from deepssim_jax.workspace.files import sha256, tensor_bytes, write_new

_DEFAULT = "nano.safetensors"
_FAMILY = "convnext"
# On two cores 16 images take half of the time that they take among 64, whose stages leave the caches.
images_at_once = functools.partial(batch_size, cpu=16, accelerator=64)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("state",), meta_fields=("graph", "spec")
)
@dataclasses.dataclass(frozen=True)
class Encoder:
    """A network for inference: `graph` and `spec` are static, `state` holds plain arrays.

    Examples:
      >>> import deepssim_jax as ds
      >>> encoder = ds.load_encoder("default")
      >>> encoder.dim
      256
    """

    graph: nnx.GraphDef
    state: nnx.State
    spec: EmbedderSpec

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.spec.dim


def from_module(model: Embedder) -> Encoder:
    """Freezes a network: dropout off, running averages used."""
    graph, state = _frozen(model)
    return Encoder(graph, state, model.spec)


def from_params(spec: EmbedderSpec, *states: nnx.State) -> Encoder:
    """Freezes trained weights: pure states of the same network, parameters and statistics."""
    leaves = [leaf for state in states for leaf in nnx.to_flat_state(state)]
    return Encoder(_abstract(spec)[0], nnx.from_flat_state(leaves), spec)


def to_module(encoder: Encoder) -> Embedder:
    """A network that can be trained, with a copy of the encoder's weights."""
    model = Embedder(encoder.spec, rngs=nnx.Rngs(0))
    nnx.update(model, jax.tree.map(jnp.copy, encoder.state))
    return model


def at_rest(model: Embedder) -> Embedder:
    """The network without dropout and with BatchNorm's running figures; it shares its weights."""
    modes = {"deterministic": True}
    if model.spec.head is Head.POOLED:  # only this head has batch statistics
        modes["use_running_average"] = True
    return nnx.view(model, **modes)


def _frozen(model: Embedder) -> tuple[nnx.GraphDef, nnx.State]:
    graph, state = nnx.split(at_rest(model))
    return graph, nnx.as_pure(state)


@jax.jit
def apply(encoder: Encoder, images: Images) -> Array:
    """Embeds one batch [n, *space] of any real type and scale; z-scores each image."""
    model = nnx.merge(encoder.graph, encoder.state, copy=True)
    # Embeddings are factors of scores: no device may round what it multiplies.
    with jax.default_matmul_precision("highest"):
        return model.embed(prepared(encoder.spec, images))


def prepared(spec: EmbedderSpec, images: Images) -> Array:
    """Images [n, *space] z-scored and brought to the network's resolution.

    Raises:
      ValueError: the network is for images and these are volumes, or the other way round.
    """
    space = spec.backbone.space
    if images.ndim != space + 1:
        wanted = "images [n, h, w]" if space == 2 else "volumes [n, d, h, w]"
        raise ValueError(
            f"this encoder embeds {wanted} and got {images.shape}: add a leading axis, or give an "
            f"encoder of {'volumes' if space == 2 else 'images'}"
        )
    images = zscore(images, spatial_dims=space)
    if spec.resolution is None or images.shape[1:] == (spec.resolution,) * space:
        return images
    return zscore(resize(images, (spec.resolution,) * space), spatial_dims=space)


def embed(encoder: Encoder, images: Images, *, batch_size: int | None = None) -> np.ndarray:
    """Embeds images in batches of one shape.

    Args:
      encoder: from `load_encoder`.
      images: [n, h, w], or volumes [n, d, h, w] if that is what it embeds; any real type and
        intensity scale; each is z-scored.
      batch_size: images on the device at a time; None as many as suit it.

    Returns:
      float32 [n, d], rows of unit norm: NumPy, or JAX inside `jax.jit`, where an image that is refused
      outside gives NaN.

    Raises:
      ValueError: that is not what the images are, one is constant or holds NaN or infinite values, or
        `batch_size` is not positive.

    Examples:
      >>> import numpy as np
      >>> import deepssim_jax as ds
      >>> from deepssim_jax import testing
      >>> phantoms = testing.phantom_images(5)
      >>> embeddings = ds.embed(ds.load_encoder("default"), phantoms)
      >>> embeddings.shape, np.linalg.norm(embeddings, axis=1).round(4)
      ((5, 256), array([1., 1., 1., 1., 1.], dtype=float32))
    """
    images = _checked(encoder, images)
    arguments.levelled(images, "images")
    arguments.varied(images, "images", remedy="its embedding would match every other such image")
    size = arguments.batch(batch_size, "batch_size", count=len(images), usual=images_at_once())
    run = functools.partial(_known if arguments.is_traced(images) else apply, encoder)
    return cast(np.ndarray, in_batches(run, images, size=size))


def encode(encoder: Encoder, images: Images) -> jax.Array:
    """The embeddings of one batch as a pure function, for `jax.jit`, `jax.grad` and `jax.vmap`.

    It can be differentiated by the images and by the weights: an `Encoder` is a pytree.

    Args:
      encoder: from `load_encoder`.
      images: as for `embed`, all on the device at once; values are not looked at.

    Returns:
      float32 [n, d], rows of unit norm; NaN for an image that is constant or holds NaN or infinite values.

    Raises:
      ValueError: that is not what the images are.

    Examples:
      >>> import deepssim_jax as ds
      >>> import jax
      >>> from deepssim_jax import testing
      >>> phantoms = testing.phantom_images(5)
      >>> encoder = ds.load_encoder("default")
      >>> first, second = phantoms[:1], phantoms[1:2]
      >>> def cosine(images):
      ...     return (ds.encode(encoder, images) * ds.encode(encoder, second)).sum()
      >>> jax.grad(cosine)(jax.numpy.asarray(first)).shape
      (1, 96, 96)
    """
    images = _checked(encoder, images, finite=False)
    if not len(images):
        return jnp.zeros((0, encoder.dim))
    return _known(encoder, images)


def _known(encoder: Encoder, images: Images) -> jax.Array:
    """`apply`, and NaN for what has no embedding, which inside a program nobody can refuse."""
    good = arguments.varied_rows(images)
    # Such rows must not reach the network: their gradients would be NaN for the weights of all.
    clean = jnp.where(good.reshape(-1, *[1] * (images.ndim - 1)), images, 0)
    return jnp.where(good[:, None], apply(encoder, clean), jnp.nan)


def _checked(encoder: Encoder, images: Images, *, finite: bool = True) -> Images:
    arguments.instance(encoder, "encoder", Encoder, remedy="load_encoder gives one")
    shape, dims = "[n, h, w]", (3,)
    if encoder.spec.backbone.space == 3:
        shape, dims = "[n, d, h, w], volumes", (4,)
    return arguments.images(images, "images", shape=shape, dims=dims, finite=finite)


def to_tensors(encoder: Encoder) -> dict[str, np.ndarray]:
    """The weights under the names that files hold them by."""
    return {name: np.asarray(leaf) for name, leaf in named(encoder.state).items()}


def from_tensors(spec: EmbedderSpec, tensors: Mapping[str, np.ndarray]) -> Encoder:
    """An encoder from `to_tensors`; compare with `tensor_shapes` first."""
    graph, abstract = _abstract(spec)
    leaves = [
        (keys, jnp.asarray(tensors[".".join(map(str, keys))]))
        for keys, _ in nnx.to_flat_state(abstract)
    ]
    return Encoder(graph, nnx.from_flat_state(leaves), spec)


def tensor_shapes(spec: EmbedderSpec) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of a specification; nothing is allocated."""
    return {name: tuple(leaf.shape) for name, leaf in named(_abstract(spec)[1]).items()}


def misfits(
    wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> list[str]:
    """All that differs between the weights wanted and the weights found, one phrase each."""
    wrong = [f"{n}: missing" for n in sorted(wanted.keys() - found.keys())]
    wrong += [f"{n}: unknown" for n in sorted(found.keys() - wanted.keys())]
    wrong += [
        f"{n}: {found[n]} in the file, {wanted[n]} by its specification"
        for n in sorted(wanted.keys() & found.keys())
        if wanted[n] != found[n]
    ]
    return wrong


def named(state: nnx.State) -> dict[str, Array]:
    """The arrays of a state by the names that files hold them by: their paths joined by dots."""
    return {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(state)}


def encoder_bytes(encoder: Encoder, *, card: Mapping[str, str]) -> bytes:
    """The file of an encoder: weights and specification; see `save_encoder`."""
    metadata = {"spec": json.dumps(_fields(encoder.spec)), **card}
    return tensor_bytes(to_tensors(encoder), metadata=metadata)


def save_encoder(path: str | Path, encoder: Encoder, *, card: Mapping[str, str]) -> None:
    """Writes weights and specification into a file that must be new, or hold just that.

    Args:
      path: a `.safetensors` file.
      encoder: what to keep.
      card: what a user should know: data, command, numbers.

    Raises:
      ValueError: there is a file of other content.
    """
    write_new(Path(path), encoder_bytes(encoder, card=card))


def _file(source: str | Path) -> Path:
    arguments.path(source, "source", "a .safetensors file, or the word default")
    if source == "default":
        return Path(str(importlib.resources.files("deepssim_jax") / "weights" / _DEFAULT))
    return Path(source).expanduser()


def encoder_hash(source: str | Path = "default") -> str:
    """SHA-256 of an encoder's file.

    Raises:
      ValueError: there is no such file.
    """
    path = _file(source)
    if not path.is_file():
        raise ValueError(
            f"encoder {path.name!r} is not there; give 'default' or a .safetensors file made by "
            "train_encoder or convert"
        )
    return sha256(path)


def is_encoder(path: Path) -> bool:
    """Whether a `.safetensors` file says of itself that it is an encoder of this package."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            said = file.metadata() or {}
            return "spec" in said and "kind" not in said  # other networks say their kind
    except safetensors.SafetensorError:
        return False


def load_encoder(source: str | Path = "default") -> Encoder:
    """Loads the shipped encoder or one from a file.

    Args:
      source: "default" or a `.safetensors` file.

    Raises:
      ValueError: the file is missing, is no safetensors file, or does not fit its specification;
        all that does not fit is said at once.

    Examples:
      >>> import deepssim_jax as ds
      >>> ds.load_encoder("default").spec.resolution
      64
    """
    encoder_hash(source)  # the clear error for a missing file
    path = _file(source)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            spec = _spec(json.loads(metadata["spec"]))
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            wrong = misfits(tensor_shapes(spec), found)
            if wrong:
                raise ValueError(f"{path.name} does not fit its specification: {'; '.join(wrong)}")
            tensors = {name: file.get_tensor(name) for name in found}
    except (safetensors.SafetensorError, KeyError, TypeError, OSError) as error:
        raise ValueError(f"encoder {path.name!r} is no encoder of this package: {error}") from error
    return from_tensors(spec, tensors)


def _fields(spec: EmbedderSpec) -> dict[str, Any]:
    return {"family": _FAMILY, **dataclasses.asdict(spec)}


def _spec(fields: dict[str, Any]) -> EmbedderSpec:
    # Older files state no family.
    if (family := fields.pop("family", _FAMILY)) != _FAMILY:
        raise ValueError(
            f"the backbone is of the family {family!r}, and this version has {_FAMILY}"
        )
    backbone = ConvNeXtSpec(**from_json(fields.pop("backbone")))
    return EmbedderSpec(backbone, Head(fields.pop("head")), **fields)


def from_json(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a specification; JSON knows lists alone, and these are tuples."""
    return {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}


@functools.cache
def _abstract(spec: EmbedderSpec) -> tuple[nnx.GraphDef, nnx.State]:
    return _frozen(nnx.eval_shape(lambda: Embedder(spec, rngs=nnx.Rngs(0))))
