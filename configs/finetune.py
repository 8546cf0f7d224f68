"""The shipped encoder made better on your own images, in ten minutes on a laptop.

    deepssim train_encoder --config=configs/finetune.py --workdir=runs/mine \
        --config.images=training_images/ --config.subject_regex='^([0-9]+)_'
    deepssim audit ... --encoder=runs/mine/encoder.safetensors

Two CPU cores, ten minutes; benchmarks/README.md has what it was worth on chest films.
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
