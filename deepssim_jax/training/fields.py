"""What the fields of a training's configuration may hold, checked before anything is read.

Contract: fields can be changed on the command line one by one, so each message begins with the
field's name and its value, as `ops.arguments` writes them.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from deepssim_jax.data.manifest import check_subject_regex
from deepssim_jax.ops.arguments import MOST_WHOLE, choice, number, sequence, whole

if TYPE_CHECKING:  # they import this module
    from deepssim_jax.training.config import EncoderConfig
    from deepssim_jax.training.generator_config import AutoencoderConfig, LdmConfig, SourceConfig

Rule = Callable[[object, str], object]


def _whole(least: int, most: int = MOST_WHOLE) -> Rule:
    return functools.partial(whole, least=least, most=most)


def _share(example: float) -> Rule:
    """From 0 to below 1."""
    return functools.partial(number, low=0, high=1, open_high=True, example=example)


def _positive(example: float) -> Rule:
    return functools.partial(number, low=0, open_low=True, example=example)


def _least(example: float) -> Rule:
    """From 0 on."""
    return functools.partial(number, low=0, example=example)


def _one_of(*known: str) -> Rule:
    return functools.partial(choice, known=known)


def _text(value: object, name: str) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{name} {value!r} must be text")


def _path(value: object, name: str) -> None:
    """Nothing, "default", or what is there."""
    _text(value, name)
    if value not in ("", "default") and not Path(str(value)).exists():
        raise ValueError(f"{name} {value!r} is not there; check the path")


def _regex(value: object, name: str) -> None:
    _text(value, name)
    check_subject_regex(str(value) or None)


def _several(rule: Rule, *, count: int | None = None, example: str) -> Rule:
    return functools.partial(sequence, rule=rule, count=count, example=example)


_SIZE = _several(_whole(16, 4096), count=2, example="(64,64)")
_HALF = _one_of("auto", "yes", "no")
_LOOP: Mapping[str, Rule] = {
    "batch": _whole(1),
    "steps": _whole(1),
    "learning_rate": _positive(1e-3),
    "half": _HALF,
    "validate_every": _whole(1),
    "checkpoint_every": _whole(1),
    "seed": _whole(0, 2**31 - 1),
    "images": _path,
    "subject_regex": _regex,
    "size": _SIZE,
}
_ENCODER: Mapping[str, Rule] = {
    **_LOOP,
    "table": _path,
    "initial": _path,
    "augment": _one_of("v1", "v2", "stress", "volumes"),
    "network": _one_of("nano", "tiny", "base", "volume"),
    "dropout": _share(0.3),
    "epochs": _whole(0),
    "objective": _one_of("pairs", "batch"),
    "method": _one_of("adamw", "muon"),
    "weight_decay": _least(1e-3),
    "schedule": _one_of("constant", "cosine"),
    "warmup": _whole(0),
    "clip": _positive(1.0),
    "stage_decay": functools.partial(number, low=0, high=1, open_low=True, example=1),
    "freeze": _one_of("nothing", "first_stage", "published_v1"),
    "average": _share(0.999),
}
_SOURCE: Mapping[str, Rule] = {
    **_LOOP,
    "phantoms": _whole(2),
    "phantom_seed": _whole(0, 2**32 - 1),
    "held_out": _share(0.15),
    "split_seed": _whole(0, 2**32 - 1),
    "groups": _whole(1),
    "blocks": _whole(1),
}
_WIDTHS = _several(_whole(1), example="(64,128)")
_AUTOENCODER: Mapping[str, Rule] = {
    **_SOURCE,
    "channels": _WIDTHS,
    "latent": _whole(1),
    "kl": _least(1e-6),
    "perceptual": _least(0.1),
    "features": _path,
    "adversarial": _least(0.125),
    "adversarial_from": _whole(0),
    "critic": _several(_whole(1), count=2, example="(64,3)"),
    "schedule": _one_of("constant", "cosine"),
}


def _flag(value: object, name: str) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name} {value!r} must be True or False")


_LDM: Mapping[str, Rule] = {
    **_SOURCE,
    "autoencoder": _path,
    "channels": _WIDTHS,
    "attention": _several(_flag, example="(False,True)"),
    "heads": _several(_whole(0), example="(0,64)"),
    "condition": _one_of("none", "variables", "text"),
    "columns": _several(_text, example="('age','sex')"),
    "table": _path,
    "drop": _share(0.1),
    "duplication": _one_of("none", "low", "high"),
    "duplication_range": _one_of("code", "paper"),
    "prediction": _one_of("epsilon", "v"),
    "min_snr": _least(5),
    "weight_decay": _least(1e-2),
    "warmup": _whole(0),
    "clip": _positive(1.0),
    "average": _share(0.999),
    "accumulate": _whole(1),
    "remat": _flag,
    "fsdp": _whole(1),
}


def _each(config: "EncoderConfig | SourceConfig", rules: Mapping[str, Rule]) -> None:
    for name, rule in rules.items():
        rule(getattr(config, name), name)
    if config.subject_regex and not config.images:
        raise ValueError(f"subject_regex {config.subject_regex!r} needs --config.images")


def check_encoder(config: "EncoderConfig") -> None:
    """Raises ValueError for a field, or two together, that cannot work."""
    _each(config, _ENCODER)
    size, volumes = tuple(config.size), config.network == "volume"
    if any(side % 4 or side < 32 for side in size):
        raise ValueError(
            f"size {size} must be multiples of 4 and at least 32, for example (64, 64)"
        )
    if not config.table and size[0] != size[1]:
        raise ValueError(f"size {size} must be square, because its images are aligned here")
    if config.batch % 16:
        raise ValueError(f"batch {config.batch} must be a multiple of 16, for example 48")
    if volumes and (config.images or config.initial):
        name = "images" if config.images else "initial"
        raise ValueError(
            f"{name} {getattr(config, name)!r} must be left out: network 'volume' is trained on phantoms "
            "from random weights"
        )
    if volumes != (config.augment == "volumes"):
        known = ("volumes",) if volumes else ("v1", "v2", "stress")
        choice(config.augment, "augment", known=known)
    if config.table and not config.images:
        raise ValueError(f"table {config.table!r} needs --config.images, the folder of its images")
    if config.epochs and not config.table:
        raise ValueError(
            f"epochs {config.epochs} needs --config.table; of anything else give --config.steps"
        )


def check_autoencoder(config: "AutoencoderConfig") -> None:
    """Raises ValueError for a field, or two together, that cannot work."""
    _each(config, _AUTOENCODER)
    _groups(config.channels, config.groups)


def check_denoiser(config: "LdmConfig") -> None:
    """Raises ValueError for a field, or two together, that cannot work."""
    _each(config, _LDM)
    _groups(config.channels, config.groups)
    for name in ("attention", "heads"):
        found = getattr(config, name)
        if len(found) != len(config.channels):
            raise ValueError(
                f"{name} {tuple(found)} must have one value for each of the {len(config.channels)} "
                "channels"
            )
    if config.batch % config.accumulate:
        raise ValueError(
            f"batch {config.batch} must be a multiple of accumulate {config.accumulate}"
        )
    if config.table and config.condition == "none":
        raise ValueError(
            f"table {config.table!r} needs --config.condition=variables or text, or nobody reads it"
        )


def _groups(channels: tuple[int, ...], groups: int) -> None:
    if any(width % groups for width in channels):
        raise ValueError(f"groups {groups} must divide all channels {tuple(channels)}")
