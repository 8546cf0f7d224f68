"""Embedders: images to vectors of unit norm whose cosine approximates SSIM after alignment.

Contract: z-scored images float [n, h, w] to float32 [n, dim] of unit Euclidean norm, or volumes
[n, d, h, w], where the backbone is of three axes. Two heads:
`MULTISCALE` pools every stage by its own generalised mean (DeepSSIM++, arXiv 2609.03615);
`POOLED` averages the last stage (DeepSSIM, arXiv 2509.16582).
"""

import dataclasses
import enum

import jax
import jax.numpy as jnp
from flax import nnx

from deepssim_jax.nn.convnext import ConvNeXtSpec
from deepssim_jax.ops.intensity import local_zscore
from deepssim_jax.ops.transform import FLIP_SIGNS
from deepssim_jax.typing import Array


class Head(enum.StrEnum):
    """How the stages become one vector."""

    MULTISCALE = "multiscale"
    POOLED = "pooled"


@dataclasses.dataclass(frozen=True)
class EmbedderSpec:
    """What an embedder is built from; stored beside its weights.

    `resolution` is the side in pixels that images are brought to before they are embedded; None
    takes them as they are. With `local_contrast` (pixels at that resolution) a second channel
    holds each pixel against its neighbourhood of that width, which bias fields hardly change.
    With `signed` a stage's values below zero are pooled by themselves beside those above, for backbones
    whose stages end in a linear map.
    A network that is `mirrored` embeds an image as the mean over its four mirrorings, so that these have
    one embedding; it is trained on one at a time.

    Raises:
      ValueError: volumes would be mirrored, or the head averages and signs cancel.
    """

    backbone: ConvNeXtSpec
    head: Head
    hidden: int
    dim: int = 256
    dropout: float = 0.1
    resolution: int | None = None
    local_contrast: float | None = None
    mirrored: bool = False
    signed: bool = False

    def __post_init__(self) -> None:
        if self.mirrored and self.backbone.space != 2:
            raise ValueError(f"only images have four mirrorings, and {self} embeds volumes")
        if self.signed and self.head is Head.POOLED:
            raise ValueError("a head that averages gains nothing by signs; leave `signed` out")

    @classmethod
    def base(cls) -> "EmbedderSpec":
        """DeepSSIM: ConvNeXt-Base with the pooled head."""
        backbone = ConvNeXtSpec(channels=3, depths=(3, 3, 27, 3), dims=(128, 256, 512, 1024))
        return cls(backbone, Head.POOLED, hidden=512, dropout=0.33)

    @classmethod
    def tiny(cls) -> "EmbedderSpec":
        """DeepSSIM++: ConvNeXt-Tiny with the multiscale head."""
        backbone = ConvNeXtSpec(channels=3, depths=(3, 3, 9, 3), dims=(96, 192, 384, 768))
        return cls(backbone, Head.MULTISCALE, hidden=848)

    @classmethod
    def nano(cls) -> "EmbedderSpec":
        """What ships: 3.7 million parameters, trained from scratch."""
        backbone = ConvNeXtSpec(
            channels=2, depths=(2, 2, 6, 2), dims=(40, 80, 160, 320), layer_scale=0.1
        )
        return cls(
            backbone,
            Head.MULTISCALE,
            hidden=352,
            dropout=0.0,
            resolution=64,
            local_contrast=4.0,
            mirrored=True,
        )

    @classmethod
    def volume(cls) -> "EmbedderSpec":
        """Whole volumes, trained on their SSIM in 3D: 2.1 million parameters."""
        backbone = ConvNeXtSpec(
            channels=1,
            depths=(2, 2, 3, 1),
            dims=(48, 96, 160, 256),
            layer_scale=0.1,
            space=3,
            kernel=3,
        )
        return cls(backbone, Head.MULTISCALE, hidden=352, dropout=0.0, resolution=32)


class GeM(nnx.Module):
    """Generalised mean over space, (mean x^p)^(1/p) (Radenovic et al., TPAMI 2019, eq. 3)."""

    def __init__(self) -> None:
        self.p = nnx.Param(jnp.array([3.0]))

    def __call__(self, x: Array) -> Array:
        p = self.p[...][0]
        # exp(p log x): the power of a base bounded away from 0, with a finite gradient.
        powers = jnp.exp(p * jnp.log(jnp.maximum(x, 1e-6)))
        return jnp.exp(jnp.log(powers.mean(tuple(range(1, x.ndim - 1)))) / p)


class Embedder(nnx.Module):
    """The network of an `EmbedderSpec`."""

    def __init__(self, spec: EmbedderSpec, *, rngs: nnx.Rngs):
        self.spec = spec
        self.backbone = spec.backbone.build(rngs=rngs)
        dims = spec.backbone.widths
        if spec.head is Head.MULTISCALE:
            self.pools = nnx.List([GeM() for _ in dims])
            width = sum(dims) * (2 if spec.signed else 1)
            self.norm = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
        else:
            self.norm = nnx.BatchNorm(dims[-1], epsilon=1e-5, momentum=0.9, rngs=rngs)
            width = dims[-1]
        self.first = nnx.Linear(width, spec.hidden, rngs=rngs)
        self.dropout = nnx.Dropout(spec.dropout)
        self.second = nnx.Linear(spec.hidden, spec.dim, rngs=rngs)

    def __call__(self, images: Array, *, rngs: nnx.Rngs | None = None) -> Array:
        return self.head(self.backbone(self.channels(images)), rngs=rngs)

    def embed(self, images: Array) -> Array:
        """Unit rows [n, dim] of z-scored images [n, *space], over their mirrorings where it is so."""
        views = self.views(images)
        return self.joined(self(views.reshape(-1, *images.shape[1:])), views.shape[1])

    def views(self, images: Array) -> Array:
        """What is embedded of each image: itself alone, or its mirrorings; [n, views, *space]."""
        if not self.spec.mirrored:
            return images[:, None]
        signs = FLIP_SIGNS.astype(int)
        return jnp.stack([images[:, ::y, ::x] for y, x in signs], 1)

    def joined(self, embeddings: Array, views: int) -> Array:
        """Unit rows [n, dim], the directions of the means of n times so many views' [n * views, dim]."""
        if views == 1:
            return embeddings
        return _unit(embeddings.reshape(-1, views, embeddings.shape[1]).mean(1))

    def channels(self, images: Array) -> Array:
        """[n, *space] to what the backbone sees, [n, *space, c]."""
        if self.spec.local_contrast is None:
            return jnp.repeat(images[..., None], self.spec.backbone.channels, axis=-1)
        local = local_zscore(images, sigma=self.spec.local_contrast).astype(images.dtype)
        return jnp.stack([images, local], -1)

    def head(self, stages: list[Array], *, rngs: nnx.Rngs | None = None) -> Array:
        """The stages' outputs to unit rows [n, dim], in float32."""
        stages = [stage.astype(jnp.float32) for stage in stages]
        if self.spec.signed:
            stages = [jnp.concatenate([stage, -stage], -1) for stage in stages]
        if self.spec.head is Head.MULTISCALE:
            pooled = [pool(stage) for pool, stage in zip(self.pools, stages, strict=True)]
            features = self.norm(jnp.concatenate(pooled, -1))
        else:
            features = self.norm(stages[-1].mean(tuple(range(1, stages[-1].ndim - 1))))
        hidden = jax.nn.gelu(self.first(features), approximate=False)
        out = self.second(self.dropout(hidden, rngs=rngs)).astype(jnp.float32)
        return _unit(out)


def _unit(rows: Array) -> Array:
    return rows / jnp.maximum(jnp.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
