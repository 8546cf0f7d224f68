"""The shipped encoder, fine-tuned on your own images.

    deepssim train_encoder --config=configs/finetune.py --workdir=runs/mine \
        --config.images=training_images/ --config.subject_regex='^([0-9]+)_'
    deepssim audit ... --encoder=runs/mine/encoder.safetensors

Two CPU cores, 12 to 22 minutes. What it changed on chest radiographs: docs/results/fine_tuning.md.
"""

from deepssim_jax.training.config import EncoderConfig


def get_config(arg: str = "") -> EncoderConfig:
    """`smoke` takes four steps."""
    config = EncoderConfig(
        initial="default",
        learning_rate=5e-4,
        warmup=30,
        steps=1400,
        validate_every=100,
        checkpoint_every=50,
    )
    if arg == "smoke":
        config.batch, config.steps, config.validate_every, config.checkpoint_every = 16, 4, 2, 2
    elif arg:
        raise ValueError(f"finetune knows ':smoke', not {arg!r}")
    return config
