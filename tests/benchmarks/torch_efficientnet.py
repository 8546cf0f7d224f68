"""EfficientNet-Lite0 in PyTorch, under the names of `efficientnet_lite_pytorch`, as the peer of ours."""

import torch
from torch import nn
from torch.nn import functional

from benchmarks.methods.efficientnet import WIDTH, EfficientNetSpec


class Same(nn.Conv2d):
    """A convolution padded as TensorFlow's "SAME" is: what is odd goes behind."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pads: list[int] = []
        for side, kernel, stride in zip(x.shape[:1:-1], self.kernel_size, self.stride, strict=True):
            total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(functional.pad(x, pads))


def layer(into: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> tuple:
    convolution = Same(into, out, kernel, stride=stride, groups=groups, bias=False)
    return convolution, nn.BatchNorm2d(out, eps=1e-3)


class TorchBlock(nn.Module):
    def __init__(self, into: int, out: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        inner, self.expands = into * expansion, expansion > 1
        if self.expands:
            self._expand_conv, self._bn0 = layer(into, inner)
        self._depthwise_conv, self._bn1 = layer(inner, inner, kernel, stride, groups=inner)
        self._project_conv, self._bn2 = layer(inner, out)
        self.skips = stride == 1 and into == out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.skips else y


class Twin(nn.Module):
    """The network under the names of `efficientnet_lite_pytorch`."""

    def __init__(self, spec: EfficientNetSpec):
        super().__init__()
        self._conv_stem, self._bn0 = layer(3, spec.stem, 3, 2)
        blocks, into = [], spec.stem
        stages = zip(spec.depths, spec.dims, spec.kernels, spec.strides, strict=True)
        for stage, (depth, out, kernel, stride) in enumerate(stages):
            for number in range(depth):
                expansion = spec.expansion if stage else 1
                blocks.append(TorchBlock(into, out, kernel, 1 if number else stride, expansion))
                into = out
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = layer(into, WIDTH)
        self._fc = nn.Linear(WIDTH, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return functional.relu6(self._bn1(self._conv_head(x))).mean((2, 3))
