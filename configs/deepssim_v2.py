"""DeepSSIM++ as published (arXiv 2609.03615): ConvNeXt-Tiny, four generalised means.

    deepssim train_encoder --config=configs/deepssim_v2.py --workdir=runs/v2 \
        --config.table=dataset.csv --config.images=data/ --config.initial=convnext_tiny.pth
    deepssim train_encoder --config=configs/deepssim_v2.py:smoke --workdir=/tmp/smoke

The authors used one RTX 4070 Ti SUPER (16 GB) and report 0.0269 MAE and 0.0410 RMSE in validation.
"""

from deepssim_jax.training.config import EncoderConfig, variant


def get_config(arg: str = "") -> EncoderConfig:
    """`smoke` runs through every part in minutes."""
    config = EncoderConfig(
        size=(136, 112),
        augment="v2",
        network="tiny",
        dropout=0.1,
        batch=64,  # in the paper; 128 is the default of the code
        epochs=65,
        objective="pairs",
        learning_rate=1e-3,
        weight_decay=1e-3,
        schedule="constant",
        # Head 1e-3, last stage 3e-4, then 9e-5 and 2.7e-5; stem and first stage rest.
        stage_decay=0.3,
        freeze="first_stage",
        validate_every=1000,
        checkpoint_every=500,
        seed=42,
    )
    return variant(config, arg, name="deepssim_v2")
