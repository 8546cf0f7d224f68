r"""Other projects' weights to ours, and back.

    deepssim convert --source=deepssim_v2.pt --out=deepssim_v2.safetensors
    deepssim convert --source=runs/v2/encoder.safetensors --out=ours.pth --to=reference

Reads the published TorchScript and state-dict files of DeepSSIM and DeepSSIM++, and state dicts of MONAI's
AutoencoderKL (without attention) and DiffusionModelUNet:

    deepssim convert --source=vae.pt --out=runs/vae/autoencoder.safetensors --norm_num_groups=32
    deepssim convert --source=unet.pt --out=runs/ldm/denoiser.safetensors --norm_num_groups=32 \
        --num_head_channels=0,512,768 --latent_scale=0.9 --size=136,112 --prediction=v
    deepssim convert --source=runs/ldm/denoiser.safetensors --out=unet.pt --to=monai

What no shape tells has to be given, as the network was built and trained. To generate, a folder needs
both files, records.csv (image_id, subject_id, copies, sha256 of each image trained on) and for a
conditioned network conditions.npy (float32 [images, tokens, context]).
Every weight must have its place; all that does not fit is said at once, before anything is written.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from deepssim_jax.cli import console, usage
from deepssim_jax.cli.exit_codes import ExitCode

if TYPE_CHECKING:  # at run time they would load JAX before --help is answered
    import numpy as np

    from deepssim_jax.nn.embedder import EmbedderSpec
    from deepssim_jax.nn.network_file import Spec

_SOURCE = flags.DEFINE_string(
    "source", None, "a .pt, .pth or .safetensors file, or a network of ours", required=True
)
_OUT = flags.DEFINE_string("out", None, "the file to write", required=True)
_TO = flags.DEFINE_enum(
    "to",
    "ours",
    ["ours", "reference", "monai"],
    "ours, or an encoder to the published names and layouts, or an autoencoder or U-Net to MONAI's",
)
_GROUPS = flags.DEFINE_integer(
    "norm_num_groups", None, "of a MONAI network; its default there is 32", lower_bound=1
)
_HEADS = flags.DEFINE_list(
    "num_head_channels",
    None,
    "of a MONAI U-Net: one number a level, or one for all; its default there is 8",
)
_SCALE = flags.DEFINE_float(
    "latent_scale",
    None,
    "of a MONAI U-Net: what latents are multiplied by (its scale_factor)",
    lower_bound=1e-9,
)
_SIZE = flags.DEFINE_list(
    "size", None, "of a MONAI U-Net: height and width of its images in pixels"
)
_PREDICTION = flags.DEFINE_enum(
    "prediction", None, ["epsilon", "v"], "of a MONAI U-Net: what it was trained to say"
)
_BETAS = flags.DEFINE_list(
    "betas",
    ["0.0015", "0.0205"],
    "of a MONAI U-Net: beta_start and beta_end of its scaled-linear schedule of 1000 steps",
)


def main() -> int:
    """Converts one file.

    Returns:
        `ExitCode.DONE`.

    Raises:
        ValueError: a file that is missing or does not fit, or a flag that is needed.
    """
    from deepssim_jax.interop import monai_networks, torch_files

    source, out = Path(_SOURCE.value), Path(_OUT.value)
    usage.exists(_SOURCE, "file")
    # What only tells of MONAI's networks is not to be given, and left unread, for others.
    given = (_GROUPS, _HEADS, _SCALE, _SIZE, _PREDICTION, _BETAS)
    for flag, kind, count in ((_HEADS, int, None), (_SIZE, int, 2), (_BETAS, float, 2)):
        if flag.value is not None:
            _numbers(flag, kind, count=count)
    usage.belong(given, "--to=ours", wanted=_TO.value == "ours")
    if _TO.value == "monai":
        rows = _to_monai(source, out)
    elif _TO.value == "reference":
        rows = _to_reference(source, out)
    else:
        if out.suffix != ".safetensors":
            raise ValueError(f"--out={out.name}: our networks are .safetensors files")
        weights = torch_files.read_state_dict(source)
        theirs = monai_networks.is_monai(weights)
        usage.belong(given, "a network of MONAI in --source", wanted=theirs)
        if theirs:
            rows = _from_monai(weights, source, out)
        else:
            rows = _from_reference(weights, source, out)
    console.finish(rows, written=[out])
    return ExitCode.DONE


def _to_reference(source: Path, out: Path) -> list[tuple[str, object]]:
    from deepssim_jax.interop import reference_networks, torch_files
    from deepssim_jax.nn.encoder import load_encoder

    encoder = load_encoder(source)
    torch_files.write_state_dict(out, reference_networks.to_reference(encoder))
    return _encoder_rows(encoder.spec)


def _from_reference(
    weights: "Mapping[str, np.ndarray]", source: Path, out: Path
) -> list[tuple[str, object]]:
    from deepssim_jax.interop import reference_networks
    from deepssim_jax.nn.encoder import save_encoder

    encoder = reference_networks.from_reference(weights)
    save_encoder(out, encoder, card={"converted_from": source.name})
    return _encoder_rows(encoder.spec)


def _encoder_rows(spec: "EmbedderSpec") -> list[tuple[str, object]]:
    return [("head", spec.head.value), ("stages", " ".join(map(str, spec.backbone.widths)))]


def _to_monai(source: Path, out: Path) -> list[tuple[str, object]]:
    from deepssim_jax.interop import monai_networks, torch_files
    from deepssim_jax.nn import network_file

    spec, state, card = network_file.load(source, network_file.spec_class(source))
    torch_files.write_state_dict(out, monai_networks.to_monai(spec, state))
    # What a MONAI network has to be built and sampled with, and its file does not hold.
    kept = {name: card[name] for name in ("latent_scale", "size", "schedule") if name in card}
    return [*_network_rows(spec), *kept.items()]


def _from_monai(
    weights: "Mapping[str, np.ndarray]", source: Path, out: Path
) -> list[tuple[str, object]]:
    from deepssim_jax.interop import monai_networks
    from deepssim_jax.nn import network_file

    unet = not monai_networks.is_autoencoder(weights)
    wanted = [_GROUPS, *([_HEADS, _SCALE, _SIZE, _PREDICTION] if unet else [])]
    missing = [f"--{flag.name}" for flag in wanted if flag.value is None]
    groups = _GROUPS.value
    if missing or groups is None:
        raise ValueError(
            f"{source.name} holds a MONAI {'U-Net' if unet else 'autoencoder'}; its file does not say "
            f"{', '.join(missing)}: give them as it was built and trained"
        )
    card = {"converted_from": source.name, **(_denoiser_card() if unet else {})}
    heads = _numbers(_HEADS, int) if unet else ()
    spec = monai_networks.spec_of(weights, groups=groups, heads=heads)
    network_file.save(out, spec, monai_networks.from_monai(spec, weights), card=card)
    return _network_rows(spec)


def _denoiser_card() -> dict[str, str]:
    """What `generate` has to know beside the weights."""
    from deepssim_jax.diffusion.schedule import Prediction, Schedule

    size, betas = _numbers(_SIZE, int, count=2), _numbers(_BETAS, float, count=2)
    scale = _SCALE.value or 0.0
    if min(size) < 1 or scale <= 0 or not 0 < betas[0] <= betas[1] < 1:
        raise ValueError(
            f"--size={size[0]},{size[1]} and --latent_scale={scale} must be positive, and "
            f"--betas={betas[0]},{betas[1]} must rise in (0, 1)"
        )
    schedule = Schedule(first=betas[0], last=betas[1], prediction=Prediction(_PREDICTION.value))
    return {
        "latent_scale": repr(scale),
        "schedule": json.dumps(dataclasses.asdict(schedule)),
        "size": json.dumps(size),
    }


def _numbers(flag: flags.FlagHolder, kind: type, *, count: int | None = None) -> list:
    try:
        values = [kind(value) for value in flag.value]
    except ValueError:
        values = []
    if not values or count not in (None, len(values)):
        many = "numbers" if count is None else f"{count} numbers"
        raise ValueError(f"--{flag.name}={','.join(flag.value)} must be {many} between commas")
    return values


def _network_rows(spec: "Spec") -> list[tuple[str, object]]:
    return [(name, str(value)) for name, value in dataclasses.asdict(spec).items()]
