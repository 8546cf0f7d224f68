"""Other projects' encoder weights to ours, and back.

    deepssim convert --source=deepssim_v2.pt --out=deepssim_v2.safetensors
    deepssim convert --source=runs/v2/encoder.safetensors --out=ours.pth --to=reference

Reads the published TorchScript and state-dict files of DeepSSIM and DeepSSIM++. Every weight must
have its place; all that does not fit is said at once, before anything is written.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from deepssim_jax.cli import console
from deepssim_jax.cli.exit_codes import ExitCode

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
    from deepssim_jax.nn.encoder import load_encoder, save_encoder

    source, out = Path(_SOURCE.value), Path(_OUT.value)
    if _TO.value == "reference":
        encoder = load_encoder(source)
        torch_files.write_state_dict(out, reference_networks.to_reference(encoder))
    else:
        if out.suffix != ".safetensors":
            raise ValueError(f"--out={out.name}: our encoders are .safetensors files")
        if not source.is_file():
            raise ValueError(f"--source: there is no file {source.name!r}")
        encoder = reference_networks.from_reference(torch_files.read_state_dict(source))
        save_encoder(out, encoder, card={"converted_from": source.name})
    head, dims = encoder.spec.head.value, encoder.spec.backbone.dims
    console.finish([("head", head), ("stages", " ".join(map(str, dims)))], written=[out])
    return ExitCode.DONE
