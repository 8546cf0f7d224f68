"""Networks beside the encoders in files: safetensors with the specification in the metadata.

Contract: a network is its frozen specification and a pure state of arrays; names are the paths of
the state joined by dots. Nothing is loaded before every name and shape has been compared with the
specification, and nothing is executed that a file holds.
"""

import dataclasses
import enum
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from flax import nnx

from deepssim_jax.nn.autoencoder import Autoencoder, AutoencoderSpec
from deepssim_jax.nn.encoder import from_json, misfits, named
from deepssim_jax.nn.unet import UNet, UNetSpec
from deepssim_jax.workspace.files import tensor_bytes, write_new

Spec = AutoencoderSpec | UNetSpec
S = TypeVar("S", AutoencoderSpec, UNetSpec)


class Kind(enum.StrEnum):
    """What a file says of itself that it holds."""

    AUTOENCODER = "autoencoder"
    UNET = "unet"


# Of each kind the class of its specification, and the network built from it.
_NETWORKS: dict[Kind, tuple[Any, Any]] = {
    Kind.AUTOENCODER: (AutoencoderSpec, Autoencoder),
    Kind.UNET: (UNetSpec, UNet),
}


def _kind(spec: Spec) -> Kind:
    return next(kind for kind, (cls, _) in _NETWORKS.items() if isinstance(spec, cls))


@functools.cache
def blueprint(spec: Spec) -> tuple[nnx.GraphDef, nnx.State]:
    """Static graph, and shapes of the weights, of a specification; nothing is allocated."""
    network = _NETWORKS[_kind(spec)][1]
    model = nnx.eval_shape(lambda: network(spec, rngs=nnx.Rngs(0)))
    graph, params = nnx.split(model, nnx.Param)
    return graph, nnx.as_pure(params)


def drawing(seed: int) -> nnx.Rngs:
    """Randomness for fresh weights.

    Not by JAX's default generator: XLA compiles that one anew for every weight, and on a CPU a
    network of a hundred of them would take minutes to begin.
    """
    return nnx.Rngs(jax.random.key(seed, impl="unsafe_rbg"))


def shapes(spec: Spec) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of a specification."""
    return {name: tuple(leaf.shape) for name, leaf in named(blueprint(spec)[1]).items()}


def to_tensors(state: nnx.State) -> dict[str, np.ndarray]:
    """The weights under the names that files hold them by."""
    return {name: np.asarray(leaf) for name, leaf in named(state).items()}


def from_tensors(spec: Spec, tensors: Mapping[str, np.ndarray], *, what: str) -> nnx.State:
    """The weights of a specification.

    Args:
      spec: the network's.
      tensors: by the names of `to_tensors`.
      what: a name for the source, for the error.

    Raises:
      ValueError: with every name and shape that does not fit.
    """
    wrong = misfits(shapes(spec), {name: tuple(v.shape) for name, v in tensors.items()})
    if wrong:
        shown = "; ".join(wrong[:8]) + (f"; and {len(wrong) - 8} more" if len(wrong) > 8 else "")
        raise ValueError(f"{what} does not fit its specification: {shown}")
    paths = nnx.to_flat_state(blueprint(spec)[1])
    return nnx.from_flat_state(
        [(path, jnp.asarray(tensors[".".join(map(str, path))])) for path, _ in paths]
    )


def file_bytes(spec: Spec, state: nnx.State, *, card: Mapping[str, str]) -> bytes:
    """The file of a network: weights, specification and whatever else belongs to them as text."""
    metadata = {"kind": _kind(spec).value, "spec": json.dumps(dataclasses.asdict(spec)), **card}
    return tensor_bytes(to_tensors(state), metadata=metadata)


def save(path: Path, spec: Spec, state: nnx.State, *, card: Mapping[str, str]) -> None:
    """Writes `file_bytes` into a file that must be new, or hold just that.

    Raises:
      ValueError: there is a file of other content.
    """
    write_new(path, file_bytes(spec, state, card=card))


def spec_class(path: Path) -> Any:
    """The class of the specification that a file says it holds, for `load`.

    Raises:
      ValueError: the file is missing, or holds none of this module's networks.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path.name!r} in {path.parent.name!r}")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return _NETWORKS[Kind((file.metadata() or {}).get("kind", ""))][0]
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise ValueError(f"{path.name} holds no autoencoder or U-Net of this package") from error


def load(path: Path, kind: type[S]) -> tuple[S, nnx.State, dict[str, str]]:
    """A network of a file.

    Args:
      path: written by `save`.
      kind: the class of its specification.

    Returns:
      Specification, weights and the rest of the metadata.

    Raises:
      ValueError: the file is missing, holds another network, or does not fit its specification.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path.name!r} in {path.parent.name!r}")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            card = dict(file.metadata() or {})
            wanted = next(name for name, (cls, _) in _NETWORKS.items() if cls is kind)
            found = card.pop("kind", "unknown")
            if found != wanted:
                raise ValueError(
                    f"{path.name} holds a network of kind {found!r}, not {wanted.value!r}"
                )
            spec = kind(**from_json(json.loads(card.pop("spec"))))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, KeyError, TypeError, OSError) as error:
        raise ValueError(f"{path.name} is no network of this package: {error}") from error
    return spec, from_tensors(spec, tensors, what=path.name), card
