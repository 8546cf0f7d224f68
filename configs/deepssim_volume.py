"""An encoder of whole volumes, for the feature level of `deepssim replicas --encoder=FILE`.

    deepssim train_encoder --config=configs/deepssim_volume.py --workdir=runs/volume
    deepssim train_encoder --config=configs/deepssim_volume.py:smoke --workdir=/tmp/smoke

Its cosine is trained to tell the SSIM in 3D of phantom heads after alignment: brains of random
contrast, CT with a haemorrhage, and angiograms.

Two CPU cores, 22 minutes; on validation phantoms MAE 0.094, RMSE 0.128, Spearman 0.79 to expect. No
encoder of volumes ships: among real heads, slices through the encoder of images find the original of a
copy more often (`benchmarks/volume_encoder.py`).
"""

from deepssim_jax.training.config import EncoderConfig, variant


def get_config(arg: str = "") -> EncoderConfig:
    """`smoke` runs through every part in a minute."""
    config = EncoderConfig(
        size=(32, 32),
        augment="volumes",
        network="volume",
        batch=16,
        steps=3000,
        checkpoint_every=50,
    )
    return variant(config, arg, name="deepssim_volume")
