"""Our embedders in PyTorch, eager, as their peers: torchvision's ConvNeXt blocks and the two heads.

Parameters carry the names of the published checkpoints, so that `interop.reference_networks` can
give it our weights and both can be seen to compute the same.
"""

import torch
from torch import nn
from torch.nn import functional

from deepssim_jax.nn.embedder import EmbedderSpec, Head


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of [n, c, h, w]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, c, h, w] to the same."""
        x = x.permute(0, 2, 3, 1)
        x = functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class Permute(nn.Module):
    """Reorders axes."""

    def __init__(self, *order: int):
        super().__init__()
        self.order = order

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The axes of x in the order given."""
        return x.permute(*self.order)


class Block(nn.Module):
    """A ConvNeXt block."""

    def __init__(self, dim: int):
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(dim, dim, 7, padding=3, groups=dim),
            Permute(0, 2, 3, 1),
            nn.LayerNorm(dim, eps=1e-6),
            nn.Linear(dim, 4 * dim),
            nn.GELU(),
            nn.Linear(4 * dim, dim),
            Permute(0, 3, 1, 2),
        )
        self.layer_scale = nn.Parameter(torch.full((dim, 1, 1), 1e-6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, c, h, w] to the same."""
        return x + self.layer_scale * self.block(x)


class GeM(nn.Module):
    """Generalised mean over space."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), 3.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, c, h, w] to [n, c]."""
        return x.clamp(min=1e-6).pow(self.p).mean((2, 3)).pow(1 / self.p)


class TorchEmbedder(nn.Module):
    """Images [n, h, w], or [n, channels, h, w], to unit rows [n, dim]."""

    def __init__(self, spec: EmbedderSpec):
        super().__init__()
        self.channels = spec.backbone.channels
        self.multiscale = spec.head is Head.MULTISCALE
        dims = spec.backbone.dims
        into = (self.channels, *dims[:-1])
        parts = []
        for i, (a, b) in enumerate(zip(into, dims, strict=True)):
            conv = nn.Conv2d(a, b, 2 if i else 4, stride=2 if i else 4)
            norm = LayerNorm2d(a if i else b, eps=1e-6)
            parts.append(nn.Sequential(norm, conv) if i else nn.Sequential(conv, norm))
            parts.append(nn.Sequential(*(Block(b) for _ in range(spec.backbone.depths[i]))))
        tail = (nn.GELU(), nn.Dropout(0.0), nn.Linear(spec.hidden, spec.dim))
        if self.multiscale:
            for name, down, blocks in zip("abcd", parts[::2], parts[1::2], strict=True):
                self.add_module(f"stage_{name}", nn.Sequential(down, blocks))
                self.add_module(f"gem_{name}", GeM())
            self.fc = nn.Sequential(
                nn.LayerNorm(sum(dims)), nn.Linear(sum(dims), spec.hidden), *tail
            )
        else:
            self.feature_extractor = nn.Sequential(*parts)
            self.fc = nn.Sequential(
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.BatchNorm1d(dims[-1]),
                nn.Linear(dims[-1], spec.hidden),
                *tail,
            )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """To unit rows [n, dim]."""
        x = images if images.ndim == 4 else images[:, None].repeat(1, self.channels, 1, 1)
        if not self.multiscale:
            return functional.normalize(self.fc(self.feature_extractor(x)), dim=-1)
        pooled = []
        for name in "abcd":
            x = self.get_submodule(f"stage_{name}")(x)
            pooled.append(self.get_submodule(f"gem_{name}")(x))
        return functional.normalize(self.fc(torch.cat(pooled, 1)), dim=-1)
