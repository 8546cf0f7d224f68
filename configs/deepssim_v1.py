"""DeepSSIM as published (arXiv 2509.16582): ConvNeXt-Base, pooled head, partly frozen.

    deepssim train_encoder --config=configs/deepssim_v1.py --workdir=runs/v1 \
        --config.table=dataset.csv --config.images=data/ --config.initial=convnext_base.pth
    deepssim train_encoder --config=configs/deepssim_v1.py:intended --workdir=runs/v1_intended ...
    deepssim train_encoder --config=configs/deepssim_v1.py:smoke --workdir=/tmp/smoke

One GPU of 12 GB suffices for it (batches of 32 pairs of 136 x 112). The paper gives no validation
error; DeepSSIM++ reports 0.0474 MAE and 0.0661 RMSE for its starting point, which is this.
"""

from deepssim_jax.training.config import EncoderConfig


def get_config(arg: str = "") -> EncoderConfig:
    """`intended` freezes what was meant, `smoke` runs through every part in minutes."""
    config = EncoderConfig(
        size=(136, 112),
        augment="v1",
        network="base",
        dropout=0.33,
        batch=32,
        epochs=40,
        objective="pairs",
        learning_rate=1e-3,
        weight_decay=1e-3,
        schedule="constant",
        # By a test of names for "0" or "1"; meant were the first two parts, `first_stage`.
        freeze="published_v1",
        validate_every=1000,
        checkpoint_every=500,
        seed=42,
    )
    if arg == "intended":
        config.freeze = "first_stage"
    elif arg == "smoke":
        return config.smoke()
    elif arg:
        raise ValueError(f"deepssim_v1 knows ':intended' and ':smoke', not {arg!r}")
    return config
