"""Small parts shared by the decoders and heads."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn


def conv_bn_relu(inputs: int, outputs: int, kernel: int = 1, *, dilation: int = 1) -> nn.Sequential:
    """Convolution without bias, batch norm and ReLU; the input's size is kept."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def separable_conv_bn_relu(
    inputs: int, outputs: int, kernel: int = 3, *, dilation: int = 1
) -> nn.Sequential:
    """The same as one filter a channel and a 1x1 convolution, each with batch norm and ReLU."""
    depthwise = nn.Conv2d(
        inputs,
        inputs,
        kernel,
        padding=dilation * (kernel // 2),
        dilation=dilation,
        groups=inputs,
        bias=False,
    )
    return nn.Sequential(
        depthwise,
        nn.BatchNorm2d(inputs),
        nn.ReLU(inplace=True),
        *conv_bn_relu(inputs, outputs),
    )


def resize(x: Tensor, size: tuple[int, int], *, align_corners: bool) -> Tensor:
    """`x` (B, F, h, w) brought bilinearly to `size` (height, width)."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)


def size_of(x: Tensor) -> tuple[int, int]:
    """Height and width of a feature map."""
    return cast("tuple[int, int]", tuple(x.shape[-2:]))
