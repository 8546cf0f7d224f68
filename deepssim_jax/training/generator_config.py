"""What one training of a generator is; `configs/*.py` fill it in.

Contract: plain values, so that `--config.NAME=VALUE` can change any of them.
"""

import dataclasses


@dataclasses.dataclass
class SourceConfig:
    """The images. Every field can be changed by --config.NAME=VALUE.

    `images` is a folder, manifest or BIDS root; without it `phantoms` people are made up. `size` is
    (height, width) in pixels, of any length. The share `held_out` of the patients is kept
    for validation and for membership inference, 0 for nobody; `split_seed` decides whom.
    """

    images: str = ""
    subject_regex: str = ""
    phantoms: int = 64
    phantom_seed: int = 0
    size: tuple[int, int] = (64, 64)
    held_out: float = 0.15
    split_seed: int = 0


@dataclasses.dataclass
class AutoencoderConfig(SourceConfig):
    """An autoencoder: its channels by level, `groups` that divide them, and the loss beside L1.

    `features` is the encoder in whose features images should look alike: "default", a
    .safetensors file, or "" for none. `critic` are the discriminator's channels and layers; the
    adversarial part begins at step `adversarial_from`. `schedule` of the learning rate is "constant",
    as published, or "cosine". `half` computes in bfloat16, on accelerators
    only with "auto".
    """

    channels: tuple[int, ...] = (64, 128, 128)
    latent: int = 3
    blocks: int = 2
    groups: int = 32
    kl: float = 1e-6
    perceptual: float = 0.1
    features: str = "default"
    adversarial: float = 0.125
    adversarial_from: int = 0
    critic: tuple[int, int] = (64, 3)
    batch: int = 16
    steps: int = 20_000
    learning_rate: float = 1e-4
    schedule: str = "constant"
    half: str = "auto"
    validate_every: int = 500
    checkpoint_every: int = 250
    seed: int = 0

    def smoke(self) -> "AutoencoderConfig":
        """The same in a minute on a laptop: phantoms, four small steps."""
        return dataclasses.replace(
            self,
            images="",
            phantoms=16,
            size=(32, 32),
            channels=(8, 16, 16),
            blocks=1,
            groups=8,
            critic=(8, 2),
            batch=8,
            steps=4,
            validate_every=2,
            checkpoint_every=2,
        )


@dataclasses.dataclass
class LdmConfig(SourceConfig):
    """A denoiser in the latents of the autoencoder of `autoencoder`, a workdir of train_vae.

    Network: `channels` by level, `attention` at which of them, `heads` channels of one head there,
    `groups` that divide the channels.

    `condition` is "none", "variables" (`columns` of the `table`, a CSV file with `image_id`; the
    manifest itself if "") or "text" (its column `embedding`, a .npy file each, or `prompt`); `drop`
    of the images are seen without theirs, for guidance.

    `duplication` repeats images: "none", "low" or "high"; how often is drawn from 1 to 4 or 1 to 14,
    as the published code does ("code"), or 1 to 5 or 1 to 15, as its paper says ("paper").

    `prediction` is "epsilon" or "v"; `min_snr` bounds the weight of easy steps, 0 for all alike;
    `average` is the decay of the weights' moving average; `accumulate` parts of a batch one after
    the other; `remat` saves memory for time; `fsdp` devices share one copy of the weights.
    """

    autoencoder: str = ""
    channels: tuple[int, ...] = (256, 512, 768)
    attention: tuple[bool, ...] = (False, True, True)
    heads: tuple[int, ...] = (0, 512, 768)
    blocks: int = 2
    groups: int = 32
    condition: str = "none"
    columns: tuple[str, ...] = ("age", "sex")
    table: str = ""
    drop: float = 0.1
    duplication: str = "none"
    duplication_range: str = "code"
    prediction: str = "epsilon"
    min_snr: float = 0.0
    batch: int = 8
    steps: int = 100_000
    learning_rate: float = 2.5e-5
    weight_decay: float = 1e-2
    warmup: int = 0
    clip: float = 1.0
    average: float = 0.999
    accumulate: int = 1
    remat: bool = False
    fsdp: int = 1
    half: str = "auto"
    validate_every: int = 1000
    checkpoint_every: int = 500
    seed: int = 0

    def smoke(self) -> "LdmConfig":
        """The same in a minute on a laptop: phantoms, four small steps."""
        return dataclasses.replace(
            self,
            images="",
            table="",
            condition="none",
            phantoms=16,
            size=(32, 32),
            channels=(16, 32),
            attention=(False, True),
            heads=(0, 16),
            blocks=1,
            groups=8,
            batch=8,
            steps=4,
            warmup=0,
            validate_every=2,
            checkpoint_every=2,
        )
