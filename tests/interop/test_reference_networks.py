"""The published networks, filled by rule, give the published code's embeddings."""

import json
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from deepssim_jax.interop.reference_networks import from_reference, to_reference
from deepssim_jax.nn import encoder as encoders


def filled(path: Path) -> dict[str, np.ndarray]:
    """The rule of the golden file: every parameter from its own seed, by its name and shape."""
    out = {}
    for seed, (name, shape) in enumerate(json.loads(path.read_text())):
        size = int(np.prod(shape))
        c = np.random.default_rng(seed).standard_normal(size).reshape(shape)
        leaf = name.rpartition(".")[2]
        if leaf == "num_batches_tracked":
            value = np.zeros(shape)
        elif leaf == "layer_scale":
            value = 0.5 + 0.1 * c
        elif leaf == "p":
            value = 3 + 0.2 * c
        elif leaf == "running_var":
            value = 1 + 0.1 * np.abs(c)
        elif len(shape) >= 2:
            value = 1.5 * c / np.sqrt(np.prod(shape[1:]))
        elif leaf == "weight":
            value = 1 + 0.1 * c
        else:
            value = 0.1 * c
        out[name] = value.astype(np.float32)
    return out


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_embeddings_equal_the_published_code(golden_dir: Path, version: str) -> None:
    folder = golden_dir / "reference_networks"
    weights = filled(folder / f"deepssim_{version}_state_dict.json")
    encoder = from_reference(weights)
    with np.load(folder / f"deepssim_{version}_golden.npz") as golden:
        images, expected = golden["images"], golden["embeddings"]

    # Operation by operation: a program of all 36 blocks compiles for ten times as long as those of which
    # the blocks of a stage have need in common.
    network = nnx.merge(encoder.graph, encoder.state)
    # The published networks leave the norm to the cosine; ours are of unit norm.
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.linalg.norm(network(images) - expected, axis=1).max() < 1e-4

    back = to_reference(encoder)
    for name, value in weights.items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(back[name], value, err_msg=name)


def test_all_that_does_not_fit_is_said_at_once(golden_dir: Path) -> None:
    listing = golden_dir / "reference_networks" / "deepssim_v2_state_dict.json"
    shapes = json.loads(listing.read_text())
    weights = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes}
    del weights["gem_b.p"]
    weights["fc.9.weight"] = np.zeros(3, np.float32)
    weights["fc.4.bias"] = np.zeros(128, np.float32)
    with pytest.raises(ValueError, match=r"gem_b.p: missing.*fc.9.weight: unknown.*\(128,\)"):
        from_reference(weights)


def test_the_shipped_encoder_has_no_published_name() -> None:
    with pytest.raises(ValueError, match="40, 80, 160, 320"):
        to_reference(encoders.load_encoder("default"))
